//! `/livez`, `/readyz` and `/metrics`, in plain HTTP for the kubelet and for Prometheus.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::context::Context;

/// What the endpoints tell. A process that waits for the lease is ready: it is there to take over.
#[derive(Clone, Default)]
pub(super) struct Health {
    active: Arc<OnceLock<Arc<Context>>>,
}

impl Health {
    /// From now on this process acts: it is ready when it knows all there is.
    pub(super) fn acts(&self, ctx: Arc<Context>) {
        // Acting begins once.
        let _ = self.active.set(ctx);
    }

    /// Serves for ever on an address that is bound before this returns.
    pub(super) async fn serve(
        self,
        address: SocketAddr,
    ) -> Result<impl Future<Output = ()> + Send, std::io::Error> {
        let listener = TcpListener::bind(address).await?;
        let routes = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        Ok(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the health endpoints ended");
            }
        })
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    match health.active.get() {
        None => (StatusCode::OK, "waiting for the lease\n"),
        Some(ctx) if ctx.is_synced() => (StatusCode::OK, "ok\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "reading what there is\n"),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let text = health
        .active
        .get()
        .map(|ctx| ctx.metrics.text(&ctx.census()));
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, format)],
        text.unwrap_or_else(|| "# EOF\n".to_owned()),
    )
}
