//! The gateway: the registration API for devices, over HTTPS, MQTT and AMQP, the latter two also over
//! WebSocket.
//!
//! Owns what devices see of a registration, and `spec.request` of `DeviceRegistration`s. Speaks to
//! devices and to the API server, never to a hub, and holds no hub credential.
//!
//! ```text
//!   http ─┐                ┌─ attest ── Tenants (watched: Enrollments, Secrets, hubs, scopes)
//!   mqtt ─┼─▶ Service ─────┼─ decide ── pure
//!   amqp ─┘   (no protocol)└─ Registrations ── Mirror (watched) + API server (writes)
//! ```

pub mod amqp;
pub mod body;
pub mod decide;
pub mod error;
pub mod fronts;
pub mod health;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod mirror;
pub mod mqtt;
mod options;
pub mod record;
pub mod registrations;
pub mod render;
mod run;
pub mod service;
pub mod tenants;
pub mod watch;

pub use options::Options;
pub use run::{RunError, run};
