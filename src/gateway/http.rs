//! The registration API over HTTPS.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /{scope}/registrations/{id}/register` | 202, also when assigned at once: SDKs take nothing else |
//! | `GET /{scope}/registrations/{id}/operations/{operation}` | 202 while it runs, then 200 |
//! | `POST /{scope}/registrations/{id}` | 200 |
//!
//! A GET that asks for a WebSocket becomes MQTT or AMQP, on any of the paths that SDKs use.
//! Every answer is JSON, errors and wrong paths included, and nothing redirects.

mod connection;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, RawQuery, Request as HttpRequest, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::time::timeout;

pub use self::connection::{ConnectionLimits, Socket, serve};
use super::body::LARGEST;
use super::error::{Problem, RETRY_AFTER as RETRY_AFTER_SECONDS};
use super::registrations::Registrations;
use super::service::{Answer, Caller, Protocol, Request, Service};
use crate::wire::incidents::Incident;
use crate::wire::tls::Peer;
use crate::wire::websocket::{self, Handover, Subprotocol};

/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(20);
/// What may be spoken over WebSocket.
const SPOKEN: &[Subprotocol] = &[Subprotocol::Mqtt, Subprotocol::Amqp];
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// The routes; each request carries its [`Peer`] and its connection's [`Handover`] as extensions.
pub fn router<R: Registrations>(service: Arc<Service<R>>) -> Router {
    let sockets = websocket::PATHS.iter();
    sockets
        .fold(Router::new(), |router, path| {
            router.route(path, any(upgrade::<R>))
        })
        .route("/{scope}/registrations/{id}/register", put(register::<R>))
        .route(
            "/{scope}/registrations/{id}/operations/{operation}",
            get(poll::<R>),
        )
        .route("/{scope}/registrations/{id}", post(lookup::<R>))
        .fallback(unknown_path::<R>)
        .method_not_allowed_fallback(method_not_allowed::<R>)
        .with_state(service)
}

async fn register<R: Registrations>(
    State(service): State<Arc<Service<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let served = async {
        let body = read(&service, &peer, body).await?;
        let caller = caller(&service, &peer, &scope, &id, query.as_deref(), &headers)?;
        let request = Request::Register { body };
        service.serve(&caller, request).await
    };
    match served.await {
        // How a TPM's first request always ends.
        Ok(answer @ Answer::Challenge(_)) => show(&service, StatusCode::UNAUTHORIZED, answer, None),
        // 202 whatever the state, R1.
        Ok(answer) => show(
            &service,
            StatusCode::ACCEPTED,
            answer,
            location(&headers, &uri),
        ),
        Err(problem) => refuse(&service, &problem),
    }
}

async fn poll<R: Registrations>(
    State(service): State<Arc<Service<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id, operation_id)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let served = async {
        // Some SDKs send a body; it means nothing.
        read(&service, &peer, body).await?;
        let caller = caller(&service, &peer, &scope, &id, query.as_deref(), &headers)?;
        service.serve(&caller, Request::Poll { operation_id }).await
    };
    match served.await {
        Ok(answer) => {
            let over = !matches!(&answer, Answer::Operation(shown) if !shown.is_final());
            let status = if over {
                StatusCode::OK
            } else {
                StatusCode::ACCEPTED
            };
            show(&service, status, answer, location(&headers, &uri))
        }
        Err(problem) => refuse(&service, &problem),
    }
}

