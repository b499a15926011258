//! The API over AMQP.

use std::time::Duration;

use rehome::api::v1alpha1::RegistrationState;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::amqp_device::types::messaging::{AmqpValue, Body, MessageId};
use crate::amqp_device::types::primitives::{Uuid, Value};
use crate::amqp_device::{Amqp, Ask, Links, data, links};
use crate::device::{PATIENCE, dial};
use crate::stage::{Mood, SCOPE, Stage, device_key, eventually, signed};
use crate::tunnel::tunnel;

const ID: &str = "device-001";

async fn connect(stage: &Stage, links: &Links) -> Amqp {
    let sockets = stage.listen().await;
    let stream = dial(&sockets, sockets.amqp, true).await;
    let mut device = Amqp::open(stream, links).await.unwrap();
    device.server = Some(sockets);
    device
}

/// From the first request to the hub.
async fn register(stage: &Stage, device: &mut Amqp) {
    let told = device.ask(Ask::register(b"{}")).await;
    assert_eq!(told.body["status"], "assigning");
    assert_eq!(told.retry_after, [Some(3), Some(3)], "R22");
    let operation = told.body["operationId"].as_str().unwrap();
    let told = device.ask(Ask::poll(operation)).await;
    assert_eq!(told.body["registrationState"]["status"], "assigning", "R11");
    assert_eq!(told.retry_after, [Some(3), Some(3)]);
    stage.memory.finish(ID, RegistrationState::Assigned);
    let told = device.ask(Ask::poll(operation)).await;
    assert_eq!(told.body["registrationState"]["assignedHub"], "west.test");
    assert_eq!(told.retry_after, [None, None]);
}

