//! One device's connection, from its first byte to its end.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::AmqpFront;
use super::address::{Names, names, same};
use super::reply;
use super::sasl::{Exchange, MECHANISMS, Proof, Step};
use crate::gateway::body::TpmKeys;
use crate::gateway::error::Problem;
use crate::gateway::registrations::Registrations;
use crate::gateway::service::{Answer, Caller, Protocol};
use crate::wire::amqp::{Attach, Connection, Delivery, End, Event, Message, SaslCode, Session};
use crate::wire::incidents::Incident;
use crate::wire::tls::Peer;

/// What clients are told we are called.
const CONTAINER: &str = "rehome-gateway";
const API_VERSION: &str = "com.microsoft:api-version";
const CLIENT_VERSION: &str = "com.microsoft:client-version";
/// How the Java SDK begins what it says of itself.
const JAVA: &str = "com.microsoft.azure.sdk.iot.";

/// Whoever is at the other end.
struct Device<'a, R> {
    front: &'a AmqpFront<R>,
    protocol: Protocol,
    peer: &'a Peer,
    /// An authentication that is not over.
    exchange: Option<Exchange>,
    proof: Proof,
    /// What a TPM was refused for, and is told when it asks for something.
    refused: Option<Problem>,
    /// Known with the first link.
    caller: Option<Caller>,
    /// Whether this is a Java SDK: it is told errors in bodies, and misses what comes too fast.
    is_java: bool,
}

impl<R: Registrations> AmqpFront<R> {
    /// Serves one connection until it ends, or `stop` becomes true.
    pub async fn serve<S>(
        &self,
        stream: S,
        protocol: Protocol,
        peer: &Peer,
        stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let _counted = self.service.metrics().connection(protocol.label());
        let wire = self.limits.wire;
        let mut connection = Connection::new(stream, wire, MECHANISMS, CONTAINER.to_owned());
        let mut device = Device {
            front: self,
            protocol,
            peer,
            exchange: None,
            proof: Proof::default(),
            refused: None,
            caller: None,
            is_java: false,
        };
        let end = device.converse(&mut connection, stop).await;
        let address = peer.address;
        tracing::debug!(%address, ?end, "AMQP connection closed");
        let incident = match end {
            End::OpenTimeout => Some(Incident::SlowRequest),
            End::NotAmqp | End::Violation(_) => Some(Incident::Malformed),
            End::Closed
            | End::ClosedHere
            | End::EndOfStream
            | End::Unauthenticated
            | End::TooSlow
            | End::Stream(_) => None,
        };
        if let Some(incident) = incident {
            let incidents = self.service.metrics().incidents();
            incidents.note(incident, address.ip());
        }
        connection.finish(&end).await;
    }
}

