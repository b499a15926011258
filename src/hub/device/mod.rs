//! The device side (Azure's pages "Communicate with an IoT hub using the MQTT protocol" and "Send
//! device-to-cloud messages"): one MQTT connection of a device or module, from its CONNECT to its
//! end. What HTTPS shares with it is here too; its routes are in `rest`.
//!
//! A topic that is not documented ends the connection, as on IoT Hub.

mod admission;
mod credential;
mod messages;
mod subscriptions;
mod topic;
mod twin;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::Hub;
use super::client::Client;
use super::sessions::{LinkName, MethodAnswer};
use super::telemetry::{Telemetry, property_bag};
use crate::wire::mqtt::{
    self, End, Event, Events, Filter, Gone, Handle, Limits, Publish, Qos, SessionLimits, Will,
};
use admission::Admission;
pub(super) use credential::{ClientCertificates, Proof};
use messages::Delivery;
pub use subscriptions::Subscriptions;
use subscriptions::qos;
use topic::{Request, Subscription, telemetry_bag};

/// A message of a device may have 256 KiB; a topic and a header come on top.
const PACKET_BYTES: u32 = 260 * 1024;

/// A connected device or module.
struct Connection {
    hub: Arc<Hub>,
    client: Client,
    generation_id: String,
    handle: Handle,
    link: LinkName,
    /// Whether subscriptions outlive the connection.
    is_lasting: bool,
    subscriptions: Subscriptions,
    delivery: Delivery,
    will: Option<Will>,
}

/// Speaks to one client until its connection ends.
pub(super) async fn serve<S>(hub: Arc<Hub>, stream: S, certificates: ClientCertificates)
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
    let mail = Arc::new(Notify::new());
    let admitted = admission::admit(&hub, &connect, &certificates, &handle, &mail).await;
    let Admission {
        client,
        record,
        counts_for,
        link,
    } = match admitted {
        Ok(admission) => admission,
        Err(refusal) => {
            // Gone or not, nothing more is said.
            let _ = handle.refuse(refusal);
            while events.next().await.is_some() {}
            return;
        }
    };
    let Some(party) = record.party(client.module()) else {
        return;
    };
    tracing::debug!(%client, "a device connected");
    let is_lasting = !connect.clean_session;
    let kept = party.subscriptions;
    let mut connection = Connection {
        generation_id: party.generation_id.to_owned(),
        handle,
        link,
        is_lasting,
        subscriptions: if is_lasting {
            kept
        } else {
            Subscriptions::default()
        },
        delivery: Delivery::default(),
        will: connect.will,
        client,
        hub,
    };
    drop(record);
    tokio::select! {
        outcome = connection.run(&mut events, &mail, kept) => {
            if outcome.is_err() {
                tracing::debug!(client = %connection.client, "a device's connection ended early");
            }
        }
        () = tokio::time::sleep(counts_for) => {
            tracing::debug!(client = %connection.client, "a device's credential expired");
        }
    }
    connection.end();
    while events.next().await.is_some() {}
}

