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
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::wire::websocket::{Handover, Subprotocol, WebSocket};

/// What a connection has become, where it did not remain HTTP.
pub type Socket = (Subprotocol, WebSocket<TokioIo<Upgraded>>);

/// How long the last request of a connection may take to be served, its answer read.
const LAST_REQUEST: Duration = Duration::from_secs(30);

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
        // A client that reads nothing would keep its last answer, and the connection, for ever.
        let Ok(served) = timeout(LAST_REQUEST, connection).await else {
            return Ok(None);
        };
        served?;
    }
    handover.upgraded().await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::Instant;

    use super::*;

    /// Serves a client that has sent this, reads nothing and does not hang up.
    async fn served(sent: &[u8]) -> (Result<Option<Socket>, hyper::Error>, Duration) {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(sent).await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || "x".repeat(64 * 1024)));
        let begin = Instant::now();
        let served = serve(server, router, (), ConnectionLimits::default(), stopped).await;
        (served, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_does_not_stay_for_ever() {
        let (served, took) = served(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(served.unwrap().is_none());
        assert_eq!(took, ConnectionLimits::default().lifetime + LAST_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_not_waited_for() {
        for sent in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let (served, took) = served(sent.as_bytes()).await;
            assert!(served.unwrap_err().is_timeout(), "{sent}");
            assert_eq!(took, ConnectionLimits::default().idle, "{sent}");
        }
    }
}