impl<R: Registrations> Device<'_, R> {
    async fn converse<S>(
        &mut self,
        connection: &mut Connection<S>,
        mut stop: watch::Receiver<bool>,
    ) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut asked = Instant::now();
        loop {
            let next = tokio::select! {
                event = connection.next() => Ok(event),
                () = sleep_until(asked + self.front.limits.idle) => {
                    Err("nothing was asked for a while")
                }
                _ = stop.wait_for(|stop| *stop) => Err("the gateway stops"),
            };
            let event = match next {
                Ok(Ok(event)) => event,
                Ok(Err(end)) => return end,
                Err(why) => {
                    connection.session().close("amqp:connection:forced", why);
                    return End::ClosedHere;
                }
            };
            if matches!(event, Event::Message(..)) {
                asked = Instant::now();
            }
            if let Err(end) = self.answer(connection.session(), event).await {
                return end;
            }
        }
    }

    async fn answer(&mut self, session: &mut Session, event: Event) -> Result<(), End> {
        match event {
            Event::SaslInit(init) => {
                let has_certificate = !self.peer.certificates.is_empty();
                self.step(session, Exchange::begin(&init, has_certificate))
            }
            Event::SaslResponse(response) => match self.exchange.take() {
                Some(exchange) => self.step(session, exchange.respond(&response)),
                None => session.outcome(SaslCode::Auth),
            },
            Event::Attach(attach) => {
                self.attach(session, &attach);
                Ok(())
            }
            Event::Message(delivery, message) => self.request(session, &delivery, message).await,
        }
    }

    fn step(&mut self, session: &mut Session, step: Step) -> Result<(), End> {
        match step {
            Step::Challenge(challenge, exchange) => {
                session.challenge(&challenge);
                self.exchange = Some(exchange);
                Ok(())
            }
            Step::Seal(names, keys) => {
                let Some(blob) = self.challenge(&names, &keys) else {
                    return session.outcome(SaslCode::Auth);
                };
                self.step(session, Exchange::send(names, &keys, blob))
            }
            Step::Done(proof) => {
                self.proof = proof;
                session.outcome(SaslCode::Ok)
            }
            Step::Refused(why) => {
                tracing::debug!(address = %self.peer.address, why, "SASL refused");
                session.outcome(SaslCode::Auth)
            }
        }
    }

    /// A challenge for a TPM, also for one that is refused: of what SASL tells, the Node and Java SDKs
    /// tell an application nothing, and leave it waiting.
    fn challenge(&mut self, names: &Names, keys: &TpmKeys) -> Option<Vec<u8>> {
        let service = &self.front.service;
        let sealed = service.seal_challenge(self.peer.address.ip(), names, keys);
        let problem = match sealed {
            Ok(blob) => return Some(blob),
            Err(problem) => self.told(problem).0,
        };
        if problem == Problem::NotEnrolled {
            self.refused = Some(problem);
        } else if problem != Problem::Unavailable {
            return None;
        }
        service.decoy(keys)
    }

    fn attach(&mut self, session: &mut Session, attach: &Attach) {
        match self.caller(attach) {
            Ok(caller) => {
                let client = attach.property(CLIENT_VERSION).unwrap_or_default();
                self.is_java |= client.starts_with(JAVA);
                self.caller.get_or_insert(caller);
                session.accept();
            }
            Err(problem) => {
                let (_, body) = self.told(problem.clone());
                session.refuse(problem.condition(), &body.to_string());
            }
        }
    }

    /// Who a link is for: the device that authenticated, and one device for each connection.
    fn caller(&self, attach: &Attach) -> Result<Caller, Problem> {
        let names = attach.address.as_deref().and_then(names).ok_or_else(|| {
            Problem::BadRequest(
                "the address of the link is not {idScope}/registrations/{registrationId}".into(),
            )
        })?;
        let before = self.caller.as_ref();
        let before = before.map(|caller| (caller.scope.clone(), caller.id.clone()));
        let said = [self.proof.names.as_ref(), before.as_ref()];
        if said.into_iter().flatten().any(|said| !same(said, &names)) {
            return Err(Problem::Unauthorized(
                "the link is for another ID scope or registration id than the connection",
            ));
        }
        let api_version = attach.property(API_VERSION).ok_or_else(|| {
            Problem::BadRequest(format!("the link property {API_VERSION} is missing"))
        })?;
        let unreadable = |error| Problem::BadRequest(format!("{error}"));
        let (scope, id) = names;
        Ok(Caller {
            protocol: self.protocol,
            address: self.peer.address.ip(),
            scope,
            id,
            api_version: api_version.parse().map_err(unreadable)?,
            token: self.proof.token.clone(),
            certificates: self.peer.certificates.clone(),
            storage_root_key: self.proof.storage_root_key.clone(),
        })
    }

    async fn request(
        &mut self,
        session: &mut Session,
        delivery: &Delivery,
        message: Message,
    ) -> Result<(), End> {
        let received = Instant::now();
        let served = self.serve(&message).await;
        let served = served.map_err(|problem| self.told(problem));
        if self.is_java {
            sleep_until(received + self.front.limits.pause).await;
        }
        // What is settled already cannot be rejected.
        let in_body = self.is_java || delivery.is_settled();
        let (outcome, answer) = reply::answer(served, message.correlation_id, in_body);
        session.settle(delivery, &outcome);
        if let Some(answer) = answer
            && session.send(&answer).is_err()
        {
            tracing::debug!("an answer is dropped: the device does not receive answers");
        }
        Ok(())
    }

    async fn serve(&self, message: &Message) -> Result<Answer, Problem> {
        // A message comes by a link, and a link has a caller.
        let caller = self.caller.as_ref().ok_or(Problem::Internal)?;
        if let Some(problem) = &self.refused {
            return Err(problem.clone());
        }
        let request = reply::request(message)?;
        self.front.service.serve(caller, request).await
    }

    /// A problem, and what the device is told of it.
    fn told(&self, problem: Problem) -> (Problem, serde_json::Value) {
        let service = &self.front.service;
        let tracking_id = service.tracking_id();
        tracing::debug!(
            tracking_id,
            problem = problem.label(),
            protocol = self.protocol.label(),
            "refused: {problem}"
        );
        let body = problem.body(&tracking_id, service.clock().now());
        (problem, body)
    }
}
