//! `keelctl`, the one command an operator types: on the host's console, or from afar with certificates.
//!
//! - [`program`]: the program as a whole; [`cli`]: the command line as data
//! - [`help`]: what `--help` teaches
//! - [`verbs`]: which verb does what
//! - [`status`], [`logs`], [`boots`], [`update`], [`containers`], [`run`], [`power`]: the verbs
//! - [`console`], [`panel`], [`words`]: the program on the host's own console
//! - [`progress`]: how far an install is
//! - [`target`], [`tls`], [`http`], [`client`]: the way to the API
//! - [`error`]: failures and exit codes
#![forbid(unsafe_code)]

pub mod boots;
pub mod cli;
pub mod client;
pub mod console;
pub mod containers;
pub mod error;
pub mod help;
pub mod http;
pub mod logs;
pub mod panel;
pub mod power;
pub mod program;
pub mod progress;
pub mod run;
pub mod status;
pub mod target;
pub mod tls;
pub mod update;
pub mod verbs;
pub mod words;
