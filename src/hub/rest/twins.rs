//! `/twins/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::Permission::ServiceConnect;
use super::admission::Caller;
use super::reply;
use super::request::{Body, Device};
use crate::domain::ids::DeviceId;
use crate::hub::error::Refusal;
use crate::hub::etag::{self, IfMatch};
use crate::hub::operations::TwinMode;
use crate::hub::record::Record;
use crate::hub::twin::{TwinWrite, parse_object};
use crate::hub::{Hub, view};

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
) -> Result<Response, Refusal> {
    caller.may(ServiceConnect)?;
    Ok(show(&hub, &id, &*hub.device(&id).await?))
}

pub(super) async fn patch(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
    if_match: IfMatch,
    body: Body,
) -> Result<Response, Refusal> {
    write(&hub, &caller, &id, &if_match, &body, TwinMode::Merge).await
}

pub(super) async fn replace(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Device(id): Device,
    if_match: IfMatch,
    body: Body,
) -> Result<Response, Refusal> {
    write(&hub, &caller, &id, &if_match, &body, TwinMode::Replace).await
}

async fn write(
    hub: &Hub,
    caller: &Caller,
    id: &DeviceId,
    if_match: &IfMatch,
    Body(body): &Body,
    mode: TwinMode,
) -> Result<Response, Refusal> {
    caller.may(ServiceConnect)?;
    let write = TwinWrite::from_body(&parse_object(body)?)?;
    Ok(show(
        hub,
        id,
        &hub.write_twin(id, write, mode, if_match).await?,
    ))
}

fn show(hub: &Hub, id: &DeviceId, record: &Record) -> Response {
    reply::tagged(
        &etag::of_twin(record.twin.serial),
        &view::twin(hub, id.as_str(), record),
    )
}
