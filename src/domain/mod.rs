//! Decisions and the facts they rest on.
//!
//! Pure: knows no Kubernetes client, no protocol, no clock, no randomness and does no I/O.
#![warn(missing_docs)]

pub mod allocation;
pub mod attestation;
pub mod identity;
pub mod ids;
pub mod module;
pub mod object_name;
pub mod policy;
pub mod sas;
pub mod terms;
pub mod transfer;
pub mod twin;
pub mod twin_limits;

/// Lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
