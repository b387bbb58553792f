//! Dockerfiles as data (Dockerfile reference). Nothing here does any I/O; hostile bytes come to errors.
//!
//! - [`lines`]: logical lines: directives, comments, continuations, here-documents
//! - [`words`]: lines cut into words
//! - [`expand`]: variables, quotes, escapes
//! - [`instruction`]: one instruction
//! - [`health`]: the options of `HEALTHCHECK`
//! - [`file`](mod@file): a whole file in stages

pub mod expand;
pub mod file;
pub mod health;
pub mod instruction;
pub mod lines;
pub mod words;

#[cfg(test)]
mod tests;

pub use file::{Dockerfile, Stage, Step};
pub use instruction::{Command, Instruction, Transfer};
pub use lines::Heredoc;

/// What is wrong with a Dockerfile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {reason}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}
