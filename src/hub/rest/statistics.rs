//! `/statistics/devices` and `/statistics/service`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Permission::RegistryRead;
use super::admission::Caller;
use crate::hub::Hub;
use crate::hub::error::Refusal;

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
    })))
}

pub(super) async fn service(
    State(_hub): State<Arc<Hub>>,
    caller: Caller,
) -> Result<Json<Value>, Refusal> {
    caller.may(RegistryRead)?;
    Ok(Json(json!({ "connectedDeviceCount": 0 })))
}
