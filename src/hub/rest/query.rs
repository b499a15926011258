//! `/devices/query`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Permission::ServiceConnect;
use super::admission::Caller;
use super::no_such_method;
use super::request::{Body, Device, header};
use crate::hub::Hub;
use crate::hub::error::Refusal;
use crate::hub::query::Query;
use crate::hub::twin::parse_object;

const MAX_ITEMS: &str = "x-ms-max-item-count";
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");

pub(super) async fn run(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Refusal> {
    // `query` is also a legal device id, so this path is that of a device.
    if id.as_str() != "query" {
        return Err(no_such_method().await);
    }
    caller.may(ServiceConnect)?;
    let body = parse_object(&body)?;
    let text = body.get("query").and_then(Value::as_str);
    let query = Query::parse(text.ok_or_else(|| Refusal::invalid("'query' must be a text"))?)?;
    let max_items = header(&headers, MAX_ITEMS).and_then(|text| text.parse().ok());
    let continuation = header(&headers, CONTINUATION.as_str()).filter(|text| !text.is_empty());
    let page = hub.query(&query, max_items, continuation).await?;
    let mut response = Json(page.items).into_response();
    let item_type = if page.are_twins { "Twin" } else { "Raw" };
    response
        .headers_mut()
        .insert(ITEM_TYPE, HeaderValue::from_static(item_type));
    if let Some(next) = page
        .continuation
        .and_then(|it| HeaderValue::from_str(&it).ok())
    {
        response.headers_mut().insert(CONTINUATION, next);
    }
    Ok(response)
}
