//! `state`, `list`.

use std::io::Write;

use serde::Serialize;

use super::Result;
use super::args::Args;
use super::clock;
use super::record::{self, Container, Status};
use super::report::{Doing, Failure};
use crate::spec::Spec;

/// What is told of a container.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    oci_version: String,
    id: String,
    pid: u32,
    status: &'static str,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: std::collections::BTreeMap<String, String>,
    owner: String,
}

impl Shown {
    fn new(container: &Container) -> Result<Self> {
        let record = &container.record;
        let status = container.status()?;
        let annotations = container.spec().map(|s: Spec| s.annotations).unwrap_or_default();
        Ok(Self {
            oci_version: if record.oci_version.is_empty() {
                crate::OCI_VERSION.into()
            } else {
                record.oci_version.clone()
            },
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.word(),
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: clock::rfc3339(record.created_ns),
            annotations,
            owner: if record.owner_uid == 0 { "root".into() } else { record.owner_uid.to_string() },
        })
    }
}

/// Prints; a reader that has gone is no failure.
pub(super) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(format!("{text}\n").as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).doing(|| "write to standard output".into()),
        _ => Ok(()),
    }
}

/// `state`.
pub(super) fn state(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let shown = Shown::new(&record::open(args, false)?)?;
    print(&serde_json::to_string_pretty(&shown)?)?;
    Ok(0)
}

/// `list`: those that were created whole.
pub(super) fn list(args: &Args) -> Result<u8> {
    args.at_most(0)?;
    let root = record::root(args);
    let mut names: Vec<String> = match std::fs::read_dir(&root) {
        Ok(entries) => entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).doing(|| format!("list {}", root.display())),
    };
    names.sort();
    let mut shown = Vec::new();
    for name in names {
        // One may go, or be unreadable, while the others are listed.
        if let Ok((folder, Ok(Some(record)))) = record::find(args, &name, false) {
            shown.extend(Shown::new(&Container { folder, record }));
        }
    }
    if args.has("quiet") {
        shown.iter().try_for_each(|s| print(&s.id))?;
        return Ok(0);
    }
    match args.text("format")? {
        Some("json") => print(&serde_json::to_string(&shown)?)?,
        None | Some("table" | "") => {
            let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(
                shown.into_iter().map(|s| [s.id, s.pid.to_string(), s.status.into(), s.bundle, s.created, s.owner]),
            );
            print(&table(&rows))?;
        }
        Some(other) => return Err(Failure::new(format!("--format {other:?}: json and table are known"))),
    }
    Ok(0)
}

fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
