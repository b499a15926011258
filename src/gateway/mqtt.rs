//! The registration API over MQTT 3.1.1.
//!
//! A connection is let in on its names alone; its key is judged with each request and the verdict
//! comes as an answer, because that is what SDKs know how to report.
//!
//! ```text
//! CONNECT ─▶ CONNACK 0 │ 4 names unreadable │ 5 names contradict each other, no token
//! SUBSCRIBE $dps/registrations/res/# ─▶ SUBACK            (any other filter: 0x80)
//! PUBLISH request ─▶ PUBACK ─▶ (20 ms) ─▶ PUBLISH answer   (anything else: the connection ends)
//! ```

mod connection;
mod login;
mod mailbox;
mod topics;

use std::sync::Arc;
use std::time::Duration;

pub use self::mailbox::Mailboxes;
use super::registrations::Registrations;
use super::service::Service;
use crate::wire::mqtt::{Limits, SessionLimits};

/// Bounds of MQTT connections.
#[derive(Debug, Clone, Copy)]
pub struct MqttLimits {
    pub wire: Limits,
    /// A connection that asks nothing for so long is closed.
    pub idle: Duration,
    /// Pause before an answer: current and old Java SDKs miss answers that come faster than they
    /// can begin to wait.
    pub pause: Duration,
    /// How long a device that is back may take to ask something new, before it is sent what it asked
    /// before. SDKs that wait do so for 30 seconds.
    pub moment: Duration,
    /// Devices whose unacknowledged answers are kept over a reconnect.
    pub mailboxes: u64,
}

impl Default for MqttLimits {
    fn default() -> Self {
        Self {
            wire: Limits {
                // The message size of the service, and room for the topic.
                session: SessionLimits {
                    packet: 98 * 1024,
                    unacknowledged: 16,
                },
                queue: 32,
                ..Limits::default()
            },
            idle: Duration::from_mins(2),
            // With 5 ms the Java SDK still missed answers on a busy machine.
            pause: Duration::from_millis(20),
            moment: Duration::from_secs(3),
            mailboxes: 20_000,
        }
    }
}

/// The front end.
pub struct MqttFront<R> {
    service: Arc<Service<R>>,
    mailboxes: Mailboxes,
    limits: MqttLimits,
}

impl<R: Registrations> MqttFront<R> {
    /// Serves `service`.
    pub fn new(service: Arc<Service<R>>, limits: MqttLimits) -> Self {
        Self {
            service,
            mailboxes: Mailboxes::new(limits.mailboxes),
            limits,
        }
    }
}
