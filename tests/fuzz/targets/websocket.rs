//! WebSocket: the opening handshake, and frames.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rehome::wire::websocket::{Handshake, Subprotocol, WebSocket, is_wanted};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stream::{Client, run};

const SERVED: &[Subprotocol] = &[Subprotocol::Mqtt, Subprotocol::Amqp];

/// The input is a method and header lines.
pub(super) fn upgrade(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let method = lines.next().unwrap_or_default();
    let Ok(method) = Method::from_bytes(method.trim_ascii()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    if let Ok(handshake) = Handshake::read(&method, &headers, SERVED) {
        assert!(is_wanted(&headers) && method == Method::GET);
        let response = handshake.response();
        assert_eq!(response.status(), 101);
        let spoken = &response.headers()["sec-websocket-protocol"];
        let name = handshake.subprotocol.name();
        assert!(spoken.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
    }
}

/// The input is what a client sends behind the handshake.
pub(super) fn frames(input: &[u8]) {
    run(async {
        let mut socket = WebSocket::new(Client::new(&[], input));
        let (mut buffer, mut total) = ([0; 512], 0);
        // Between reads we write, as sessions do; a client that has closed takes no more.
        while let Ok(count) = socket.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            total += count;
            if socket.write_all(b"answer").await.is_err() {
                break;
            }
        }
        assert!(total <= input.len());
        let _ = socket.shutdown().await;
    });
}
