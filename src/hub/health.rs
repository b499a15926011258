//! What Kubernetes and Prometheus ask: `/livez`, `/readyz` and `/metrics`, in plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{Hub, metrics};

/// How `/metrics` says what it is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes. A hub that listens has opened its store, and so is ready.
pub(super) fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async || "ready\n"))
        .route("/metrics", get(metrics))
        .with_state(hub)
}

async fn metrics(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics::text(&hub))
}
