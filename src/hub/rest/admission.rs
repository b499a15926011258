//! What happens to every request: it is authenticated, must name an api-version, is given a time
//! limit, and its reply carries a request id, the hub's extensions, and errors in one form.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::{EXTENSIONS, Permission, reply};
use crate::domain::ids::DeviceId;
use crate::domain::sas::SasToken;
use crate::hub::Hub;
use crate::hub::client::Client;
use crate::hub::device::{ClientCertificates, Proof};
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::scope;

/// Longest time that a request may take, its body included. Short, because clients reckon with a
/// bound on how long after their own time limit a call can still act.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// A query writes nothing and may look at many devices.
const QUERY_TIME_LIMIT: Duration = Duration::from_mins(1);
/// A method call may wait for its device to connect, and then for the answer, 5 minutes each.
const METHOD_TIME_LIMIT: Duration = Duration::from_mins(11);

/// Who sent a request: the permissions of the policy that signed for it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    policy: String,
    permissions: HashSet<Permission>,
}

impl Caller {
    pub(super) fn may(&self, permission: Permission) -> Result<(), Refusal> {
        if self.permissions.contains(&permission) {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::IotHubUnauthorizedAccess,
            format!("policy '{}' lacks {}", self.policy, permission.name()),
        ))
    }
}

pub(super) async fn admit(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let request_id = hub.random_hex();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let limit = match request.uri().path() {
        "/devices/query" => QUERY_TIME_LIMIT,
        path if path.starts_with("/twins/") && path.ends_with("/methods") => METHOD_TIME_LIMIT,
        _ => TIME_LIMIT,
    };
    let answer = tokio::time::timeout(limit, answer(&hub, request, next)).await;
    let mut response = answer.unwrap_or_else(|_| {
        let message = "the request took too long; a write in it may have happened";
        Refusal::new(ErrorCode::GenericTimeout, message).into_response()
    });
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = reply::error(&refusal, &request_id, hub.now());
    }
    let route = route.as_ref().map(MatchedPath::as_str);
    hub.metrics.request(&method, route, response.status());
    let headers = response.headers_mut();
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-ms-request-id", request_id);
    }
    headers.insert(EXTENSIONS.0, HeaderValue::from_static(EXTENSIONS.1));
    response
}

/// A device that sent a request about itself.
#[derive(Clone, Debug)]
pub(super) struct DeviceCaller(pub(super) Client);

async fn answer(hub: &Hub, mut request: Request, next: Next) -> Response {
    let admitted = match device_of(&request) {
        Some(device) => authenticate_device(hub, device, &mut request).await,
        None => authenticate(hub, request.headers().get(AUTHORIZATION), request.uri())
            .map(|caller| drop(request.extensions_mut().insert(caller))),
    };
    match admitted.and_then(|()| check_api_version(request.uri())) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The id in the path of a request that only a device sends.
fn device_of(request: &Request) -> Option<String> {
    let path = request.uri().path().strip_prefix("/devices/")?;
    let (id, rest) = path.split_once("/messages/")?;
    let is_device_bound = rest
        .get(..11)
        .is_some_and(|first| first.eq_ignore_ascii_case("devicebound"));
    let is_telemetry = rest == "events" && request.method() == Method::POST;
    let is_own = is_telemetry || is_device_bound;
    is_own.then(|| percent_decode_str(id).decode_utf8_lossy().into_owned())
}

async fn authenticate_device(
    hub: &Hub,
    device: String,
    request: &mut Request,
) -> Result<(), Refusal> {
    let refuse = || {
        let message = "the device is unknown or disabled, or neither the token in Authorization \
                       nor a client certificate speaks for it";
        Refusal::new(ErrorCode::IotHubUnauthorized, message)
    };
    let client = Client::from(&device.parse::<DeviceId>()?);
    let certificates = request.extensions().get::<ClientCertificates>();
    let certificates = certificates.cloned().unwrap_or_default();
    let token = request.headers().get(AUTHORIZATION);
    let token = token.map(HeaderValue::as_bytes);
    let proof = Proof::of(token, &certificates).ok_or_else(refuse)?;
    let record = hub.read(&client.device).await?.ok_or_else(refuse)?;
    record
        .party(None)
        .and_then(|party| proof.speaks_for(hub, &client, &party))
        .ok_or_else(refuse)?;
    request.extensions_mut().insert(DeviceCaller(client));
    Ok(())
}

fn authenticate(hub: &Hub, header: Option<&HeaderValue>, uri: &Uri) -> Result<Caller, Refusal> {
    let refuse = |why: &str| Refusal::new(ErrorCode::IotHubUnauthorized, why);
    let header = header.ok_or_else(|| refuse("the Authorization header is missing"))?;
    let token = header
        .to_str()
        .map_err(|_| refuse("the Authorization header is not ASCII"))?;
    let token = SasToken::parse(token).map_err(|why| refuse(&why.to_string()))?;
    let policies = hub.policies.load();
    let policy = token.key_name().and_then(|name| policies.find(name));
    let policy = policy.ok_or_else(|| refuse("the token names no policy (skn) of this hub"))?;
    if !policy.keys.have_signed(&token) {
        return Err(refuse(
            "the token's signature does not match the policy's keys",
        ));
    }
    if scope::remaining(&token, hub.now()).is_none() {
        return Err(refuse(
            "the token has expired; compare the clocks if it should not have",
        ));
    }
    let path = percent_decode_str(uri.path()).decode_utf8_lossy();
    if !scope::covers(&token, hub.host_name(), &path) {
        return Err(refuse(
            "the token's resource (sr) does not cover this hub and path",
        ));
    }
    Ok(Caller {
        policy: policy.name.clone(),
        permissions: policy.permissions.clone(),
    })
}

/// Any version is taken and answered as 2021-04-12, but as on IoT Hub there must be one.
fn check_api_version(uri: &Uri) -> Result<(), Refusal> {
    let version = uri.query().unwrap_or_default().split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case("api-version").then_some(value)
    });
    let is_date = |text: &str| {
        let date = text.as_bytes().get(..10);
        date.is_some_and(|date| {
            date.iter().enumerate().all(|(at, byte)| match at {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            })
        })
    };
    if version.is_some_and(is_date) {
        return Ok(());
    }
    let message = "the query must name an api-version such as 2021-04-12";
    Err(Refusal::new(ErrorCode::InvalidProtocolVersion, message))
}