#[tokio::test]
async fn r20_a_whole_registration_with_every_form_of_a_link_address() {
    for links in [links(ID), links(ID).like_java(), links(ID).like_c()] {
        let stage = Stage::new();
        let mut device = connect(&stage, &links).await;
        register(&stage, &mut device).await;
        assert_eq!(stage.memory.count(), 1, "{links:?}");
        let metrics = stage.service.metrics().text();
        assert!(
            metrics.contains("protocol=\"amqp\",operation=\"register\""),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn r19_a_whole_registration_over_websocket() {
    for (path, subprotocol, step) in [
        ("/$iothub/websocket", "AMQPWSB10", 8192),
        (
            "/$iothub/websocket?iothub-no-client-cert=true",
            "AMQPWSB10",
            3,
        ),
        ("/", "amqpwsb10", 8192),
    ] {
        let stage = Stage::new();
        let sockets = stage.listen().await;
        let stream = tunnel(&sockets, path, subprotocol, step).await;
        let mut device = Amqp::open(stream, &links(ID).like_java()).await.unwrap();
        register(&stage, &mut device).await;
        let metrics = stage.service.metrics().text();
        assert!(
            metrics.contains("protocol=\"amqp-ws\",operation=\"poll\""),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn r21_clients_without_sasl_are_let_in_and_judged_with_their_first_request() {
    let stage = Stage::new();
    let mut device = connect(&stage, &Links::like_node(SCOPE, ID)).await;
    let rejection = device.try_ask(Ask::register(b"{}")).await.unwrap_err();
    assert_eq!(rejection.condition, "amqp:unauthorized-access");
    assert_eq!(rejection.description["errorCode"], 401_002);
}

#[tokio::test]
async fn r22_the_correlation_id_comes_back_in_its_own_type() {
    let stage = Stage::new();
    let mut device = connect(&stage, &links(ID)).await;
    for id in [
        Some(MessageId::String("d0e1f2".to_owned())),
        Some(MessageId::Ulong(7)),
        Some(MessageId::Uuid(Uuid::from([7; 16]))),
        None,
    ] {
        let ask = Ask {
            correlation_id: id.clone(),
            ..Ask::register(b"{}")
        };
        assert_eq!(device.ask(ask).await.correlation_id, id);
    }
}

#[tokio::test]
async fn r04_every_body_of_the_sdks_registers() {
    for body in [
        data(b""),
        data(b"{\"registrationId\":\"device-001\",\"payload\":null}"),
        data(b"{\"payload\":{\"a\":1}}"),
        Body::Value(AmqpValue(Value::String("iotdps-register".to_owned()))),
        Body::Value(AmqpValue(Value::String(String::new()))),
        Body::Empty,
    ] {
        let stage = Stage::new();
        let mut device = connect(&stage, &links(ID)).await;
        let ask = Ask {
            body,
            ..Ask::register(b"")
        };
        assert_eq!(device.ask(ask).await.body["status"], "assigning");
    }
}

#[tokio::test]
async fn r25_a_java_sdk_is_not_answered_before_it_can_wait() {
    let stage = Stage::new();
    stage.memory.set(Mood::Assigns);
    for links in [ID, "a-stranger"].map(|id| links(id).like_java()) {
        let mut device = connect(&stage, &links).await;
        let asked = Instant::now();
        device.ask(Ask::register(b"{}")).await;
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(20), "{links:?}: {took:?}");
    }
}

#[tokio::test]
async fn r05_what_a_poll_carries_does_not_matter() {
    let stage = Stage::new();
    let mut device = connect(&stage, &links(ID)).await;
    let told = device.ask(Ask::register(b"{}")).await;
    let operation = told.body["operationId"].as_str().unwrap();
    let text = "iotdps-get-operationstatus".to_owned();
    for body in [
        data(b"{\"registrationId\":\"device-001\"}"),
        Body::Value(AmqpValue(Value::String(text))),
        Body::Empty,
    ] {
        let ask = Ask {
            body,
            ..Ask::poll(operation)
        };
        assert_eq!(device.ask(ask).await.body["status"], "assigning");
    }
}

#[tokio::test]
async fn a_wrong_key_is_let_in_and_told_with_the_answer() {
    let stage = Stage::new();
    let wrong = signed(ID, &device_key("device-002"), 4_000_000_000);
    let node = Links::like_node(SCOPE, ID).with_token(wrong);
    let mut device = connect(&stage, &node).await;
    let rejection = device.try_ask(Ask::register(b"{}")).await.unwrap_err();
    assert_eq!(rejection.condition, "amqp:unauthorized-access");
    assert_eq!(rejection.description["errorCode"], 401_000);
    // The Java SDK loses what a rejection says.
    let mut device = connect(&stage, &node.like_java()).await;
    let told = device.ask(Ask::register(b"{}")).await;
    assert_eq!(told.body["errorCode"], 401_000);
    assert!(told.body.get("operationId").is_none() && told.body.get("status").is_none());
    assert_eq!(stage.memory.count(), 0);
}

#[tokio::test]
async fn links_that_contradict_the_connection_are_refused() {
    let stage = Stage::new();
    let mut other = links(ID);
    other.address = format!("{SCOPE}/registrations/device-002");
    let mut unversioned = links(ID);
    unversioned.properties.clear();
    let mut elsewhere = links(ID);
    elsewhere.address = "telemetry".to_owned();
    for (links, condition) in [
        (other, "UnauthorizedAccess"),
        (unversioned, "argument-error"),
        (elsewhere, "argument-error"),
    ] {
        let sockets = stage.listen().await;
        let stream = dial(&sockets, sockets.amqp, true).await;
        let refused = Amqp::open(stream, &links).await.err().unwrap();
        assert!(refused.contains(condition), "{refused}");
    }
    let mut nameless = links(ID);
    nameless.login = Some(("somebody".to_owned(), "something".to_owned()));
    let sockets = stage.listen().await;
    let stream = dial(&sockets, sockets.amqp, true).await;
    let refused = Amqp::open(stream, &nameless).await.err().unwrap();
    assert!(refused.contains("Sasl"), "{refused}");
}

#[tokio::test]
async fn a_lookup_shows_the_registration() {
    let stage = Stage::new();
    let mut device = connect(&stage, &links(ID)).await;
    register(&stage, &mut device).await;
    let ask = Ask {
        operation: "iotdps-get-registration",
        ..Ask::register(b"{}")
    };
    assert_eq!(device.ask(ask).await.body["assignedHub"], "west.test");
    let dance = Ask {
        operation: "iotdps-dance",
        ..Ask::register(b"{}")
    };
    let rejection = device.try_ask(dance).await.unwrap_err();
    assert_eq!(rejection.condition, "com.microsoft:argument-error");
}

#[tokio::test]
async fn many_requests_on_one_connection_are_throttled_and_none_is_lost() {
    let stage = Stage::new();
    let mut device = connect(&stage, &links(ID)).await;
    let (mut served, mut throttled) = (0, 0);
    for _ in 0..40 {
        match device.try_ask(Ask::register(b"{}")).await {
            Ok(_) => served += 1,
            Err(rejection) => {
                assert_eq!(
                    rejection.condition,
                    "com.microsoft:device-container-throttled"
                );
                assert_eq!(rejection.retry_after, [Some(3), Some(3)]);
                throttled += 1;
            }
        }
    }
    assert!(
        served >= 10 && throttled >= 10,
        "{served} served, {throttled} throttled"
    );
    assert_eq!(stage.memory.count(), 1);
}

#[tokio::test]
async fn strangers_are_told_what_is_spoken_here() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    for said in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"AMQP\x00\x00\x09\x01",
        &[0xff; 64],
    ] {
        let mut stream = dial(&sockets, sockets.amqp, true).await;
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // Whether the end is a clean one does not matter.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer, b"AMQP\x03\x01\x00\x00");
    }
    let metrics = || stage.service.metrics().text();
    eventually("they are counted", || {
        metrics().contains("incident=\"malformed\"} 3")
    })
    .await;
    // And nobody else is disturbed.
    let stream = dial(&sockets, sockets.amqp, true).await;
    let mut device = Amqp::open(stream, &links(ID)).await.unwrap();
    assert_eq!(
        device.ask(Ask::register(b"{}")).await.body["status"],
        json!("assigning")
    );
}

#[tokio::test]
async fn a_gateway_that_stops_says_so() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let stream = dial(&sockets, sockets.amqp, true).await;
    let mut device = Amqp::open(stream, &links(ID)).await.unwrap();
    sockets.stop.send(true).unwrap();
    assert!(device.is_ended().await);
    let metrics = || stage.service.metrics().text();
    eventually("it is over", || {
        metrics().contains("connections{protocol=\"amqp\"} 0")
    })
    .await;
}
