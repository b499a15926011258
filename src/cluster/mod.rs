//! What the operator says to the API server and hears from it.
//!
//! Owns connections, watches, guarded writes, events, the lease and tokens. Decides nothing.

pub mod apply;
pub mod connect;
pub mod events;
pub mod finalizer;
pub mod lease;
pub mod token;
pub mod watch;
