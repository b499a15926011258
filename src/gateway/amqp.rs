//! The registration API over AMQP 1.0.
//!
//! As over MQTT, a connection is let in on its names alone; its key or certificate is judged with
//! each request and the verdict comes as an answer, because that is what SDKs know how to report.
//!
//! ```text
//! SASL PLAIN {names}, {token} ─▶ outcome 0 │ 1 names unreadable     (or no SASL: a certificate)
//! ATTACH {address}, api-version ─▶ ATTACH, credit │ DETACH error
//! TRANSFER request ─▶ accepted, TRANSFER answer │ rejected: condition, JSON
//! ```
//!
//! The Java SDK loses what a rejection says, so it is sent an answer with the error in its body, and
//! what comes before it has begun to wait, so that answer is not sent at once.

mod address;
mod connection;
mod reply;
mod sasl;

use std::sync::Arc;
use std::time::Duration;

use super::registrations::Registrations;
use super::service::Service;
use crate::wire::amqp::Limits;

/// Bounds of AMQP connections.
#[derive(Debug, Clone, Copy)]
pub struct AmqpLimits {
    pub wire: Limits,
    /// A connection that asks nothing for so long is closed.
    pub idle: Duration,
    /// Pause before an answer to a Java SDK, as [`super::mqtt::MqttLimits::pause`].
    pub pause: Duration,
}

impl Default for AmqpLimits {
    fn default() -> Self {
        Self {
            wire: Limits::default(),
            idle: Duration::from_mins(2),
            pause: Duration::from_millis(20),
        }
    }
}

/// The front end.
pub struct AmqpFront<R> {
    service: Arc<Service<R>>,
    limits: AmqpLimits,
}

impl<R: Registrations> AmqpFront<R> {
    /// Serves `service`.
    pub fn new(service: Arc<Service<R>>, limits: AmqpLimits) -> Self {
        Self { service, limits }
    }
}
