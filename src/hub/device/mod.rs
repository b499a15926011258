//! The device side over MQTT (Azure's page "Communicate with an IoT hub using the MQTT protocol"):
//! one connection, from its CONNECT to its end.
//!
//! Direct methods and messages to devices are not served: a subscription to them is refused in the
//! SUBACK. Any other topic that is not documented ends the connection, as on IoT Hub.

mod admission;
mod subscriptions;
mod topic;
mod twin;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Hub;
use super::sessions::LinkName;
use crate::domain::ids::DeviceId;
use crate::wire::mqtt::{
    self, Event, Events, Filter, Gone, Handle, Limits, Publish, Qos, SessionLimits,
};
use admission::Admission;
pub use subscriptions::Subscriptions;
use topic::{Request, Subscription};

/// A message of a device may have 256 KiB; a topic and a header come on top.
const PACKET_BYTES: u32 = 260 * 1024;

/// A connected device.
struct Connection {
    hub: Arc<Hub>,
    id: DeviceId,
    generation_id: String,
    handle: Handle,
    link: LinkName,
    /// Whether subscriptions outlive the connection.
    is_lasting: bool,
    subscriptions: Subscriptions,
}

/// Speaks to one client until its connection ends.
pub(super) async fn serve<S>(hub: Arc<Hub>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let defaults = Limits::default();
    let session = SessionLimits {
        packet: PACKET_BYTES,
        ..defaults.session
    };
    let (handle, mut events) = mqtt::open(
        stream,
        Limits {
            session,
            ..defaults
        },
    );
    let Some(Event::Connect(connect)) = events.next().await else {
        return;
    };
    let (admission, link) = match admission::admit(&hub, &connect, &handle).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // Gone or not, nothing more is said.
            let _ = handle.refuse(refusal);
            while events.next().await.is_some() {}
            return;
        }
    };
    let Admission {
        id,
        record,
        counts_for,
    } = admission;
    tracing::debug!(device = %id, "a device connected");
    let is_lasting = !connect.clean_session;
    let subscriptions = if is_lasting {
        record.subscriptions
    } else {
        Subscriptions::default()
    };
    let mut connection = Connection {
        generation_id: record.identity.generation_id.clone(),
        handle,
        link,
        is_lasting,
        subscriptions,
        id,
        hub,
    };
    tokio::select! {
        outcome = connection.run(&mut events, record.subscriptions) => {
            if outcome.is_err() {
                tracing::debug!(device = %connection.id, "a device's connection ended early");
            }
        }
        () = tokio::time::sleep(counts_for) => {
            tracing::debug!(device = %connection.id, "a device's token expired");
        }
    }
    connection.handle.close();
    connection
        .hub
        .sessions
        .close(&connection.link, connection.hub.now());
    while events.next().await.is_some() {}
}

impl Connection {
    async fn run(&mut self, events: &mut Events, kept: Subscriptions) -> Result<(), Gone> {
        let is_resumed = self.is_lasting && kept != Subscriptions::default();
        if self.subscriptions != kept {
            self.keep_subscriptions().await;
        }
        self.hub
            .sessions
            .subscribe_desired(&self.link, self.desired_qos());
        self.handle.accept(is_resumed)?;
        while let Some(event) = events.next().await {
            match event {
                Event::Subscribe { packet_id, filters } => {
                    self.subscribe(packet_id, &filters).await?;
                }
                Event::Unsubscribe { packet_id, filters } => {
                    self.unsubscribe(packet_id, &filters).await?;
                }
                Event::Publish(publish) => self.publish(publish).await?,
                Event::Acknowledged(_) => self.hub.sessions.heard(&self.link, None, self.hub.now()),
                Event::Connect(_) => return Err(Gone),
                Event::Closed(end) => {
                    tracing::debug!(device = %self.id, %end, "a device's connection ended");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn desired_qos(&self) -> Option<Qos> {
        let qos = self.subscriptions.desired_qos?;
        Some(if qos == 0 {
            Qos::AtMostOnce
        } else {
            Qos::AtLeastOnce
        })
    }

    async fn subscribe(&mut self, packet_id: u16, filters: &[Filter]) -> Result<(), Gone> {
        let before = self.subscriptions;
        let mut granted = Vec::with_capacity(filters.len());
        for filter in filters {
            match Subscription::parse(&filter.topic, self.id.as_str()) {
                Some(Subscription::TwinResponses) => self.subscriptions.twin_responses = true,
                Some(Subscription::Desired) => {
                    let qos = u8::from(filter.qos == Qos::AtLeastOnce);
                    self.subscriptions.desired_qos = Some(qos);
                }
                Some(Subscription::NotServed) => {
                    granted.push(None);
                    continue;
                }
                None => return Err(Gone),
            }
            granted.push(Some(filter.qos));
        }
        self.subscriptions_changed(before).await;
        self.handle.suback(packet_id, granted)
    }

    async fn unsubscribe(&mut self, packet_id: u16, filters: &[String]) -> Result<(), Gone> {
        let before = self.subscriptions;
        for filter in filters {
            match Subscription::parse(filter, self.id.as_str()) {
                Some(Subscription::TwinResponses) => self.subscriptions.twin_responses = false,
                Some(Subscription::Desired) => self.subscriptions.desired_qos = None,
                Some(Subscription::NotServed) | None => {}
            }
        }
        self.subscriptions_changed(before).await;
        self.handle.unsuback(packet_id)
    }

    async fn subscriptions_changed(&self, before: Subscriptions) {
        if self.subscriptions != before {
            self.hub
                .sessions
                .subscribe_desired(&self.link, self.desired_qos());
            self.keep_subscriptions().await;
        }
    }

    /// Stores the subscriptions of a session that lasts, and none of one that does not. A device
    /// that is gone meanwhile, or a store that fails, costs it no more than its subscriptions.
    async fn keep_subscriptions(&self) {
        let kept = if self.is_lasting {
            self.subscriptions
        } else {
            Subscriptions::default()
        };
        let stored = self
            .hub
            .keep_subscriptions(&self.id, &self.generation_id, kept)
            .await;
        if let Err(why) = stored {
            tracing::debug!(device = %self.id, %why, "subscriptions could not be kept");
        }
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), Gone> {
        let Some(request) = Request::parse(&publish.topic, self.id.as_str()) else {
            tracing::debug!(device = %self.id, "a device used a topic that is not served");
            return Err(Gone);
        };
        let message = matches!(request, Request::Telemetry).then_some(&publish.payload);
        self.hub.sessions.heard(&self.link, message, self.hub.now());
        let answer = match &request {
            Request::Telemetry => None,
            Request::TwinGet { rid } => Some(self.twin_get(rid).await),
            Request::Report { rid, version } => {
                Some(self.report(rid, *version, &publish.payload).await)
            }
        };
        // After the work, so that an acknowledged report is a stored one.
        if let Some(packet_id) = publish.packet_id {
            self.handle.puback(packet_id)?;
        }
        match answer {
            Some((topic, payload)) if self.subscriptions.twin_responses => {
                self.handle.publish(topic, payload, Qos::AtMostOnce, 0)
            }
            Some(_) | None => Ok(()),
        }
    }
}
