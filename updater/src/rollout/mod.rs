//! What a host does about updates by itself, and when.
//!
//! - [`backoff`]: how long to wait after failures
//! - [`driver`]: the thread that carries out what the policy decides, with the real clock
//! - [`fleetlock`]: asks for leave to restart, and gives it back
//! - [`http`]: a small POST whose answer can't hold anybody up
//! - [`live`]: this host, for the driver
//! - [`look`]: what a look at the repository found
//! - [`memory`]: what the policy remembers, over restarts and within a boot
//! - [`policy`]: the state machine: what is next, decided without I/O
//! - [`record`]: the part of it that outlives a loss of power
//! - [`report`]: outcomes, and who is told of them
//! - [`status`]: where the policy is, for people and programs
//! - [`wave`]: which part of the hosts a host belongs to
//! - [`window`]: maintenance windows, over changes of the clocks
//!
//! ## The way of a release
//!
//! ```text
//!   look ── wave reached ── write ── window open ── lock held ── offer ── restart ── trial ── lock given back ── report
//!    │           │            │           │             │          │
//!    └───────────┴────────────┴───────────┴─────────────┴──────────┴── each asks anew: is it still listed?
//! ```
//!
//! A release that is to be restarted into by the policy is written ahead, but the boot loader doesn't offer it: a power
//! cut before the window boots what ran. It is offered when the window is open and the lock is held, right before the
//! restart. With `reboot = "on-demand"` it is offered at once, and taken back should its publisher withdraw it.
//!
//! ## What holds whatever fails
//!
//! - Nothing is written, offered or restarted into unless the repository's metadata, at most [`policy::FRESH_S`] old,
//!   lists it, in this host's channel, within its pin, not withdrawn.
//! - The restart is asked for only while the window is open. Every step looks at the clock again: a lock that comes
//!   late is given back.
//! - That the lock is asked for is durable before it is asked for, that it is free only after it was given back. So a
//!   host that stops anywhere knows afterwards that it may hold it: it takes it again, or gives it back. The protocol
//!   allows both to be said twice.
//! - The lock is held through the trial, and given back when the new release proved good or the old one is back.
//! - Whatever fails is tried again later, at growing intervals with an upper bound, for as long as there is a reason
//!   to; only a release that [`policy::MAX_RESTARTS`] restarts didn't lead to is given up, until there is a newer one.

pub mod backoff;
pub mod driver;
pub mod fleetlock;
pub mod http;
pub mod live;
pub mod look;
pub mod memory;
pub mod policy;
pub mod record;
pub mod report;
pub mod status;
pub mod wave;
pub mod window;
