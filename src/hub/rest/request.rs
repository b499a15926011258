//! The parts of a request, read or refused in the API's own error form.

use std::collections::HashMap;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;

use super::admission::{Caller, DeviceCaller};
use crate::domain::ids::DeviceId;
use crate::hub::client::Client;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::etag::IfMatch;

/// Largest body, as on IoT Hub.
const BODY_BYTES: usize = 512 * 1024;

/// The device that the path names.
pub(super) struct Device(pub(super) DeviceId);

impl<S: Send + Sync> FromRequestParts<S> for Device {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::invalid("the device id in the path is not UTF-8"))?;
        Ok(Self(text.parse::<DeviceId>()?))
    }
}

/// The device or module that the path names.
pub(super) struct Who(pub(super) Client);

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(ids) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::invalid("an id in the path is not UTF-8"))?;
        let device = ids.get("id").map_or("", String::as_str).parse()?;
        let module = ids.get("module").map(|id| id.parse()).transpose()?;
        Ok(Self(Client { device, module }))
    }
}

/// What admission has left with the request.
fn admitted<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Refusal> {
    parts.extensions.get().cloned().ok_or_else(|| {
        let message = "the request was not authenticated";
        Refusal::new(ErrorCode::IotHubUnauthorized, message)
    })
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        admitted(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DeviceCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        admitted(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self::parse(header(&parts.headers, IF_MATCH.as_str())))
    }
}

/// The whole body.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let declared = header(request.headers(), "content-length").and_then(|it| it.parse().ok());
        let too_large = || {
            let message = format!("the body is larger than {BODY_BYTES} bytes");
            Refusal::new(ErrorCode::MessageTooLarge, message)
        };
        if declared.is_some_and(|length: u64| length > BODY_BYTES as u64) {
            return Err(too_large());
        }
        match to_bytes(request.into_body(), BODY_BYTES).await {
            Ok(body) => Ok(Self(body)),
            Err(why) if is_limit(&why) => Err(too_large()),
            Err(_) => {
                let message = "the body could not be read to its end";
                Err(Refusal::new(ErrorCode::GenericBadRequest, message))
            }
        }
    }
}

fn is_limit(why: &axum::Error) -> bool {
    std::error::Error::source(why)
        .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
