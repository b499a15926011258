//! Decisions and the facts they rest on.
//!
//! Pure: knows no Kubernetes client, no protocol, no clock, no randomness and does no I/O.
#![warn(missing_docs)]

pub mod attestation;
pub mod identity;
pub mod ids;
pub mod object_name;
pub mod sas;
pub mod twin;

/// Lower-case hex digits of `bytes`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
