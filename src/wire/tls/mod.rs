//! TLS for devices: TLS 1.2 and 1.3, client certificates asked for but not required, hot-reloaded
//! server certificates, and an accept loop that is bounded from the first byte.
//!
//! A presented client certificate is proven (the client holds its key) but not judged: which
//! certificates count is a matter of each enrollment and is decided by the caller.

mod accept;
mod admission;
mod certificates;
mod config;
mod turns;

pub use accept::{AcceptLimits, Accepted, Acceptor, Peer, Stream, Surroundings, listen};
pub use certificates::{CertificateError, Certificates};
pub use config::server_config;
