//! The REST API of IoT Hub, api-version 2021-04-12: for services identities, twins, methods,
//! messages, bulk operations, queries and statistics; for devices their telemetry. Translates
//! between HTTP and [`Hub`]; decides nothing itself.
//!
//! The router works without a socket, through `tower::Service`.

mod admission;
mod device_bound;
mod identities;
mod messages;
mod modules;
mod query;
mod reply;
mod request;
mod statistics;
#[cfg(test)]
mod tests;
mod twins;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};

use super::Hub;
use super::error::{ErrorCode, Refusal};
pub use super::policy::{Permission, Policies, PoliciesError};
use crate::wire::websocket::{Handover, PATHS, Subprotocol};

/// The header by which a client learns what it may rely on beyond Azure IoT Hub (module `hub`).
pub const EXTENSIONS: (&str, &str) = ("rehome-hub", "etags-unique, fence, versions, modules");

/// Every route of the service API, with its admission.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/devices", get(identities::list).post(identities::bulk))
        // How the Node service SDK spells it when it lists.
        .route("/devices/", get(identities::list).post(identities::bulk))
        .route(
            "/devices/{id}",
            get(identities::read)
                .put(identities::write)
                .post(query::run)
                .delete(identities::remove),
        )
        .route("/devices/{id}/modules", get(modules::list))
        .route(
            "/devices/{id}/modules/{module}",
            get(modules::read)
                .put(modules::write)
                .delete(modules::remove),
        )
        .route("/devices/{id}/commands", delete(identities::purge_messages))
        .route("/twins/{id}", twin())
        .route("/twins/{id}/modules/{module}", twin())
        .route("/twins/{id}/methods", post(twins::call))
        .route("/twins/{id}/modules/{module}/methods", post(twins::call))
        .route("/messages/devicebound", post(messages::send))
        .route("/messages/deviceBound", post(messages::send))
        .route("/messages/events", get(messages::tail))
        .route(
            "/devices/{id}/messages/events",
            get(messages::device_tail).post(messages::receive),
        )
        .route("/statistics/devices", get(statistics::devices))
        .route("/statistics/devices/{id}", get(statistics::device))
        .route("/statistics/service", get(statistics::service))
        .merge(device_bound("/devices/{id}/messages/devicebound"))
        .merge(device_bound("/devices/{id}/messages/deviceBound"))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(Arc::clone(&hub), admission::admit))
        .merge(websockets())
        .with_state(hub)
}

/// Documented in one spelling and asked for in the other.
fn device_bound(path: &str) -> Router<Arc<Hub>> {
    Router::new()
        .route(path, get(device_bound::fetch))
        .route(&format!("{path}/{{token}}"), delete(device_bound::settle))
        .route(
            &format!("{path}/{{token}}/abandon"),
            post(device_bound::abandon),
        )
}

/// Without admission: a device says within the WebSocket who it is.
fn websockets() -> Router<Arc<Hub>> {
    let paths = PATHS.iter();
    paths.fold(Router::new(), |router, path| {
        router.route(path, get(websocket))
    })
}

async fn websocket(mut request: Request) -> Response {
    let handover = request.extensions().get::<Handover>().cloned();
    let handover = handover.unwrap_or_default();
    match handover.accept(&mut request, &[Subprotocol::Mqtt]) {
        Ok(response) => response.map(|()| Body::empty()),
        Err(why) => (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
    }
}

fn twin() -> MethodRouter<Arc<Hub>> {
    get(twins::read).patch(twins::patch).put(twins::replace)
}

async fn no_such_path() -> Refusal {
    Refusal::new(ErrorCode::GenericNotFound, "this hub serves no such path")
}

async fn no_such_method() -> Refusal {
    Refusal::new(
        ErrorCode::GenericMethodNotAllowed,
        "this path does not take this method",
    )
}