impl Connection {
    async fn run(
        &mut self,
        events: &mut Events,
        mail: &Notify,
        kept: Subscriptions,
    ) -> Result<(), Gone> {
        let is_resumed = self.is_lasting && kept != Subscriptions::default();
        if self.subscriptions != kept {
            self.keep_subscriptions().await;
        }
        self.handle.accept(is_resumed)?;
        // After the CONNACK, so that nothing is sent before it.
        self.tell_subscriptions();
        self.deliver().await?;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => {
                        if self.act(event).await?.is_break() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                () = mail.notified() => self.deliver().await?,
            }
        }
    }

    async fn act(&mut self, event: Event) -> Result<std::ops::ControlFlow<()>, Gone> {
        match event {
            Event::Subscribe { packet_id, filters } => {
                self.subscribe(packet_id, &filters).await?;
            }
            Event::Unsubscribe { packet_id, filters } => {
                self.unsubscribe(packet_id, &filters).await?;
            }
            Event::Publish(publish) => self.publish(publish).await?,
            Event::Acknowledged(token) => {
                self.hub.sessions.heard(&self.link, None, self.hub.now());
                self.acknowledged(token).await?;
            }
            Event::Connect(_) => return Err(Gone),
            Event::Closed(end) => {
                tracing::debug!(client = %self.client, %end, "a device's connection ended");
                if end == End::Disconnected {
                    self.will = None;
                }
                return Ok(std::ops::ControlFlow::Break(()));
            }
        }
        Ok(std::ops::ControlFlow::Continue(()))
    }

    /// The connection is over. A will speaks for a client that did not say goodbye.
    fn end(&mut self) {
        self.handle.close();
        let now = self.hub.now();
        if let Some(will) = self.will.take()
            && let Some(bag) = telemetry_bag(&will.topic, &self.client)
        {
            let mut properties = property_bag(bag);
            properties.push(("iothub-MessageType".to_owned(), "Will".to_owned()));
            let hub = &self.hub;
            hub.sessions.heard(&self.link, Some(&will.payload), now);
            let client = self.client.clone();
            let told = Telemetry::new(client, properties, &will.payload, now);
            hub.tail.push(told);
        }
        self.hub.sessions.close(&self.link, now);
    }

    async fn subscribe(&mut self, packet_id: u16, filters: &[Filter]) -> Result<(), Gone> {
        let before = self.subscriptions;
        let mut granted = Vec::with_capacity(filters.len());
        for filter in filters {
            let at = Some(u8::from(filter.qos == Qos::AtLeastOnce));
            match Subscription::parse(&filter.topic, &self.client) {
                Some(Subscription::TwinResponses) => self.subscriptions.twin_responses = true,
                Some(Subscription::Desired) => self.subscriptions.desired_qos = at,
                Some(Subscription::Methods) => self.subscriptions.methods_qos = at,
                Some(Subscription::Messages) => self.subscriptions.messages_qos = at,
                Some(Subscription::NotServed) => {
                    granted.push(None);
                    continue;
                }
                None => return Err(Gone),
            }
            granted.push(Some(filter.qos));
        }
        let has_changed = self.subscriptions != before;
        if has_changed {
            self.keep_subscriptions().await;
        }
        self.handle.suback(packet_id, granted)?;
        // After the SUBACK, which clients wait for before they expect anything.
        self.tell_subscriptions();
        self.deliver().await
    }

    async fn unsubscribe(&mut self, packet_id: u16, filters: &[String]) -> Result<(), Gone> {
        let before = self.subscriptions;
        for filter in filters {
            match Subscription::parse(filter, &self.client) {
                Some(Subscription::TwinResponses) => self.subscriptions.twin_responses = false,
                Some(Subscription::Desired) => self.subscriptions.desired_qos = None,
                Some(Subscription::Methods) => self.subscriptions.methods_qos = None,
                Some(Subscription::Messages) => self.subscriptions.messages_qos = None,
                Some(Subscription::NotServed) | None => {}
            }
        }
        self.tell_subscriptions();
        if self.subscriptions != before {
            self.keep_subscriptions().await;
        }
        self.handle.unsuback(packet_id)
    }

    fn tell_subscriptions(&self) {
        let sessions = &self.hub.sessions;
        sessions.subscribe_desired(&self.link, qos(self.subscriptions.desired_qos));
        sessions.subscribe_methods(&self.link, qos(self.subscriptions.methods_qos));
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
            .keep_subscriptions(&self.client, &self.generation_id, kept)
            .await;
        if let Err(why) = stored {
            tracing::debug!(client = %self.client, %why, "subscriptions could not be kept");
        }
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), Gone> {
        let Some(request) = Request::parse(&publish.topic, &self.client) else {
            tracing::debug!(client = %self.client, "a device used a topic that is not served");
            return Err(Gone);
        };
        let now = self.hub.now();
        let is_telemetry = matches!(request, Request::Telemetry(_));
        let message = is_telemetry.then_some(&publish.payload);
        self.hub.sessions.heard(&self.link, message, now);
        let answer = match request {
            Request::Telemetry(bag) => {
                let mut properties = property_bag(bag);
                if publish.retain {
                    properties.push(("mqtt-retain".to_owned(), "true".to_owned()));
                }
                let client = self.client.clone();
                let told = Telemetry::new(client, properties, &publish.payload, now);
                self.hub.tail.push(told);
                None
            }
            Request::TwinGet { rid } => Some(self.twin_get(rid).await),
            Request::Report { rid, version } => {
                Some(self.report(rid, version, &publish.payload).await)
            }
            Request::MethodAnswer { rid, status } => {
                let payload = publish.payload.clone();
                let answer = MethodAnswer { status, payload };
                self.hub.sessions.answer(&self.link, rid, answer);
                None
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
