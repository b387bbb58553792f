//! The runtime daemon: the container engine behind the Docker Engine API, and the host's own API beside it.
//!
//! - [`program`]: the command line; [`daemon`]: its start and its end
//! - [`context`]: what all endpoints share
//! - [`host`]: the other programs of the host: PID 1, provisioning, updater
//! - [`release`]: which release runs
//! - [`addresses`], [`certificate`], [`tls`]: how the API is reached from afar
//! - [`listeners`]: sockets that outlive the daemon; [`server`]: connections
//! - [`router`]: which endpoint answers which request
//! - [`roles`]: who may what; [`audit`]: who did what
//! - [`call`], [`query`], [`respond`]: requests and answers
//! - [`system`]: `/_ping`, `/version`, `/info`
//! - [`images`], [`image_filters`], [`pull`], [`save`]: `/images/…`; [`commit`]: `/commit`; [`build`]: `/build`
//! - [`disk_usage`] for `/system/df`
//! - [`registry`], [`registry_auth`]: what goes to registries
//! - [`containers`], [`wait`], [`logs`], [`attach`], [`websocket`], [`archive`], [`stats`]: `/containers/…`
//! - [`exec`]: `/exec/…`; [`hijack`], [`detach`]: connections that become streams
//! - [`sys`]: whether a client has read
//! - [`events`](mod@events), [`when`]: `/events`, times in requests
//! - [`metrics`]: the host in figures
//! - [`networks`] for `/networks/…`, [`volumes`] for `/volumes/…`
//! - [`keel`], [`update`] ([`spool`]), [`boots`]: `/keel/v1/…`
#![deny(unsafe_code)]

pub mod addresses;
pub mod archive;
pub mod attach;
pub mod audit;
pub mod boots;
pub mod build;
pub mod call;
pub mod certificate;
pub mod commit;
pub mod containers;
pub mod context;
pub mod daemon;
pub mod detach;
pub mod disk_usage;
pub mod events;
pub mod exec;
pub mod hijack;
pub mod host;
pub mod image_filters;
pub mod images;
pub mod keel;
pub mod listeners;
pub mod logs;
pub mod metrics;
pub mod networks;
pub mod program;
pub mod pull;
pub mod query;
pub mod registry;
pub mod registry_auth;
pub mod release;
pub mod respond;
pub mod roles;
pub mod router;
pub mod save;
pub mod server;
pub mod spool;
pub mod stats;
pub mod sys;
pub mod system;
pub mod tls;
pub mod update;
pub mod volumes;
pub mod wait;
pub mod websocket;
pub mod when;
