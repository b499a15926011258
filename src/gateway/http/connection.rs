//! One HTTP/1.1 connection: kept open between requests, bounded in every other way. It may become a
//! WebSocket.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;
use tower::ServiceExt as _;

use crate::wire::websocket::{Handover, Subprotocol, WebSocket};

/// What a connection has become, where it did not remain HTTP.
pub type Socket = (Subprotocol, WebSocket<TokioIo<Upgraded>>);

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How long a connection may be idle, and how long the head of a request may take. Well above
    /// the time between two polls: the C SDK never opens a second connection.
    pub idle: Duration,
    /// After so long the connection ends with the request that is being served.
    pub lifetime: Duration,
    /// Headers of one request.
    pub headers: usize,
    /// Bytes of the head of one request.
    pub head: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(75),
            lifetime: Duration::from_hours(1),
            headers: 64,
            head: 16 * 1024,
        }
    }
}

/// Serves `router` until the client leaves, a limit is reached or `stop` becomes true. `mark` is
/// attached to every request.
pub async fn serve<S, M>(
    stream: S,
    router: Router,
    mark: M,
    limits: ConnectionLimits,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<Socket>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    M: Clone + Send + Sync + 'static,
{
    let handover = Handover::default();
    let upgrading = handover.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(mark.clone());
        request.extensions_mut().insert(upgrading.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(limits.headers)
        .max_buf_size(limits.head)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => Some(served),
        () = sleep(limits.lifetime) => None,
        _ = stop.wait_for(|stop| *stop) => None,
    };
    if let Some(served) = served {
        served?;
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await?;
    }
    handover.upgraded().await
}
