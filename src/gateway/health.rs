//! What Kubernetes and Prometheus ask: `/livez`, `/readyz` and `/metrics`, without TLS.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http::{ConnectionLimits, serve};
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::watch::Health;

/// How `/metrics` says what it is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes. Ready means: what is known of the cluster is complete and fresh.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>, mirror: Arc<Mirror>) -> Router {
    let its_health = health.clone();
    let ready = move || async move {
        match its_health.check() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    };
    let text = move || async move {
        metrics.show(&health, &mirror);
        ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text()).into_response()
    };
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
}

/// Serves until `stop` becomes true.
pub async fn listen(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let served = serve(
            stream,
            router.clone(),
            (),
            ConnectionLimits::default(),
            stop.clone(),
        );
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a health connection failed");
            }
        });
    }
}
