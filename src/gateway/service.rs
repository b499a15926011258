//! The registration service, without a protocol: a request of a device in, an answer or a
//! [`Problem`] out.
//!
//! Authentication comes first and asks only memory: nothing that is not authenticated reaches the
//! API server.

mod attest;
mod register;
mod tpm;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span};

use self::attest::Attested;
use self::tpm::authentication_key;
use super::body::Body;
use super::decide::Windows;
use super::error::Problem;
use super::limits::{Answers, Kind, RequestLimits, Throttle};
use super::metrics::Metrics;
use super::record::Record;
use super::registrations::{Registrations, StoreError};
use super::render::{self, Asker, Group, Shown};
use super::tenants::Tenants;
use crate::api::v1alpha1::RegistrationState;
use crate::clock::Clock;
use crate::domain::ids::{ApiVersion, IdScope, OperationId, RegistrationId};
use crate::wire::incidents::Incident;
use crate::wire::networks::Networks;

/// How the device speaks to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Https,
    Mqtt,
    MqttWebSocket,
    Amqp,
    AmqpWebSocket,
}

impl Protocol {
    /// The word in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Mqtt => "mqtt",
            Self::MqttWebSocket => "mqtt-ws",
            Self::Amqp => "amqp",
            Self::AmqpWebSocket => "amqp-ws",
        }
    }
}

/// Who says it is which device, and how it wants to prove that.
#[derive(Debug, Clone)]
pub struct Caller {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub scope: IdScope,
    /// In the device's spelling.
    pub id: RegistrationId,
    pub api_version: ApiVersion,
    /// A shared access signature.
    pub token: Option<Arc<str>>,
    /// The client's certificates as TLS received them, leaf first; empty when it presented none.
    /// Possession of the leaf's key is proven, nothing else is.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// Base64 of the public part of the storage root key of its TPM, where the protocol says it before
    /// any request does.
    pub storage_root_key: Option<Arc<str>>,
}

impl Caller {
    /// The word for what it proves itself with, for metrics.
    fn proof(&self) -> &'static str {
        match (&self.storage_root_key, &self.token) {
            (Some(_), _) => "tpm",
            (None, Some(_)) => "token",
            (None, None) if self.certificates.is_empty() => "nothing",
            (None, None) => "certificate",
        }
    }
}

/// What it wants.
#[derive(Debug, Clone)]
pub enum Request {
    /// Register, or register again.
    Register { body: Bytes },
    /// Learn how an operation stands.
    Poll { operation_id: String },
    /// Learn what is registered.
    Lookup { body: Bytes },
}

impl Request {
    fn label(&self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::Poll { .. } => "poll",
            Self::Lookup { .. } => "lookup",
        }
    }
}

/// What it is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A `RegistrationOperationStatus`.
    Operation(Shown),
    /// A `DeviceRegistrationResult`.
    Registration(Value),
    /// A TPM has to open this envelope; the request is to be repeated with a token that the key in
    /// it signed. Status 401.
    Challenge(Value),
}

/// Tunables.
#[derive(Debug, Clone)]
pub struct Settings {
    pub windows: Windows,
    pub limits: RequestLimits,
    /// How clients are told apart, and which of them may fail as often as they like.
    pub networks: Arc<Networks>,
    /// How far devices' clocks may be behind.
    pub skew: Duration,
    /// How long a first answer may wait to say `assigned` at once.
    pub linger: Duration,
    /// How long a registration may wait for the deletion of the one before.
    pub deletion: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            windows: Windows::default(),
            limits: RequestLimits::default(),
            networks: Arc::default(),
            skew: crate::domain::attestation::DEFAULT_SKEW,
            linger: Duration::from_millis(200),
            // Well below the 10 s that the Java SDK waits.
            deletion: Duration::from_secs(5),
        }
    }
}

/// See the module text.
pub struct Service<R> {
    tenants: Arc<Tenants>,
    registrations: R,
    throttle: Throttle,
    answers: Answers,
    clock: Arc<dyn Clock>,
    random: fn() -> u128,
    settings: Settings,
    metrics: Arc<Metrics>,
}

