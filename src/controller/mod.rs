//! Controllers: observe → decide → apply one effect → report, per kind.
//!
//! Owns what runs when. Speaks no HTTP itself, and nothing here is safe because only one process
//! runs it: guards at the API server and at the hubs are.

pub mod context;
mod counters;
mod directory;
mod entry;
pub mod hub;
pub mod hub_clients;
pub mod index;
pub mod memory;
mod metrics;
mod probes;
mod status;
pub mod triggers;
mod watches;
