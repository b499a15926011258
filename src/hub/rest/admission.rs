//! What happens to every request: it is authenticated, must name an api-version, is given a time
//! limit, and its reply carries a request id, the hub's extensions, and errors in one form.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::{EXTENSIONS, Permission, reply};
use crate::domain::sas::SasToken;
use crate::hub::Hub;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::scope;

/// Longest time that a request may take, its body included. Short, because clients reckon with a
/// bound on how long after their own time limit a call can still act.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// A query writes nothing and may look at many devices.
const QUERY_TIME_LIMIT: Duration = Duration::from_mins(1);

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
    let is_query = request.uri().path() == "/devices/query";
    let limit = if is_query {
        QUERY_TIME_LIMIT
    } else {
        TIME_LIMIT
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

async fn answer(hub: &Hub, mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(AUTHORIZATION);
    let caller = authenticate(hub, authorization, request.uri());
    match caller.and_then(|caller| check_api_version(request.uri()).map(|()| caller)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
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
