//! Replies: JSON with an etag, and errors in the form that every SDK reads, a JSON text inside
//! `Message` next to the header `iothub-errorcode`.

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::hub::error::Refusal;
use crate::hub::time;

const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

impl IntoResponse for Refusal {
    /// Leaves the body to the admission layer, which knows the request id.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub(super) fn error(refusal: &Refusal, request_id: &str, now: Timestamp) -> Response {
    let (code, tracking) = (
        refusal.code,
        format!("{request_id}-TimeStamp:{}", time::format(now)),
    );
    let message = json!({
        "errorCode": code.number(),
        "trackingId": tracking,
        "message": refusal.message,
        "timestampUtc": time::format(now),
    });
    let body = json!({
        "Message": message.to_string(),
        "ExceptionMessage": format!("Tracking ID:{tracking}"),
    });
    with_error_code(code.status(), code.name(), &body)
}

pub(super) fn with_error_code(status: StatusCode, name: &'static str, body: &Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    response
        .headers_mut()
        .insert(ERROR_CODE, HeaderValue::from_static(name));
    response
}

/// 200 with a body and its etag, quoted as HTTP wants it.
pub(super) fn tagged(etag: &str, body: &Value) -> Response {
    let mut response = Json(body).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
