//! One device's connection, from CONNECT to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::MqttFront;
use super::login::{Login, login};
use super::mailbox::{Begin, Mailbox, Message};
use super::topics::{self, ANSWERS, What};
use crate::gateway::error::{Problem, RETRY_AFTER};
use crate::gateway::registrations::Registrations;
use crate::gateway::service::{Answer, Protocol, Request};
use crate::wire::incidents::Incident;
use crate::wire::mqtt::{self, End, Event, Events, Filter, Handle, Publish, Qos, Refusal};
use crate::wire::tls::Peer;

/// Tells connections of one device apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// A device that was let in.
struct Device<'a, R> {
    front: &'a MqttFront<R>,
    login: Login,
    handle: Handle,
    /// How answers are sent; absent without a subscription.
    subscribed: Option<Qos>,
    /// Whether answers outlive the connection.
    keeps: bool,
    mailbox: Option<Arc<Mailbox>>,
    /// When a device that is back, and asks nothing new, is sent what it asked before.
    due: Option<Instant>,
    number: u64,
}

/// Why a connection is ended by us, for the log.
struct Violation(&'static str);

impl<R: Registrations> MqttFront<R> {
    /// Serves one connection until it ends, or `stop` becomes true.
    pub async fn serve<S>(
        &self,
        stream: S,
        protocol: Protocol,
        peer: &Peer,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let _counted = self.service.metrics().connection(protocol.label());
        let (handle, mut events) = mqtt::open(stream, self.limits.wire);
        let connect = match events.next().await {
            Some(Event::Connect(connect)) => connect,
            Some(Event::Closed(end)) => return self.note(&end, &peer.address),
            _ => return,
        };
        let address = peer.address;
        let login = match login(&connect, protocol, peer) {
            Ok(login) => login,
            Err(refusal) => {
                tracing::debug!(%address, ?refusal, "CONNECT refused");
                if refusal == Refusal::BadUserNameOrPassword {
                    let incidents = self.service.metrics().incidents();
                    incidents.note(Incident::Malformed, address.ip());
                }
                let _ = handle.refuse(refusal);
                return;
            }
        };
        // Never a session of before: clients that are told of one fail (.NET).
        if handle.accept(false).is_err() {
            return;
        }
        let keeps = !connect.clean_session;
        let mut device = Device {
            front: self,
            login,
            handle,
            subscribed: keeps.then_some(Qos::AtLeastOnce),
            keeps,
            mailbox: None,
            due: None,
            number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        };
        device.come_back();
        let end = device.converse(&mut events, &mut stop).await;
        if let Some(mailbox) = &device.mailbox {
            let says_goodbye = matches!(end, Ok(Some(End::Disconnected)));
            mailbox.detach(device.number, says_goodbye);
        }
        match end {
            Ok(Some(end)) => self.note(&end, &address),
            Ok(None) => {}
            Err(Violation(what)) => tracing::debug!(%address, what, "MQTT connection closed"),
        }
        device.handle.close();
    }
}

impl<R: Registrations> MqttFront<R> {
    /// Counts how a connection ended, when the client is to blame.
    fn note(&self, end: &End, address: &SocketAddr) {
        if let Some(incident) = end.incident() {
            self.service
                .metrics()
                .incidents()
                .note(incident, address.ip());
        }
    }
}

impl<R: Registrations> Device<'_, R> {
    /// Prepares to send what the device did not receive on its last connection, if it is the device.
    fn come_back(&mut self) {
        if !self.keeps {
            return;
        }
        let Some(mailbox) = self.front.mailboxes.find(&self.name()) else {
            return;
        };
        if self.front.service.check(&self.login.caller).is_ok() {
            mailbox.attach(self.number, self.handle.clone());
            self.mailbox = Some(mailbox);
            self.due = Some(Instant::now() + self.front.limits.moment);
        }
    }

    /// From the first request on, what is answered to a device of this kind outlives the
    /// connection. Only for the device itself: nobody else may fill mailboxes.
    fn keep_answers(&mut self) {
        if self.keeps && self.front.service.check(&self.login.caller).is_ok() {
            let mailbox = self.front.mailboxes.of(&self.name());
            mailbox.attach(self.number, self.handle.clone());
            self.mailbox = Some(mailbox);
        }
    }

    async fn converse(
        &mut self,
        events: &mut Events,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<End>, Violation> {
        let mut asked = Instant::now();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sleep_until(asked + self.front.limits.idle) => {
                    return Err(Violation("nothing was asked for a while"));
                }
                () = sleep_until(self.due.unwrap_or(asked)), if self.due.is_some() => {
                    self.due = None;
                    if let Some(mailbox) = &self.mailbox {
                        mailbox.deliver(self.number);
                    }
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => return Err(Violation("the gateway stops")),
            };
            let gone = |_| Violation("the connection has ended");
            match event {
                Some(Event::Subscribe { packet_id, filters }) => {
                    let granted = filters
                        .iter()
                        .map(|filter| self.subscribe(filter))
                        .collect();
                    self.handle.suback(packet_id, granted).map_err(gone)?;
                }
                Some(Event::Unsubscribe { packet_id, filters }) => {
                    if filters.iter().any(|filter| filter == ANSWERS) {
                        self.subscribed = None;
                    }
                    self.handle.unsuback(packet_id).map_err(gone)?;
                }
                Some(Event::Publish(publish)) => {
                    asked = Instant::now();
                    self.request(publish, asked).await?;
                }
                Some(Event::Acknowledged(token)) => {
                    if let Some(mailbox) = &self.mailbox {
                        mailbox.received(token);
                    }
                }
                Some(Event::Connect(_)) => return Err(Violation("a second CONNECT")),
                Some(Event::Closed(end)) => return Ok(Some(end)),
                None => return Ok(None),
            }
        }
    }

    fn subscribe(&mut self, filter: &Filter) -> Option<Qos> {
        if filter.topic != ANSWERS {
            return None;
        }
        self.subscribed = Some(filter.qos);
        self.subscribed
    }

    async fn request(&mut self, publish: Publish, received: Instant) -> Result<(), Violation> {
        if publish.retain {
            return Err(Violation("a retained message"));
        }
        let ask = topics::ask(&publish.topic).ok_or(Violation("a topic that leads nowhere"))?;
        let mut earliest = received;
        if let Some(packet_id) = publish.packet_id {
            // The PUBACK goes first, R6. Without the client there is nobody to confuse.
            let _ = self.handle.puback(packet_id);
            let _ = self.handle.flushed().await;
            earliest = Instant::now();
        }
        self.keep_answers();
        self.due = None;
        let mut token = None;
        if let Some(mailbox) = &self.mailbox {
            match mailbox.begin(self.number, &ask.rid, publish.duplicate) {
                Begin::New(new) => token = Some(new),
                Begin::Repeated => return Ok(()),
            }
        }
        let request = match ask.what {
            What::Register => Request::Register {
                body: publish.payload,
            },
            What::Poll { operation_id } => Request::Poll { operation_id },
        };
        let answer = self.front.service.serve(&self.login.caller, request).await;
        let answer = self.message(&ask.rid, answer);
        sleep_until(earliest + self.front.limits.pause).await;
        self.send(token, answer);
        Ok(())
    }

    fn send(&self, token: Option<u64>, answer: Message) {
        if let Some((mailbox, token)) = self.mailbox.as_ref().zip(token) {
            mailbox.finish(token, answer);
            return;
        }
        let Some(qos) = self.subscribed else {
            tracing::debug!("an answer is dropped: the device has not subscribed to answers");
            return;
        };
        // If the connection has ended meanwhile, the next event says so.
        let _ = self.handle.publish(answer.topic, answer.body, qos, 0);
    }

    fn message(&self, rid: &str, answer: Result<Answer, Problem>) -> Message {
        let service = &self.front.service;
        let (status, retry_after, body) = match answer {
            Ok(Answer::Operation(shown)) if shown.is_final() => (200, None, shown.body),
            Ok(Answer::Operation(shown)) => (202, Some(RETRY_AFTER), shown.body),
            Ok(Answer::Registration(body)) => (200, None, body),
            Ok(Answer::Challenge(body)) => (401, None, body),
            Err(problem) => {
                let tracking_id = service.tracking_id();
                let label = problem.label();
                tracing::debug!(
                    tracking_id,
                    problem = label,
                    protocol = self.login.caller.protocol.label(),
                    "refused: {problem}"
                );
                let body = problem.body(&tracking_id, service.clock().now());
                (problem.status().as_u16(), problem.retry_after(), body)
            }
        };
        let retry_after = retry_after.filter(|_| self.login.paced);
        let topic = topics::answer(status, rid, retry_after);
        Message {
            topic,
            body: body.to_string().into(),
        }
    }

    fn name(&self) -> String {
        format!(
            "{}/{}",
            self.login.caller.scope.canonical(),
            self.login.caller.id.canonical()
        )
    }
}
