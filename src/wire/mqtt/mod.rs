//! MQTT 3.1.1, server side.
//!
//! [`Session`] is the protocol without I/O: bytes in, [`Event`]s and bytes out. [`open`] drives one
//! over any byte stream in a task of its own, so that a panic in the protocol library ends one
//! connection and nothing else.
//!
//! ```text
//!            bytes ─▶ Session ─▶ Event ─▶ Events::next   (the owner decides)
//!  stream ◀─ bytes ◀─ Session ◀─ Command ◀─ Handle       (any task may publish or close)
//! ```
//!
//! Only QoS 0 and 1 exist here, as on the services whose devices we speak to: a QoS 2 publish ends
//! the session, a QoS 2 subscription is reported as QoS 1.

mod driver;
mod packets;
mod session;

pub use driver::{Events, Gone, Handle, Limits, open};
pub use packets::{Connect, Event, Filter, Publish, Qos, Refusal, Will};
pub use session::{End, Session, SessionLimits};
