//! The WebSocket of `wire` against a client that is not ours, and byte by byte.

#![cfg(test)]

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use rehome::wire::websocket::WebSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const PATIENCE: Duration = Duration::from_mins(1);

async fn pair(buffer: usize) -> (WebSocketStream<DuplexStream>, WebSocket<DuplexStream>) {
    let (client, server) = tokio::io::duplex(buffer);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    (client, WebSocket::new(server))
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

#[tokio::test]
async fn payload_is_a_byte_stream_in_both_directions() {
    let (client, mut server) = pair(512).await;
    let echo = tokio::spawn(async move {
        let mut buffer = vec![0; 700];
        loop {
            let count = server.read(&mut buffer).await.unwrap();
            if count == 0 {
                return server.shutdown().await.unwrap();
            }
            server.write_all(&buffer[..count]).await.unwrap();
            server.flush().await.unwrap();
        }
    });
    let sent: Vec<u8> = (0..60_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let (mut sink, mut stream) = client.split();
    let send = async {
        // As the Node SDK does it, and as the Python SDK does it.
        for byte in &sent[..300] {
            sink.send(Message::binary(vec![*byte])).await.unwrap();
        }
        sink.send(Message::binary(sent[300..].to_vec()))
            .await
            .unwrap();
        sink.send(Message::binary(vec![])).await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let Message::Binary(bytes) = stream.next().await.unwrap().unwrap() else {
                panic!("only binary frames are sent");
            };
            received.extend_from_slice(&bytes);
        }
        received
    };
    let ((), received) = patiently(async { tokio::join!(send, receive) }).await;
    assert_eq!(received, sent);
    patiently(sink.close()).await.unwrap();
    let last = patiently(stream.next()).await.unwrap().unwrap();
    assert!(last.is_close(), "{last:?}");
    patiently(echo).await.unwrap();
}

#[tokio::test]
async fn pings_are_answered_also_while_nothing_is_said() {
    let (mut client, mut server) = pair(4096).await;
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 16];
        server.read(&mut buffer).await.unwrap()
    });
    client
        .send(Message::Ping(vec![1, 2, 3].into()))
        .await
        .unwrap();
    let pong = patiently(client.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(vec![1, 2, 3].into()));
    client.send(Message::binary(vec![7])).await.unwrap();
    assert_eq!(patiently(reading).await.unwrap(), 1);
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_by_the_last_and_holds_nothing() {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let mut server = WebSocket::new(server);
    for count in 0..10_000_u16 {
        let [high, low] = count.to_be_bytes();
        to_server
            .write_all(&[0x89, 0x82, 0, 0, 0, 0, high, low])
            .await
            .unwrap();
    }
    to_server
        .write_all(&[0x82, 0x81, 0, 0, 0, 0, b'x'])
        .await
        .unwrap();
    let mut buffer = [0; 16];
    assert_eq!(patiently(server.read(&mut buffer)).await.unwrap(), 1);
    assert_eq!(buffer[0], b'x');
    patiently(server.shutdown()).await.unwrap();
    drop(server);
    let mut said = Vec::new();
    patiently(from_server.read_to_end(&mut said)).await.unwrap();
    let end = [0x8a, 2, 0x27, 0x0f, 0x88, 2, 0x03, 0xe8];
    assert!(
        said.ends_with(&end),
        "{:x?}",
        &said[said.len().saturating_sub(20)..]
    );
    assert!(said.len() < 2_000, "{} bytes", said.len());
}

#[tokio::test]
async fn what_is_no_websocket_ends_with_its_close_code() {
    for (bytes, code) in [
        (&b"\x10\x1d\x00\x04MQTT"[..], 1002_u16),
        (&[0x82, 0x01, 0x00][..], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, b'x'][..], 1003),
    ] {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut server = WebSocket::new(server);
        client.write_all(bytes).await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(patiently(server.read(&mut buffer)).await.unwrap(), 0);
        assert!(patiently(server.write_all(b"x")).await.is_err());
        patiently(server.shutdown()).await.unwrap();
        drop(server);
        let mut said = Vec::new();
        patiently(client.read_to_end(&mut said)).await.unwrap();
        let [high, low] = code.to_be_bytes();
        assert_eq!(said, [0x88, 2, high, low]);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_the_end() {
    for cut in [&[][..], &[0x82][..], &[0x82, 0x85, 1, 2, 3, 4, 5][..]] {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut server = WebSocket::new(server);
        client.write_all(cut).await.unwrap();
        drop(client);
        let mut received = Vec::new();
        patiently(server.read_to_end(&mut received)).await.unwrap();
        assert!(received.len() <= 1, "{cut:?}");
    }
}
