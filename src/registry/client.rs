//! One hub's service API as typed calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span};

use super::ask::Ask;
use super::body::{self, BulkAnswer, ListedModule, QueriedTwin, Statistics};
use super::credentials::Tokens;
use super::pacing::{OpClass, Pacer};
use super::transport::{Transport, TransportError};
use super::{
    Call, CallObserver, Cause, ConnectionString, Created, Deleted, HubError, HubFacts,
    MarkedIdentity, Rates,
};
use crate::clock::Clock;
use crate::domain::identity::{Identity, IdentityChange, NewIdentity};
use crate::domain::module::{Module, NewModule};
use crate::domain::twin::Twin;

const API_VERSION: &str = "2021-04-12";
/// Our hub lists here what it guarantees beyond Azure's API.
const GUARANTEES: HeaderName = HeaderName::from_static("rehome-hub");
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const PAGE_SIZE: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// A device id that no device has: the operator's questions about its own rights name it.
const NOBODY: &str = "rehome-rights-check";
/// What may lie between giving up on a call and the last moment at which it can still act.
const MARGIN: Duration = Duration::from_secs(5);

/// Speaks to one hub. Cheap to clone.
#[derive(Clone)]
pub struct HubClient {
    inner: Arc<Inner>,
}

/// What a client needs to know of its hub.
pub struct HubSettings {
    /// Host name that devices are told, for messages.
    pub host_name: String,
    /// `https://HOST[:PORT]` of the service API.
    pub endpoint: String,
    /// Service credentials.
    pub credentials: ConnectionString,
    /// The throttle to stay below.
    pub rates: Option<Rates>,
    /// Longest that one call may take, waiting for its turn included.
    pub call_timeout: Duration,
    /// Guarantees known from an earlier probe.
    pub guarantees: Vec<String>,
    /// Who is told of its calls.
    pub observer: Arc<dyn CallObserver>,
}

struct Inner {
    host_name: String,
    endpoint: String,
    tokens: Tokens,
    pacer: Pacer,
    call_timeout: Duration,
    guarantees: ArcSwap<Vec<String>>,
    observer: Arc<dyn CallObserver>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
}

impl HubClient {
    /// A client for the hub behind `transport`.
    pub fn new(
        settings: HubSettings,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let HubSettings {
            host_name,
            endpoint,
            credentials,
            rates,
            call_timeout,
            guarantees,
            observer,
        } = settings;
        Self {
            inner: Arc::new(Inner {
                host_name,
                endpoint: endpoint.trim_end_matches('/').to_owned(),
                tokens: Tokens::new(credentials),
                pacer: Pacer::new(rates),
                call_timeout,
                guarantees: ArcSwap::from_pointee(guarantees),
                observer,
                transport,
                clock,
            }),
        }
    }

    /// Host name that devices are told.
    pub fn host_name(&self) -> &str {
        &self.inner.host_name
    }

    /// Longest that a call can take to act (D in the design): after this much time without a call
    /// a read of the hub shows everything that earlier calls did.
    pub fn settling_time(&self) -> Duration {
        self.inner.call_timeout + MARGIN
    }

    /// Whether the hub guarantees that, as far as its answers have told.
    pub fn guarantees(&self, what: &str) -> bool {
        self.inner
            .guarantees
            .load()
            .iter()
            .any(|known| known == what)
    }

    /// The identity, or `None` when the hub has none of that id.
    pub async fn read(&self, device_id: &str) -> Result<Option<Identity>, HubError> {
        let ask = Ask::new(Call::Read, OpClass::Registry, Method::GET).about("devices", device_id);
        let Some(answer) = absent_is_none(self.send(&ask).await)? else {
            return Ok(None);
        };
        self.identity(&ask, &answer).map(Some)
    }

