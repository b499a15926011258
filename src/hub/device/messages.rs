//! Messages to a connected device, a few at a time: each stays in the device's queue until it is
//! acknowledged (at QoS 0: until it is sent), and is sent once per connection.

use super::{Connection, qos};
use crate::wire::mqtt::{Gone, Qos};

/// Messages sent and not acknowledged. Together with method calls and changes of desired
/// properties fewer than the session lets a client leave unacknowledged.
const WINDOW: usize = 16;

/// How far the delivery on one connection has come.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// The last message sent.
    sent: u64,
    unacknowledged: usize,
}

impl Connection {
    /// Sends what waits and was not sent on this connection yet.
    pub(super) async fn deliver(&mut self) -> Result<(), Gone> {
        let Some(qos) = qos(self.subscriptions.messages_qos) else {
            return Ok(());
        };
        let device = self.client.device.clone();
        let Ok(Some(record)) = self.hub.read(&device).await else {
            // Gone, or not readable now: it is asked for again with the next message.
            return Ok(());
        };
        let now = self.hub.now();
        for message in &record.messages {
            let is_new = message.sequence > self.delivery.sent && message.is_alive(now);
            if !is_new || record.identity.generation_id != self.generation_id {
                continue;
            }
            if self.delivery.unacknowledged >= WINDOW {
                break;
            }
            self.delivery.sent = message.sequence;
            let (topic, body) = (message.topic(&device), message.content.body.clone());
            self.handle.publish(topic, body, qos, message.sequence)?;
            match qos {
                Qos::AtLeastOnce => self.delivery.unacknowledged += 1,
                Qos::AtMostOnce => self.complete(message.sequence).await,
            }
        }
        Ok(())
    }

    /// The client has what was published under that token.
    pub(super) async fn acknowledged(&mut self, token: u64) -> Result<(), Gone> {
        // Nothing but messages has a token.
        if token == 0 {
            return Ok(());
        }
        self.complete(token).await;
        self.delivery.unacknowledged = self.delivery.unacknowledged.saturating_sub(1);
        self.deliver().await
    }

    async fn complete(&self, sequence: u64) {
        let completed = self
            .hub
            .complete_message(&self.client, &self.generation_id, sequence);
        if let Err(why) = completed.await {
            // It is sent again on the next connection.
            tracing::debug!(client = %self.client, %why, "a message could not be completed");
        }
    }
}