async fn lookup<R: Registrations>(
    State(service): State<Arc<Service<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((scope, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let served = async {
        let body = read(&service, &peer, body).await?;
        let caller = caller(&service, &peer, &scope, &id, query.as_deref(), &headers)?;
        let request = Request::Lookup { body };
        service.serve(&caller, request).await
    };
    match served.await {
        Ok(answer) => show(&service, StatusCode::OK, answer, None),
        Err(problem) => refuse(&service, &problem),
    }
}

async fn upgrade<R: Registrations>(
    State(service): State<Arc<Service<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(handover): Extension<Handover>,
    mut request: HttpRequest,
) -> Response {
    if !websocket::is_wanted(request.headers()) {
        return unknown_path(State(service), Extension(peer), request.into_body()).await;
    }
    match handover.accept(&mut request, SPOKEN) {
        Ok(response) => response.map(|()| Body::empty()),
        Err(error) => refuse(&service, &Problem::BadRequest(error.to_string())),
    }
}

async fn unknown_path<R: Registrations>(
    State(service): State<Arc<Service<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    body: Body,
) -> Response {
    let problem = read(&service, &peer, body)
        .await
        .err()
        .unwrap_or(Problem::UnknownPath);
    refuse(&service, &problem)
}

async fn method_not_allowed<R: Registrations>(
    State(service): State<Arc<Service<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    body: Body,
) -> Response {
    let problem = read(&service, &peer, body)
        .await
        .err()
        .unwrap_or(Problem::MethodNotAllowed);
    refuse(&service, &problem)
}

fn caller<R: Registrations>(
    service: &Service<R>,
    peer: &Peer,
    scope: &str,
    id: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let caller = read_caller(peer, scope, id, query, headers);
    service.note(peer.address.ip(), caller.as_ref().err());
    caller
}

fn read_caller(
    peer: &Peer,
    scope: &str,
    id: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let api_version = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("api-version"))
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
        .ok_or_else(|| Problem::BadRequest("the query parameter api-version is missing".into()))?;
    let token = headers.get(AUTHORIZATION).map(|value| {
        let text = value.to_str().map_err(|_| {
            Problem::Unauthorized("the Authorization header holds characters that no token has")
        })?;
        Ok(Arc::from(text))
    });
    Ok(Caller {
        protocol: Protocol::Https,
        address: peer.address.ip(),
        scope: parsed(scope)?,
        id: parsed(id)?,
        api_version: parsed(&api_version)?,
        token: token.transpose()?,
        certificates: peer.certificates.clone(),
        storage_root_key: None,
    })
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: T::Err| Problem::BadRequest(error.to_string()))
}

/// The whole body. Read before anything is answered: an unread rest would cost the connection, and
/// the C SDK opens no second one.
async fn read<R: Registrations>(
    service: &Service<R>,
    peer: &Peer,
    body: Body,
) -> Result<Bytes, Problem> {
    let (incident, problem) = match timeout(BODY_WITHIN, to_bytes(body, LARGEST)).await {
        Ok(Ok(bytes)) => return Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => (Incident::Malformed, Problem::TooLarge(LARGEST)),
        Ok(Err(_)) => return Err(Problem::BadRequest("the body was cut short".into())),
        Err(_) => {
            let problem = Problem::BadRequest("the body did not arrive in time".into());
            (Incident::SlowRequest, problem)
        }
    };
    service
        .metrics()
        .incidents()
        .note(incident, peer.address.ip());
    Err(problem)
}

fn is_too_large(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// Where the answer can be asked for again, as the service says it; only with a host to name.
fn location(headers: &HeaderMap, uri: &Uri) -> Option<HeaderValue> {
    let host = headers.get(HOST)?.to_str().ok()?;
    HeaderValue::from_str(&format!("https://{host}{}", uri.path())).ok()
}

fn show<R: Registrations>(
    service: &Service<R>,
    status: StatusCode,
    answer: Answer,
    location: Option<HeaderValue>,
) -> Response {
    let (body, running) = match answer {
        Answer::Operation(shown) => {
            let running = !shown.is_final();
            (shown.body, running)
        }
        Answer::Registration(body) | Answer::Challenge(body) => (body, false),
    };
    let mut response = json(status, &body);
    let headers = response.headers_mut();
    if let Some(location) = location {
        headers.insert(LOCATION, location);
    }
    if running {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
    }
    if let Ok(id) = HeaderValue::from_str(&service.tracking_id()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

fn refuse<R: Registrations>(service: &Service<R>, problem: &Problem) -> Response {
    let tracking_id = service.tracking_id();
    tracing::debug!(
        tracking_id,
        problem = problem.label(),
        protocol = "https",
        "refused: {problem}"
    );
    let body = problem.body(&tracking_id, service.clock().now());
    let mut response = json(problem.status(), &body);
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, problem.code().into());
    if let Some(seconds) = problem.retry_after() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Ok(id) = HeaderValue::from_str(&tracking_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

fn json(status: StatusCode, body: &Value) -> Response {
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    (status, [(CONTENT_TYPE, json)], body.to_string()).into_response()
}
