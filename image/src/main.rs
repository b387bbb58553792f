//! `keel-image`: the workstation's tool. Parses, calls, and turns errors into exit codes.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "keel-image", about = "Builds Keel releases and disk images", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    // The update repository's verbs (`keel_image::publish`) are hooked in here.
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {}
}
