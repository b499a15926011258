//! `/statistics/devices`, `/statistics/devices/{id}` and `/statistics/service`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Permission::RegistryRead;
use super::admission::Caller;
use super::request::Device;
use crate::hub::Hub;
use crate::hub::error::Refusal;
use crate::hub::store::Standing;

pub(super) async fn devices(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
) -> Result<Json<Value>, Refusal> {
    caller.may(RegistryRead)?;
    let counts = hub.counts().await?;
    Ok(Json(json!({
        "totalDeviceCount": counts.total,
        "enabledDeviceCount": counts.enabled,
        "disabledDeviceCount": counts.total - counts.enabled,
        "maxDeviceCount": hub.max_devices,
        "isStoreFull": hub.store.standing() == Standing::Full,
    })))
}

pub(super) async fn service(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
) -> Result<Json<Value>, Refusal> {
    caller.may(RegistryRead)?;
    Ok(Json(json!({
        "connectedDeviceCount": hub.sessions.connected(),
        "telemetryMessageCount": hub.sessions.telemetry(),
    })))
}

pub(super) async fn device(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
) -> Result<Json<Value>, Refusal> {
    caller.may(RegistryRead)?;
    hub.device(&id).await?;
    let presence = hub.sessions.presence(id.as_str(), None);
    Ok(Json(json!({
        "deviceId": id.as_str(),
        "telemetryMessageCount": presence.telemetry,
        "lastTelemetry": String::from_utf8_lossy(&presence.sample),
    })))
}
