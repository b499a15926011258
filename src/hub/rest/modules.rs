//! `/devices/{id}/modules` and `/devices/{id}/modules/{module}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::Permission::{RegistryRead, RegistryWrite};
use super::admission::Caller;
use super::identities::parse;
use super::reply;
use super::request::{Body, Device, Who};
use crate::domain::ids::ModuleId;
use crate::hub::client::Client;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::etag::{self, IfMatch};
use crate::hub::identity::{ModuleBody, ModuleWrite};
use crate::hub::record::Record;
use crate::hub::twin::TwinWrite;
use crate::hub::{Hub, view};

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
) -> Result<Json<Value>, Refusal> {
    caller.may(RegistryRead)?;
    let record = hub.device_with_modules(&id).await?;
    let modules = record.modules.keys();
    Ok(Json(
        modules
            .filter_map(|module| view::module(&hub, id.as_str(), module, &record))
            .collect(),
    ))
}

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
) -> Result<Response, Refusal> {
    caller.may(RegistryRead)?;
    let record = hub.device_with_modules(&client.device).await?;
    show(&hub, &client, &record)
}

pub(super) async fn write(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Refusal> {
    caller.may(RegistryWrite)?;
    let body: ModuleBody = parse(&body)?;
    let (device, module) = (&client.device, module_of(&client)?);
    let differs = |named: &Option<String>, id: &str| named.as_deref().is_some_and(|it| it != id);
    if differs(&body.device_id, device.as_str()) || differs(&body.module_id, module.as_str()) {
        let message = format!("the ids in the body are not those of '{client}' in the path");
        return Err(Refusal::invalid(message));
    }
    let write = ModuleWrite::try_from(body)?;
    let record = if if_match == IfMatch::Absent {
        let twin = TwinWrite::default();
        hub.create_module(device, module, write, twin, &IfMatch::Absent)
            .await?
    } else {
        hub.update_module(device, module, write, &if_match).await?
    };
    show(&hub, &client, &record)
}

pub(super) async fn remove(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
    if_match: IfMatch,
) -> Result<StatusCode, Refusal> {
    caller.may(RegistryWrite)?;
    if if_match == IfMatch::Absent {
        let message = "etag missing: name the module's etag or * in If-Match to delete it";
        return Err(Refusal::new(ErrorCode::PreconditionFailed, message));
    }
    let module = module_of(&client)?;
    hub.delete_module(&client.device, module, &if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn module_of(client: &Client) -> Result<&ModuleId, Refusal> {
    let missing = || Refusal::module_not_found(client);
    client.module.as_ref().ok_or_else(missing)
}

fn show(hub: &Hub, client: &Client, record: &Record) -> Result<Response, Refusal> {
    let missing = || Refusal::module_not_found(client);
    let module = client.module().ok_or_else(missing)?;
    let found = record.modules.get(module).ok_or_else(missing)?;
    let body = view::module(hub, client.device.as_str(), module, record).ok_or_else(missing)?;
    Ok(reply::tagged(&etag::of_identity(found.serial), &body))
}