impl<R: Registrations> Service<R> {
    /// A service over what `tenants` says, writing through `registrations`. `random` makes
    /// operation ids and need not be secret, only unique.
    pub fn new(
        tenants: Arc<Tenants>,
        registrations: R,
        clock: Arc<dyn Clock>,
        random: fn() -> u128,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            tenants,
            registrations,
            throttle: Throttle::new(settings.limits, settings.networks.clone(), clock.clone()),
            answers: Answers::new(settings.limits.tracked, settings.windows.refused),
            clock,
            random,
            settings,
            metrics,
        }
    }

    /// Serves one request.
    ///
    /// # Errors
    /// As the device is to be told.
    pub async fn serve(&self, caller: &Caller, request: Request) -> Result<Answer, Problem> {
        let (began, operation) = (self.clock.monotonic(), request.label());
        let answer = match request {
            Request::Register { body } => self.register(caller, &body).await,
            Request::Poll { operation_id } => self.poll(caller, &operation_id).await,
            Request::Lookup { body } => self.lookup(caller, &body).await,
        };
        self.note(caller.address, answer.as_ref().err());
        let outcome = outcome(&answer);
        let took = self.clock.monotonic().saturating_sub(began);
        self.metrics.request(
            caller.protocol.label(),
            operation,
            caller.proof(),
            outcome,
            took.as_secs_f64(),
        );
        answer
    }

    /// Whether the caller is who it says it is. Costs no call.
    ///
    /// # Errors
    /// As the device is to be told.
    pub fn check(&self, caller: &Caller) -> Result<(), Problem> {
        self.authenticate(caller).map(|_| ())
    }

    /// Counts what a client was refused for, if that is something that people should see.
    pub fn note(&self, address: IpAddr, problem: Option<&Problem>) {
        if let Some(incident) = problem.and_then(Problem::incident) {
            self.metrics.incidents().note(incident, address);
        }
    }

    /// What the clock says, for the front ends' timestamps.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// A fresh id under which a problem can be found in the log.
    pub fn tracking_id(&self) -> String {
        uuid::Uuid::from_u128((self.random)()).to_string()
    }

    /// What this process counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    async fn poll(&self, caller: &Caller, operation_id: &str) -> Result<Answer, Problem> {
        let attested = self.authenticate(caller)?;
        let span = span("poll", caller, &attested);
        let served = self.poll_as(caller, &attested, operation_id);
        served.instrument(span).await
    }

    async fn poll_as(
        &self,
        caller: &Caller,
        attested: &Attested,
        operation_id: &str,
    ) -> Result<Answer, Problem> {
        self.admit(caller, Kind::Poll)?;
        let operation: OperationId = operation_id
            .parse()
            .map_err(|_| Problem::UnknownOperation)?;
        Span::current().record("operation", display(&operation));
        let namespace = &attested.namespace;
        let known = |record: &Record| {
            if record.deleting {
                return None;
            }
            let group = self.group(namespace, record);
            let key = authentication_key(attested, record);
            let asker = asker(caller, group.as_ref(), key.as_deref());
            render::operation(record, operation.as_str(), &asker)
        };
        let cached = self.registrations.cached(namespace, &caller.id);
        if let Some(shown) = cached.as_deref().and_then(known) {
            return Ok(self.told(caller, namespace, shown));
        }
        // Only an id that a gateway may have given to this very device is worth a call.
        if !operation.may_belong_to(&caller.id) {
            return Err(Problem::UnknownOperation);
        }
        let record = self.read(namespace, &caller.id).await?;
        let shown = record
            .as_deref()
            .and_then(known)
            .ok_or(Problem::UnknownOperation)?;
        Ok(self.told(caller, namespace, shown))
    }

    async fn lookup(&self, caller: &Caller, body: &[u8]) -> Result<Answer, Problem> {
        let attested = self.authenticate(caller)?;
        let span = span("lookup", caller, &attested);
        let served = self.lookup_as(caller, &attested, body);
        served.instrument(span).await
    }

    async fn lookup_as(
        &self,
        caller: &Caller,
        attested: &Attested,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        self.admit(caller, Kind::Register)?;
        if Body::parse(body, &caller.id)?.has_csr {
            return Err(Problem::BadRequest(
                "a lookup takes no csr; register instead".to_owned(),
            ));
        }
        let namespace = &attested.namespace;
        let record = match self.registrations.cached(namespace, &caller.id) {
            Some(record) => Some(record),
            None => self.read(namespace, &caller.id).await?,
        };
        let record = record
            .filter(|record| !record.deleting)
            .ok_or(Problem::NotRegistered)?;
        let group = self.group(namespace, &record);
        render::registration(&record, &asker(caller, group.as_ref(), None))
            .map(Answer::Registration)
            .ok_or(Problem::NotRegistered)
    }

    async fn read(
        &self,
        namespace: &str,
        id: &RegistrationId,
    ) -> Result<Option<Arc<Record>>, Problem> {
        let read = self.registrations.read(namespace, id).await;
        self.count("get", read.as_ref().err());
        read.map_err(|error| trouble(&error))
    }

    fn admit(&self, caller: &Caller, kind: Kind) -> Result<(), Problem> {
        let device = device_key(&caller.scope, &caller.id);
        if self.throttle.admits(&device, kind, &caller.api_version) {
            return Ok(());
        }
        self.metrics
            .incidents()
            .note(Incident::TooManyRequests, caller.address);
        tracing::debug!("asks too often");
        Err(Problem::Throttled)
    }

    /// An answer on its way; remembers that the device was told its hub.
    fn told(&self, caller: &Caller, namespace: &str, shown: Shown) -> Answer {
        if shown.state == RegistrationState::Assigned {
            let device = format!("{namespace}/{}", caller.id.canonical());
            self.answers.told(&device, self.clock.now());
        }
        Answer::Operation(shown)
    }

    /// The group that a record came through.
    fn group(&self, namespace: &str, record: &Record) -> Option<Group> {
        let enrollment = &record.request.as_ref()?.enrollment;
        self.tenants.group(namespace, &enrollment.uid)
    }

    fn count(&self, verb: &'static str, error: Option<&StoreError>) {
        self.metrics.api_call(
            verb,
            match error {
                None => "ok",
                Some(StoreError::Conflict) => "conflict",
                Some(StoreError::Unavailable(_) | StoreError::Silent(_)) => "unavailable",
                Some(StoreError::Refused(_)) => "refused",
            },
        );
    }
}

