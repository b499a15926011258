//! Controllers: observe → decide → apply one effect → report, per kind.
//!
//! Owns what runs when. Speaks no HTTP itself, and nothing here is safe because only one process
//! runs it: guards at the API server and at the hubs are.

mod census;
pub mod context;
mod counters;
mod directory;
pub mod enrollment;
mod entry;
pub mod gateway_access;
mod health;
pub mod hub;
pub mod hub_clients;
pub mod index;
pub mod memory;
mod metrics;
mod probes;
pub mod registration;
mod run;
mod status;
pub mod sweep;
pub mod triggers;
mod watches;

pub use run::{Options, RunError, run};
