//! Images from Dockerfiles: the classic builder of the Docker Engine API.
//!
//! - [`dockerfile`]: Dockerfiles as data, pure
//! - [`ignore`], [`glob`]: `.dockerignore`, patterns of paths, pure
//! - [`settings`]: instructions that change an image's settings, pure; commits and imports use them, too
//! - [`plan`](mod@plan): which stages a build needs, pure
//! - [`builder`]: builds begin and end; [`options`]: what a client asks for; [`interrupt`]: how it leaves
//! - `context`: the client's files on disk
//! - `build`: one build under way; `stage`: its stages, step by step
//! - `run`: `RUN`; `transfer`: `COPY` and `ADD`; `select`: the files they name; `fetched`: what `ADD` fetches
//! - `layer`: what a step changes becomes a layer
//! - `cache`: steps that needn't be taken again
//! - `room`: folders that go with what they are for
//! - [`error`]: why a build failed
#![forbid(unsafe_code)]

mod build;
pub mod builder;
mod cache;
mod context;
pub mod dockerfile;
pub mod error;
mod fetched;
pub mod glob;
pub mod ignore;
pub mod interrupt;
mod layer;
pub mod options;
pub mod plan;
mod room;
mod run;
mod select;
pub mod settings;
mod stage;
mod transfer;

pub use builder::Builder;
pub use error::Error;
pub use interrupt::Interrupt;
pub use options::{Options, Told};
