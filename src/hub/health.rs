//! What Kubernetes and Prometheus ask: `/livez`, `/readyz` and `/metrics`, in plain HTTP. They are
//! answered from the start of the process on, also while the hub waits for its store.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::store::Standing;
use super::{Hub, metrics};

/// How `/metrics` says what it is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How the hub is.
#[derive(Default)]
pub(super) struct Health {
    hub: OnceLock<Arc<Hub>>,
    /// Before there is a hub.
    waits_for: ArcSwap<String>,
}

impl Health {
    /// Says why the hub does not serve yet.
    pub(super) fn waits_for(&self, why: &str) {
        self.waits_for.store(Arc::new(why.to_owned()));
    }

    /// The hub serves from now on.
    pub(super) fn serves(&self, hub: Arc<Hub>) {
        // Said once in the life of a process.
        let _ = self.hub.set(hub);
    }

    /// What keeps the hub from answering anybody. One whose store is full is ready: it answers reads,
    /// and says why it takes no writes.
    fn obstacle(&self) -> Option<String> {
        let Some(hub) = self.hub.get() else {
            return Some(format!("the hub starts. {}", self.waits_for.load()));
        };
        match hub.store.standing() {
            Standing::Well | Standing::Full => None,
            Standing::Away(why) => Some(why),
        }
    }
}

/// The routes.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.obstacle() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        ),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let text = health.hub.get().map(|hub| metrics::text(hub));
    let text = text.unwrap_or_else(|| "# EOF\n".to_owned());
    ([(CONTENT_TYPE, OPEN_METRICS)], text)
}
