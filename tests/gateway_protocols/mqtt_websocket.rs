//! MQTT over WebSocket, on the port of HTTPS.

use rehome::api::v1alpha1::RegistrationState;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::device::{ANSWERS, Https, Manner, Mqtt, Said, dial};
use crate::stage::{Stage, eventually};
use crate::tunnel::tunnel;

const ID: &str = "device-001";
/// Where most SDKs ask for a WebSocket.
const PATH: &str = "/$iothub/websocket";

#[tokio::test]
async fn r19_a_whole_registration_on_every_path_and_in_every_spelling() {
    for (path, subprotocol, step) in [
        (PATH, "mqtt", 8192),    // Python
        (PATH, "mqtt", 1),       // Node
        (PATH, "MQTT", 8192),    // C
        ("/", "mqtt", 8192),     // .NET
        ("/mqtt", "mqtt", 8192), // Java
        ("/$iothub/websocket?iothub-no-client-cert=true", "mqtt", 100),
    ] {
        let stage = Stage::new();
        let sockets = stage.listen().await;
        let stream = tunnel(&sockets, path, subprotocol, step).await;
        let mut device = Mqtt::connect(stream, &Manner::of(ID)).await;
        assert_eq!(device.subscribe(ANSWERS, 1).await, Said::Suback(vec![1]));
        device.register(1, "1", 7).await;
        assert_eq!(device.next().await, Said::Puback(7), "{path}");
        let (topic, body) = device.answer().await;
        assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3");
        stage.memory.finish(ID, RegistrationState::Assigned);
        device
            .poll(0, "2", body["operationId"].as_str().unwrap())
            .await;
        let (topic, body) = device.answer().await;
        assert_eq!(topic, "$dps/registrations/res/200/?$rid=2");
        assert_eq!(body["registrationState"]["assignedHub"], "west.test");
        let metrics = stage.service.metrics().text();
        assert!(
            metrics.contains("protocol=\"mqtt-ws\",operation=\"register\""),
            "{metrics}"
        );
    }
}

/// Byte by byte, because the Java SDK reads the answer by hand.
#[tokio::test]
async fn r19_the_handshake_of_the_java_sdk_is_answered_as_it_reads_it() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let mut stream = dial(&sockets, sockets.https, true).await;
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost:443\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Key: bXF0dDMtMTc5NTM4MTA4Mg==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // It cuts lines at colons and keeps the space.
    let value = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    };
    assert_eq!(value("connection").as_deref(), Some(" Upgrade"));
    assert_eq!(value("upgrade").as_deref(), Some(" websocket"));
    assert_eq!(value("sec-websocket-protocol").as_deref(), Some(" mqtt"));
    assert!(value("sec-websocket-accept").is_some());
}

#[tokio::test]
async fn r27_an_absolute_request_line_from_a_client_that_names_no_host_is_served() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let mut stream = dial(&sockets, sockets.https, false).await;
    let request = "GET https://localhost/$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\n\
                   Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
}

#[tokio::test]
async fn what_is_no_websocket_of_ours_is_told_why_in_json() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    for path in ["/", "/mqtt", PATH] {
        let reply = device.request(&format!("GET {path}"), None, "", b"").await;
        assert_eq!(
            (reply.status, &reply.body["errorCode"]),
            (404, &json!(404_000))
        );
    }
    let wants = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for missing in ["", "Sec-WebSocket-Protocol: chat\r\n"] {
        let headers = format!("{wants}{missing}");
        let reply = device
            .request(&format!("GET {PATH}"), None, &headers, b"")
            .await;
        assert_eq!(
            (reply.status, &reply.body["errorCode"]),
            (400, &json!(400_001))
        );
        let why = reply.body["message"].as_str().unwrap();
        assert!(why.contains("Sec-WebSocket-Protocol"), "{why}");
    }
    // The connection is still one of HTTP.
    assert_eq!(device.register(ID, "{}").await.status, 202);
}

#[tokio::test]
async fn a_device_may_change_between_tcp_and_websocket() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let stream = tunnel(&sockets, PATH, "mqtt", 8192).await;
    let mut device = Mqtt::connect(stream, &Manner::keeping(ID)).await;
    device.register(1, "1", 7).await;
    assert_eq!(device.next().await, Said::Puback(7));
    device.answer().await;
    drop(device);
    // What was not acknowledged there is sent again here.
    let tcp = dial(&sockets, sockets.mqtt, true).await;
    let mut device = Mqtt::connect(tcp, &Manner::keeping(ID)).await;
    let (topic, _) = device.answer().await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3");
}

#[tokio::test]
async fn a_gateway_that_stops_ends_websockets_too() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let stream = tunnel(&sockets, PATH, "mqtt", 8192).await;
    let mut device = Mqtt::connect(stream, &Manner::of(ID)).await;
    let gauge = "connections{protocol=\"mqtt-ws\"} ";
    let open = |count: u8| {
        let metrics = stage.service.metrics().text();
        metrics.contains(&format!("{gauge}{count}"))
    };
    eventually("the connection counts", || open(1)).await;
    sockets.stop.send(true).unwrap();
    assert_eq!(device.next().await, Said::Closed);
    eventually("the connection is over", || open(0)).await;
}
