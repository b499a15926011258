//! Register: decide, write at most once, and answer.

use std::sync::Arc;

use tracing::field::display;
use tracing::{Instrument as _, Span};

use super::attest::Attested;
use super::tpm::{authentication_key, storage_root_key};
use super::{Answer, Caller, Service, asker, outcome, span, trouble};
use crate::api::v1alpha1::EnrollmentRef;
use crate::domain::ids::OperationId;
use crate::domain::policy::Rule;
use crate::gateway::body::Body;
use crate::gateway::decide::{Asked, Decision, Moment, decide};
use crate::gateway::error::Problem;
use crate::gateway::limits::Kind;
use crate::gateway::record::Record;
use crate::gateway::registrations::{Registrations, StoreError};
use crate::gateway::render;
use crate::telemetry;

/// How often a write may meet another before the device is asked to come again.
const ATTEMPTS: usize = 4;

impl<R: Registrations> Service<R> {
    pub(super) async fn register(&self, caller: &Caller, body: &[u8]) -> Result<Answer, Problem> {
        if let Some(challenge) = self.challenge(caller, body)? {
            return Ok(challenge);
        }
        let attested = self.authenticate(caller)?;
        let span = span("register", caller, &attested);
        // Now that it is known who asks: a stranger has no trace to fill.
        let traceparent = telemetry::begin(&span);
        let served = self.register_as(caller, &attested, body, traceparent);
        let answer = served.instrument(span.clone()).await;
        span.record("outcome", outcome(&answer));
        if matches!(answer, Err(Problem::Internal | Problem::Unavailable)) {
            span.record("otel.status_code", "ERROR");
        }
        answer
    }

    async fn register_as(
        &self,
        caller: &Caller,
        attested: &Attested,
        body: &[u8],
        traceparent: Option<String>,
    ) -> Result<Answer, Problem> {
        self.admit(caller, Kind::Register)?;
        let body = Body::parse(body, &caller.id)?;
        let mut asked = self.asked(caller, attested, body)?;
        asked.traceparent = traceparent;
        let namespace = &attested.namespace;
        let operation = OperationId::new(&caller.id, (self.random)());
        let device = format!("{namespace}/{}", caller.id.canonical());
        let mut record = self.registrations.cached(namespace, &caller.id);
        for _ in 0..ATTEMPTS {
            let moment = Moment {
                now: self.clock.now(),
                last_answer: self.answers.last(&device),
            };
            let windows = &self.settings.windows;
            let written = match decide(&asked, record.as_deref(), moment, windows, &operation) {
                Decision::Answer => {
                    let record = record.ok_or(Problem::Internal)?;
                    if let Some(request) = &record.request {
                        Span::current().record("operation", &*request.operation_id);
                    }
                    return Ok(self.answer(caller, attested, &record));
                }
                Decision::AwaitDeletion => {
                    record = self.gone(namespace, caller).await?;
                    continue;
                }
                Decision::Create(request) => {
                    self.check_quota(attested)?;
                    let created = self
                        .registrations
                        .create(namespace, &caller.id, request)
                        .await;
                    self.count("create", created.as_ref().err());
                    created
                }
                Decision::Update(request) => {
                    let seen = record.as_ref().ok_or(Problem::Internal)?;
                    let updated = self.registrations.update(namespace, seen, request).await;
                    self.count("patch", updated.as_ref().err());
                    updated
                }
            };
            if matches!(written, Err(StoreError::Conflict)) {
                record = self.read(namespace, &caller.id).await?;
                continue;
            }
            Span::current().record("operation", display(&operation));
            let written = written.map_err(|error| trouble(&error))?;
            tracing::info!("accepted");
            return Ok(self.linger(caller, attested, written, &operation).await);
        }
        Err(Problem::Unavailable)
    }

    fn asked(&self, caller: &Caller, attested: &Attested, body: Body) -> Result<Asked, Problem> {
        let Attested {
            namespace,
            enrolled,
            credential,
        } = attested;
        let sticky = caller.api_version.is_sticky();
        Ok(Asked {
            id: caller.id.clone(),
            api_version: caller.api_version.clone(),
            enrollment: EnrollmentRef {
                name: enrolled.name.clone(),
                uid: enrolled.uid.clone(),
            },
            disabled: enrolled.spec.is_disabled(),
            rule: Rule::new(enrolled.spec.reprovision_policy, sticky),
            pool: self.tenants.pool(namespace, enrolled),
            credential: credential.fingerprint(&caller.id),
            storage_root_key: storage_root_key(caller, attested, body.tpm.as_ref())?,
            payload_digest: body.payload_digest,
            traceparent: None,
        })
    }

    fn check_quota(&self, attested: &Attested) -> Result<(), Problem> {
        let most = attested.enrolled.spec.max_registrations;
        if most.is_some_and(|most| self.registrations.count(&attested.enrolled.uid) >= most) {
            return Err(Problem::QuotaExceeded);
        }
        Ok(())
    }

    /// The registration after the one before it is gone.
    async fn gone(&self, namespace: &str, caller: &Caller) -> Result<Option<Arc<Record>>, Problem> {
        let is_gone = |record: Option<&Record>| record.is_none_or(|record| !record.deleting);
        let at_most = self.settings.deletion;
        let record = self
            .registrations
            .until(namespace, &caller.id, at_most, is_gone)
            .await;
        if is_gone(record.as_deref()) {
            Ok(record)
        } else {
            Err(Problem::Unavailable)
        }
    }

    /// Waits a moment for the operation that just began: most are over before the device would ask.
    async fn linger(
        &self,
        caller: &Caller,
        attested: &Attested,
        written: Arc<Record>,
        operation: &OperationId,
    ) -> Answer {
        if must_poll(caller) {
            return self.answer(caller, attested, &written);
        }
        let is_over = |record: Option<&Record>| {
            let ours = |record: &&Record| {
                let request = record.request.as_ref();
                request.is_some_and(|request| request.operation_id == operation.as_str())
            };
            record.filter(ours).is_none_or(Record::is_settled)
        };
        let at_most = self.settings.linger;
        let seen = self
            .registrations
            .until(&attested.namespace, &caller.id, at_most, is_over)
            .await;
        let ours = seen.filter(|record| {
            let request = record.request.as_ref();
            request.is_some_and(|request| request.operation_id == operation.as_str())
        });
        self.answer(caller, attested, &ours.unwrap_or(written))
    }

    /// Answers with the record's last operation.
    fn answer(&self, caller: &Caller, attested: &Attested, record: &Record) -> Answer {
        let namespace = &attested.namespace;
        let operation = record
            .request
            .as_ref()
            .map_or("", |request| request.operation_id.as_str());
        let group = self.group(namespace, record);
        let key = authentication_key(attested, record);
        let asker = asker(caller, group.as_ref(), key.as_deref());
        let shown = if must_poll(caller) {
            None
        } else {
            render::operation(record, operation, &asker)
        };
        self.told(
            caller,
            namespace,
            shown.unwrap_or_else(|| render::assigning(record, operation, &asker)),
        )
    }
}

/// Clients of the oldest api-versions are only known to work when their first answer is
/// `assigning`.
fn must_poll(caller: &Caller) -> bool {
    caller.api_version.is_sticky()
}