    /// The twin, or `None` when the hub has no device of that id.
    pub async fn read_twin(&self, device_id: &str) -> Result<Option<Twin>, HubError> {
        let ask =
            Ask::new(Call::ReadTwin, OpClass::TwinRead, Method::GET).about("twins", device_id);
        let Some(answer) = absent_is_none(self.send(&ask).await)? else {
            return Ok(None);
        };
        self.twin(&ask, &answer).map(Some)
    }

    /// Ids of the device's modules; none where the hub has no such device, or knows no modules.
    pub async fn modules(&self, device_id: &str) -> Result<Vec<String>, HubError> {
        let ask = Ask::new(Call::ListModules, OpClass::Registry, Method::GET)
            .about("devices", device_id)
            .within("modules");
        let answer = match absent_is_none(self.send(&ask).await) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(Vec::new()),
            // A hub of the basic tier has no modules.
            Err(error) if matches!(error.cause, Cause::Refused { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let listed: Vec<ListedModule> = self.parse(&ask, answer.body())?;
        Ok(listed.into_iter().map(|module| module.module_id).collect())
    }

    /// A module with its twin, or `None` when the device has none of that id. A hub that shows no
    /// identities of modules while the device is disabled shows the twin alone.
    pub async fn read_module(
        &self,
        device_id: &str,
        module: &str,
    ) -> Result<Option<Module>, HubError> {
        let about = |class, collection| {
            Ask::new(Call::ReadModule, class, Method::GET)
                .about(collection, device_id)
                .within("modules")
                .within(module)
        };
        let ask = about(OpClass::Registry, "devices");
        let identity: Option<Map<String, Value>> = match absent_is_none(self.send(&ask).await) {
            Ok(Some(answer)) => Some(self.parse(&ask, answer.body())?),
            Ok(None) => return Ok(None),
            Err(error) if matches!(error.cause, Cause::Unauthorized(_)) => None,
            Err(error) => return Err(error),
        };
        let ask = about(OpClass::TwinRead, "twins");
        let Some(answer) = absent_is_none(self.send(&ask).await)? else {
            return Ok(None);
        };
        let twin = self.twin(&ask, &answer)?;
        Ok(Some(Module::new(module, identity.as_ref(), twin)))
    }

    /// Creates a module and its twin in one call (bulk registry, one module).
    pub async fn create_module(&self, new: &NewModule) -> Result<Created, HubError> {
        let entry = body::create_module_entry(new, self.guarantees("versions"));
        self.bulk(Call::CreateModule, &new.device_id, &entry).await
    }

    /// Creates identity and twin in one call (bulk registry, one device).
    pub async fn create(&self, new: &NewIdentity) -> Result<Created, HubError> {
        let entry = body::create_entry(new, self.guarantees("versions"));
        self.bulk(Call::Create, &new.device_id, &entry).await
    }

    async fn bulk(&self, call: Call, device_id: &str, entry: &Value) -> Result<Created, HubError> {
        let ask = Ask {
            path: "/devices".into(),
            device: Some(device_id),
            ..Ask::new(call, OpClass::Registry, Method::POST)
        }
        .with_json(&json!([entry]));
        let response = self.exchange(&ask).await?;
        let bulk_failed = response.status() == StatusCode::BAD_REQUEST
            && response
                .headers()
                .get("iothub-errorcode")
                .is_some_and(|code| code == "BulkRegistryOperationFailure");
        if !response.status().is_success() && !bulk_failed {
            return Err(self.refused(&ask, &response));
        }
        self.created(&ask, &response, device_id)
    }

    /// Changes an identity that is still the version that was read.
    pub async fn update(
        &self,
        identity: &Identity,
        change: &IdentityChange,
    ) -> Result<Identity, HubError> {
        let ask = Ask::new(Call::Update, OpClass::Registry, Method::PUT)
            .about("devices", &identity.device_id)
            .if_match(&identity.etag);
        let Some(body) = body::update_body(identity, change) else {
            let why = "the hub does not show the device's keys, and an update without them would \
                       replace them";
            return Err(self.failed(&ask, Cause::Unauthorized(why.into())));
        };
        let ask = ask.with_json(&body);
        let answer = self.send(&ask).await?;
        self.identity(&ask, &answer)
    }

    /// Deletes the identity, with its twin, if it is still the version of that etag.
    pub async fn delete(&self, device_id: &str, etag: &str) -> Result<Deleted, HubError> {
        let ask = Ask::new(Call::Delete, OpClass::Registry, Method::DELETE)
            .about("devices", device_id)
            .if_match(etag);
        Ok(match absent_is_none(self.send(&ask).await)? {
            Some(_) => Deleted::Gone,
            None => Deleted::WasAbsent,
        })
    }

    /// Replaces tags and desired properties if the twin is still the version of that etag.
    pub async fn replace_twin(
        &self,
        device_id: &str,
        etag: &str,
        tags: &Map<String, Value>,
        desired: &Map<String, Value>,
    ) -> Result<Twin, HubError> {
        let body = json!({ "tags": tags, "properties": { "desired": desired } });
        let ask = Ask::new(Call::ReplaceTwin, OpClass::TwinWrite, Method::PUT);
        self.write_twin(ask, device_id, etag, &body).await
    }

    /// Merges into tags and desired properties (null deletes) if the twin is still the version of
    /// that etag.
    pub async fn patch_twin(
        &self,
        device_id: &str,
        etag: &str,
        tags: &Map<String, Value>,
        desired: &Map<String, Value>,
    ) -> Result<Twin, HubError> {
        let body = json!({ "tags": tags, "properties": { "desired": desired } });
        let ask = Ask::new(Call::PatchTwin, OpClass::TwinWrite, Method::PATCH);
        self.write_twin(ask, device_id, etag, &body).await
    }

    /// Asks the hub what it is; learns its guarantees for later calls.
    pub async fn probe(&self) -> Result<HubFacts, HubError> {
        let ask = Ask {
            path: "/statistics/devices".into(),
            ..Ask::new(Call::Probe, OpClass::Registry, Method::GET)
        };
        let answer = self.send(&ask).await?;
        let statistics: Statistics = self.parse(&ask, answer.body())?;
        let guarantees = guarantees(answer.headers()).unwrap_or_default();
        self.inner.guarantees.store(Arc::new(guarantees.clone()));
        Ok(HubFacts {
            guarantees,
            device_count: statistics.total_device_count,
            max_device_count: statistics.max_device_count,
            is_store_full: statistics.is_store_full,
        })
    }

    /// Finds out whether the credentials may write identities and use twins, without changing
    /// anything: both calls name a device and a version that do not exist.
    pub async fn check_rights(&self) -> Result<(), HubError> {
        let twin =
            Ask::new(Call::CheckRights, OpClass::TwinRead, Method::GET).about("twins", NOBODY);
        absent_is_none(self.send(&twin).await)?;
        let write = Ask::new(Call::CheckRights, OpClass::Registry, Method::DELETE)
            .about("devices", NOBODY)
            .if_match("rehome");
        match absent_is_none(self.send(&write).await) {
            Ok(_) => Ok(()),
            Err(error) if error.cause == Cause::PreconditionFailed => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One page of disabled identities that carry a mark of ours, and how to ask for the next.
    pub async fn marked(
        &self,
        continuation: Option<&str>,
    ) -> Result<(Vec<MarkedIdentity>, Option<String>), HubError> {
        let query = json!({ "query": "SELECT * FROM devices WHERE status = 'disabled'" });
        let mut ask = Ask {
            path: "/devices/query".into(),
            ..Ask::new(Call::Query, OpClass::Query, Method::POST)
        }
        .with_json(&query);
        ask.headers
            .insert(PAGE_SIZE, HeaderValue::from_static("100"));
        if let Some(value) = continuation.and_then(|text| HeaderValue::from_str(text).ok()) {
            ask.headers.insert(CONTINUATION, value);
        }
        let answer = self.send(&ask).await?;
        let twins: Vec<QueriedTwin> = self.parse(&ask, answer.body())?;
        let marked = twins
            .into_iter()
            .filter_map(|twin| {
                let mark = twin.mark()?;
                Some(MarkedIdentity {
                    device_id: twin.device_id,
                    mark,
                })
            })
            .collect();
        let next = answer.headers().get(CONTINUATION);
        let next = next
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Ok((marked, next.filter(|text| !text.is_empty())))
    }

    async fn write_twin(
        &self,
        ask: Ask<'_>,
        device_id: &str,
        etag: &str,
        body: &Value,
    ) -> Result<Twin, HubError> {
        let ask = ask.with_json(body);
        let ask = ask.about("twins", device_id).if_match(etag);
        let answer = self.send(&ask).await.map_err(|mut error| {
            if matches!(error.cause, Cause::Refused { status: 409, .. }) {
                error.cause = Cause::Fenced;
            }
            error
        })?;
        self.twin(&ask, &answer)
    }

    /// Sends, and turns every answer but a success into an error.
    async fn send(&self, ask: &Ask<'_>) -> Result<Response<Bytes>, HubError> {
        let response = self.exchange(ask).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refused(ask, &response))
        }
    }

    /// Sends within the call's time, waiting for a turn included, so that a call cannot act later
    /// than [`Self::settling_time`] after it was made.
    async fn exchange(&self, ask: &Ask<'_>) -> Result<Response<Bytes>, HubError> {
        let inner = &*self.inner;
        let began = inner.clock.monotonic();
        let span = tracing::info_span!(
            "hub_call",
            hub = inner.host_name,
            call = ?ask.call,
            device = ask.device,
            status = Empty,
            outcome = Empty,
            otel.kind = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        let answer = self.exchange_in_time(ask).instrument(span.clone()).await;
        let outcome = match &answer {
            Ok(response) if response.status().is_success() => "ok",
            Ok(response) => Cause::of_response(response).class(),
            Err(error) => error.cause.class(),
        };
        // For a trace alone, so late that it stands in no log line.
        span.record("otel.kind", "client")
            .record("outcome", outcome);
        if let Err(error) = &answer {
            span.record("otel.status_code", "ERROR")
                .record("otel.status_description", display(error));
        }
        let took = inner.clock.monotonic().saturating_sub(began);
        inner.observer.called(ask.call, outcome, took);
        answer
    }

    async fn exchange_in_time(&self, ask: &Ask<'_>) -> Result<Response<Bytes>, HubError> {
        let inner = &*self.inner;
        let deadline = Instant::now() + inner.call_timeout;
        let patience = inner.call_timeout / 4;
        if let Err(retry_after) = inner.pacer.acquire(ask.class, patience).await {
            return Err(self.failed(ask, Cause::Throttled { retry_after }));
        }
        let request = self.request(ask)?;
        let sent = timeout_at(deadline, inner.transport.send(request)).await;
        let response =
            sent.unwrap_or(Err(TransportError::Timeout))
                .map_err(|error| match error {
                    TransportError::Unreachable(why) => self.failed(ask, Cause::Unreachable(why)),
                    TransportError::Timeout | TransportError::Broken(_) => {
                        self.failed(ask, Cause::FateUnknown(error.to_string()))
                    }
                })?;
        let status = response.status().as_u16();
        Span::current().record("status", status);
        tracing::debug!(status, "called the hub");
        Ok(response)
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Bytes>, HubError> {
        let inner = &*self.inner;
        let token = inner.tokens.at(inner.clock.now());
        let uri = format!("{}{}?api-version={API_VERSION}", inner.endpoint, ask.path);
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(uri)
            .header(header::AUTHORIZATION, token)
            .header(header::ACCEPT, "application/json")
            .body(ask.body.clone())
            .map_err(|error| self.failed(ask, Cause::Unreachable(error.to_string())))?;
        request.headers_mut().extend(ask.headers.clone());
        Ok(request)
    }

    fn created(
        &self,
        ask: &Ask<'_>,
        response: &Response<Bytes>,
        device_id: &str,
    ) -> Result<Created, HubError> {
        let answer: BulkAnswer = self.parse(ask, response.body())?;
        if let Some(error) = answer.errors.first() {
            if error.is_already_exists() {
                return Ok(Created::AlreadyExists);
            }
            let cause = Cause::of_bulk(&error.code(), &error.error_status);
            return Err(self.slow_down(ask, cause));
        }
        let without_twin = answer
            .warnings
            .iter()
            .any(|warning| warning.warning_code == "DeviceRegisteredWithoutTwin");
        if without_twin {
            return Ok(Created::WithoutTwin);
        }
        if !answer.is_successful {
            let why = "the hub reports a failure and does not name it";
            return Err(self.failed(ask, Cause::FateUnknown(why.into())));
        }
        let stamped = answer
            .devices
            .into_iter()
            .find(|device| device.device_id == device_id);
        Ok(match stamped {
            Some(device) => Created::New {
                generation_id: device.generation_id,
                etag: device.etag.trim_matches('"').to_owned(),
            },
            None => Created::NewUnstamped,
        })
    }

    fn identity(&self, ask: &Ask<'_>, answer: &Response<Bytes>) -> Result<Identity, HubError> {
        let mut body: Map<String, Value> = self.parse(ask, answer.body())?;
        // Azure's SDKs trust the header over the body.
        let etag = answer.headers().get(header::ETAG);
        if let Some(etag) = etag.and_then(|etag| etag.to_str().ok()) {
            body.insert("etag".into(), etag.trim_matches('"').into());
        }
        Identity::from_json(body)
            .map_err(|error| self.failed(ask, Cause::FateUnknown(error.to_string())))
    }

    fn twin(&self, ask: &Ask<'_>, answer: &Response<Bytes>) -> Result<Twin, HubError> {
        let body: Map<String, Value> = self.parse(ask, answer.body())?;
        Twin::from_json(&body)
            .map_err(|error| self.failed(ask, Cause::FateUnknown(error.to_string())))
    }

    /// An answer that cannot be read leaves open what happened.
    fn parse<T: DeserializeOwned>(&self, ask: &Ask<'_>, body: &Bytes) -> Result<T, HubError> {
        serde_json::from_slice(body).map_err(|error| {
            // The parser's text may quote the answer, which may hold keys.
            let why = format!(
                "the answer is not what the API promises, at column {}",
                error.column()
            );
            self.failed(ask, Cause::FateUnknown(why))
        })
    }

    fn refused(&self, ask: &Ask<'_>, response: &Response<Bytes>) -> HubError {
        self.slow_down(ask, Cause::of_response(response))
    }

    /// The error, after taking it to heart when it is the hub's wish to slow down.
    fn slow_down(&self, ask: &Ask<'_>, cause: Cause) -> HubError {
        if let Cause::Throttled { retry_after } = cause {
            self.inner.pacer.throttled(ask.class, retry_after);
        }
        self.failed(ask, cause)
    }

    fn failed(&self, ask: &Ask<'_>, cause: Cause) -> HubError {
        HubError {
            hub: self.inner.host_name.clone(),
            call: ask.call,
            device: ask.device.map(str::to_owned),
            cause,
        }
    }
}

impl fmt::Debug for HubClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubClient")
            .field("host_name", &self.inner.host_name)
            .finish_non_exhaustive()
    }
}

fn absent_is_none(
    result: Result<Response<Bytes>, HubError>,
) -> Result<Option<Response<Bytes>>, HubError> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.cause == Cause::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `rehome-hub: fence, versions` → the names; `None` when the hub is not ours.
fn guarantees(headers: &HeaderMap) -> Option<Vec<String>> {
    let value = headers.get(GUARANTEES)?.to_str().ok()?;
    let names = value.split([',', ' ']).filter(|name| !name.is_empty());
    Some(names.map(str::to_owned).collect())
}
