//! Decisions and the facts they rest on.
//!
//! Pure: knows no Kubernetes client, no protocol, no clock, no randomness and does no I/O.
#![warn(missing_docs)]

pub mod identity;
pub mod twin;
