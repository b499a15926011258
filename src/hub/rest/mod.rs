//! The service REST API of IoT Hub, api-version 2021-04-12: identities, twins, bulk operations,
//! queries and statistics. Translates between HTTP and [`Hub`]; decides nothing itself.
//!
//! The router works without a socket, through `tower::Service`.

mod admission;
mod identities;
mod query;
mod reply;
mod request;
mod statistics;
#[cfg(test)]
mod tests;
mod twins;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get};

use super::Hub;
use super::error::{ErrorCode, Refusal};
pub use super::policy::{Permission, Policies, PoliciesError};

/// The header by which a client learns what it may rely on beyond Azure IoT Hub (module `hub`).
pub const EXTENSIONS: (&str, &str) = ("rehome-hub", "etags-unique, fence, versions");

/// Every route of the service API, with its admission.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/devices", get(identities::list).post(identities::bulk))
        .route(
            "/devices/{id}",
            get(identities::read)
                .put(identities::write)
                .post(query::run)
                .delete(identities::remove),
        )
        .route("/devices/{id}/modules", get(identities::modules))
        .route("/devices/{id}/commands", delete(identities::purge_commands))
        .route(
            "/twins/{id}",
            get(twins::read).patch(twins::patch).put(twins::replace),
        )
        .route("/statistics/devices", get(statistics::devices))
        .route("/statistics/devices/{id}", get(statistics::device))
        .route("/statistics/service", get(statistics::service))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(Arc::clone(&hub), admission::admit))
        .with_state(hub)
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
