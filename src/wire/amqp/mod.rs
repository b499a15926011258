//! AMQP 1.0, server side: as much of it as devices speak.
//!
//! [`Session`] is the protocol without I/O: bytes in, [`Event`]s and bytes out. [`Connection`] drives
//! one over a byte stream. One event is answered before the next is read, so that what a client can
//! make us hold is one frame, one message, and the replies that its credit allows.
//!
//! ```text
//!  header AMQP 3 ─▶ SASL mechanisms ─▶ Sasl(init), Sasl(response)… ─▶ outcome ─┐
//!  header AMQP 0 ◀────────────────────────────────────────────────────────────┘
//!  OPEN, BEGIN ─▶ (answered here) ─▶ Attach ─▶ Message ─▶ settle, send
//! ```
//!
//! Our own rather than a library's, of which `fe2o3-amqp` is the one that fits: it ties the protocol
//! to tasks and channels of a runtime, where everything that a stranger's bytes reach should be small,
//! free of I/O and fuzzable; it refuses a client that gives both of its links one name; and it opens
//! and authenticates on its own, with time limits and errors that are not ours to choose. It is what
//! the tests speak.
//!
//! One session for each connection, and no transactions, resumption or performatives in words: no
//! device SDK uses them.

mod connection;
mod frames;
mod links;
mod message;
mod session;
mod types;

pub use connection::{Connection, Limits};
pub use links::{Attach, Delivery, NoLink, Outcome};
pub use message::{Message, Reply};
pub use session::{End, Event, SaslCode, SaslInit, Session, SessionLimits};
