//! `/devices` and `/devices/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Permission::{RegistryRead, RegistryWrite, ServiceConnect};
use super::admission::Caller;
use super::reply;
use super::request::{Body, Device};
use crate::domain::ids::DeviceId;
use crate::hub::bulk::{BulkOutcome, Name};
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::etag::{self, IfMatch};
use crate::hub::identity::{IdentityBody, IdentityWrite};
use crate::hub::record::Record;
use crate::hub::twin::{TwinWrite, limits};
use crate::hub::{Hub, view};

/// Most devices that a list returns, and how many where the request says nothing usable.
const MAX_LISTED: usize = 1000;

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
) -> Result<Response, Refusal> {
    caller.may(RegistryRead)?;
    Ok(show(&hub, &id, &*hub.device(&id).await?))
}

pub(super) async fn write(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Refusal> {
    caller.may(RegistryWrite)?;
    let body: IdentityBody = parse(&body)?;
    if body
        .device_id
        .as_deref()
        .is_some_and(|named| named != id.as_str())
    {
        let message = format!("the deviceId in the body is not '{id}', which the path names");
        return Err(Refusal::invalid(message));
    }
    let identity = IdentityWrite::try_from(body)?;
    let record = if if_match == IfMatch::Absent {
        hub.create(&id, identity, TwinWrite::default()).await?
    } else {
        hub.update(&id, identity, &if_match).await?
    };
    Ok(show(&hub, &id, &record))
}

pub(super) async fn remove(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
    if_match: IfMatch,
) -> Result<StatusCode, Refusal> {
    caller.may(RegistryWrite)?;
    if if_match == IfMatch::Absent {
        let message = "etag missing: name the device's etag or * in If-Match to delete it";
        return Err(Refusal::new(ErrorCode::PreconditionFailed, message));
    }
    hub.delete(&id, &if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Refusal> {
    caller.may(RegistryRead)?;
    let pairs = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|it| it.split_once('='));
    let top = pairs
        .filter(|(name, _)| *name == "top")
        .find_map(|(_, top)| top.parse().ok());
    let top = top
        .filter(|top| (1..=MAX_LISTED).contains(top))
        .unwrap_or(MAX_LISTED);
    let devices = hub.devices(None, top).await?;
    Ok(Json(
        devices
            .iter()
            .map(|(id, record)| view::identity(&hub, id, record))
            .collect(),
    ))
}

pub(super) async fn bulk(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Body(body): Body,
) -> Result<Response, Refusal> {
    caller.may(RegistryWrite)?;
    limits::check_integers_fit(&body)?;
    let entries: Vec<Map<String, Value>> = parse(&body)?;
    let BulkOutcome { errors, created } = hub.bulk(entries).await?;
    let successful = errors.is_empty();
    let error = |((id, module), refusal): (Name, Refusal)| {
        let mut error = json!({
            "deviceId": id,
            "errorCode": refusal.code.name(),
            "errorStatus": refusal.message,
        });
        if !module.is_empty() {
            error["moduleId"] = module.into();
        }
        error
    };
    let device = |(id, record): (DeviceId, Record)| {
        json!({
            "deviceId": id.as_str(),
            "generationId": record.identity.generation_id,
            "etag": etag::of_identity(record.identity.serial),
        })
    };
    let body = json!({
        "isSuccessful": successful,
        "errors": errors.into_iter().map(error).collect::<Value>(),
        "warnings": [],
        "devices": created.into_iter().map(device).collect::<Value>(),
    });
    if successful {
        return Ok(Json(body).into_response());
    }
    let name = ErrorCode::BulkRegistryOperationFailure.name();
    Ok(reply::with_error_code(StatusCode::BAD_REQUEST, name, &body))
}

pub(super) async fn purge_messages(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
) -> Result<Json<Value>, Refusal> {
    caller.may(ServiceConnect)?;
    let purged = hub.purge_messages(&id).await?;
    Ok(Json(json!({
        "deviceId": id.as_str(),
        "moduleId": null,
        "totalMessagesPurged": purged,
    })))
}

fn show(hub: &Hub, id: &DeviceId, record: &Record) -> Response {
    reply::tagged(
        &etag::of_identity(record.identity.serial),
        &view::identity(hub, id.as_str(), record),
    )
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|why| {
        // The parser quotes values in its messages, and a body holds keys: tell the place alone.
        let place = format!("line {} column {}", why.line(), why.column());
        let message = format!("the body does not have the form that is expected here ({place})");
        Refusal::new(ErrorCode::DeserializationError, message)
    })
}
