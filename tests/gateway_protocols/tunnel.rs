//! The WebSocket of a device, by a client that is not ours.

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::device::dial;
use crate::stage::Sockets;

/// Opens a WebSocket and gives its payload as a byte stream. What is written goes out in frames of
/// at most `step` bytes.
pub(crate) async fn tunnel(
    sockets: &Arc<Sockets>,
    path: &str,
    subprotocol: &str,
    step: usize,
) -> DuplexStream {
    let tls = dial(sockets, sockets.https, true).await;
    let url = format!("wss://localhost{path}");
    let mut request = url.into_client_request().unwrap();
    let offered = HeaderValue::from_str(subprotocol).unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", offered);
    let (socket, response) = client_async(request, tls).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol);
    let (near, far) = tokio::io::duplex(256 * 1024);
    let (mut sink, mut stream) = socket.split();
    let (mut read, mut write) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut buffer = vec![0; 8 * 1024];
        loop {
            let count = read.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return sink.close().await;
            }
            for chunk in buffer[..count].chunks(step) {
                sink.send(Message::binary(chunk.to_vec())).await?;
            }
        }
    });
    let server = sockets.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if message.is_binary() && write.write_all(&message.into_data()).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
        drop(server);
    });
    near
}