/// The word in metrics and traces.
fn outcome(answer: &Result<Answer, Problem>) -> &'static str {
    match answer {
        Ok(Answer::Operation(shown)) if !shown.is_final() => "assigning",
        Ok(Answer::Operation(_) | Answer::Registration(_)) => "answered",
        Ok(Answer::Challenge(_)) => "challenged",
        Err(problem) => problem.label(),
    }
}

/// What log lines about the request carry. Of a device that has proved who it is, so that nobody
/// else's words get into the log; at the highest level, so that it is there whatever is logged.
fn span(request: &'static str, caller: &Caller, attested: &Attested) -> Span {
    tracing::error_span!(
        "request",
        request,
        registration = %caller.id,
        namespace = attested.namespace,
        protocol = caller.protocol.label(),
        operation = Empty,
        outcome = Empty,
        otel.kind = Empty,
        otel.status_code = Empty,
    )
}

/// What a device is told when the API server does not serve us; the log says more.
fn trouble(error: &StoreError) -> Problem {
    let cause = error.cause();
    match error {
        StoreError::Conflict => Problem::Unavailable,
        StoreError::Unavailable(_) | StoreError::Silent(_) => {
            tracing::warn!(cause, "the API server does not answer");
            Problem::Unavailable
        }
        StoreError::Refused(_) => {
            tracing::error!(cause, "the API server refuses a registration");
            Problem::Internal
        }
    }
}

fn asker<'a>(
    caller: &'a Caller,
    group: Option<&'a Group>,
    authentication_key: Option<&'a str>,
) -> Asker<'a> {
    Asker {
        id: &caller.id,
        api_version: &caller.api_version,
        group,
        authentication_key,
    }
}

fn device_key(scope: &IdScope, id: &RegistrationId) -> String {
    format!("{}/{}", scope.canonical(), id.canonical())
}
