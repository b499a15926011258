//! `/twins/{id}`, `/twins/{id}/modules/{module}` and the methods of both.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::Permission::ServiceConnect;
use super::admission::Caller;
use super::reply;
use super::request::{Body, Who};
use crate::hub::client::Client;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::etag::{self, IfMatch};
use crate::hub::methods::MethodCall;
use crate::hub::operations::TwinMode;
use crate::hub::record::Record;
use crate::hub::twin::{TwinWrite, parse_object};
use crate::hub::{Hub, view};

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
) -> Result<Response, Refusal> {
    caller.may(ServiceConnect)?;
    show(&hub, &client, &*hub.device(&client.device).await?)
}

pub(super) async fn patch(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
    if_match: IfMatch,
    body: Body,
) -> Result<Response, Refusal> {
    write(&hub, &caller, &client, &if_match, &body, TwinMode::Merge).await
}

pub(super) async fn replace(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
    if_match: IfMatch,
    body: Body,
) -> Result<Response, Refusal> {
    write(&hub, &caller, &client, &if_match, &body, TwinMode::Replace).await
}

async fn write(
    hub: &Hub,
    caller: &Caller,
    client: &Client,
    if_match: &IfMatch,
    Body(body): &Body,
    mode: TwinMode,
) -> Result<Response, Refusal> {
    caller.may(ServiceConnect)?;
    let write = TwinWrite::from_body(&parse_object(body)?)?;
    let record = hub.write_twin(client, write, mode, if_match).await?;
    show(hub, client, &record)
}

fn show(hub: &Hub, client: &Client, record: &Record) -> Result<Response, Refusal> {
    let device = client.device.as_str();
    let missing = || Refusal::not_found(client);
    let party = record.party(client.module()).ok_or_else(missing)?;
    let body = match client.module() {
        None => view::twin(hub, device, record),
        Some(module) => view::module_twin(hub, device, module, record).ok_or_else(missing)?,
    };
    Ok(reply::tagged(&etag::of_twin(party.twin.serial), &body))
}

/// Calls a direct method of the device or module and shows its answer.
pub(super) async fn call(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Who(client): Who,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    caller.may(ServiceConnect)?;
    let answer = hub.call_method(&client, &MethodCall::read(&body)?).await?;
    let payload = if answer.payload.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&answer.payload).map_err(|_| {
            let message = format!("'{client}' answered with something that is not JSON");
            Refusal::new(ErrorCode::InvalidOperation, message)
        })?
    };
    Ok(Json(json!({ "status": answer.status, "payload": payload })))
}
