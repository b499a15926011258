//! What is said to a connected device: direct methods and messages; and its last words.

use rehome_testing::expect;
use serde_json::{Value, json};

use super::device::{ACCEPTED, KEY, RESUMED, connected, create, token};
use super::mqtt::{Device, Packet};
use super::process::{HubProcess, START_WITHIN, Service};

const METHODS: &str = "$iothub/methods/POST/#";
const MESSAGES: &str = "devices/press-7/messages/devicebound/#";

/// A method call that runs on its own: its HTTP status and body.
fn call(hub: &HubProcess, path: &str, body: Value) -> tokio::task::JoinHandle<(u16, Value)> {
    let (service, base) = (hub.service(), hub.service_url(""));
    let call = format!("POST {path}/methods");
    tokio::spawn(async move {
        let response = service.call_url(&call, &base, &body).await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    })
}

fn number(body: &Value) -> u64 {
    let inner: Value = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
    inner["errorCode"].as_u64().unwrap()
}

/// A call that arrived: the part of the topic behind the method's name, and the payload.
async fn asked(device: &mut Device, method: &str) -> (String, String) {
    let Some(Packet::Publish { topic, payload, .. }) = device.receive().await else {
        panic!("no call");
    };
    let prefix = format!("$iothub/methods/POST/{method}/?$rid=");
    let rid = topic.strip_prefix(&prefix).expect("the method's topic");
    (rid.to_owned(), payload)
}

#[tokio::test]
async fn a_method_is_called_and_answered() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    let body = json!({ "methodName": "reboot", "payload": { "in": 5 } });
    let early = call(&hub, "/twins/press-7", body.clone()).await.unwrap();
    assert_eq!(
        (early.0, number(&early.1)),
        (404, 404_103),
        "not subscribed"
    );

    // This one waits for the subscription.
    let mut patient = body.clone();
    patient["connectTimeoutInSeconds"] = 60.into();
    let waiting = call(&hub, "/twins/press-7", patient);
    device.subscribe(&[(METHODS, 1)]).await;
    let (rid, payload) = asked(&mut device, "reboot").await;
    assert_eq!(payload, r#"{"in":5}"#);
    device
        .publish(
            1,
            &format!("$iothub/methods/res/207/?$rid={rid}"),
            br#"{"done":1.0}"#,
        )
        .await;
    let (status, answer) = waiting.await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        answer.to_string(),
        r#"{"payload":{"done":1.0},"status":207}"#
    );
    assert!(matches!(device.receive().await, Some(Packet::Puback(_))));

    // Two at once are told apart, and an empty answer is null.
    let first = call(&hub, "/twins/press-7", json!({ "methodName": "one" }));
    let (first_rid, payload) = asked(&mut device, "one").await;
    assert_eq!(payload, "null");
    let second = call(&hub, "/twins/press-7", json!({ "methodName": "two" }));
    let (second_rid, _) = asked(&mut device, "two").await;
    for (rid, status) in [("nobody", 9), (&second_rid, 2), (&first_rid, 1)] {
        let topic = format!("$iothub/methods/res/{status}/?$rid={rid}");
        device.publish(0, &topic, b"").await;
    }
    assert_eq!(
        first.await.unwrap(),
        (200, json!({ "status": 1, "payload": null }))
    );
    assert_eq!(
        second.await.unwrap(),
        (200, json!({ "status": 2, "payload": null }))
    );
}

#[tokio::test]
async fn a_method_that_is_not_answered_says_why() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    device.subscribe(&[(METHODS, 0)]).await;
    let slow = json!({ "methodName": "sleep", "responseTimeoutInSeconds": 5 });
    let (status, body) = call(&hub, "/twins/press-7", slow).await.unwrap();
    assert_eq!((status, number(&body)), (504, 504_101));
    asked(&mut device, "sleep").await;

    let leaving = call(&hub, "/twins/press-7", json!({ "methodName": "leave" }));
    asked(&mut device, "leave").await;
    device.disconnect().await;
    let (status, body) = leaving.await.unwrap();
    assert_eq!((status, number(&body)), (404, 404_104));

    let mut device = connected(&hub, "press-7").await;
    device.subscribe(&[(METHODS, 0)]).await;
    let garbled = call(&hub, "/twins/press-7", json!({ "methodName": "garble" }));
    let (rid, _) = asked(&mut device, "garble").await;
    device
        .publish(0, &format!("$iothub/methods/res/200/?$rid={rid}"), b"{")
        .await;
    assert_eq!(garbled.await.unwrap().0, 400);
}

async fn send(hub: &HubProcess, service: &Service, text: &str) {
    let headers = [
        ("iothub-to", "/devices/press-7/messages/devicebound"),
        ("iothub-messageid", "m 1"),
        ("iothub-app-line", "ü/3"),
    ];
    let sent = service
        .post(hub, "/messages/devicebound", &headers, text)
        .await;
    assert_eq!(sent, 204);
}

async fn waiting(hub: &HubProcess, service: &Service) -> u64 {
    let twin = service.done(hub, "GET /twins/press-7", &Value::Null).await;
    twin["cloudToDeviceMessageCount"].as_u64().unwrap()
}

async fn expect_none_waiting(hub: &HubProcess, service: &Service) {
    expect("the queue to empty", START_WITHIN, async || {
        (waiting(hub, service).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn messages_reach_a_device_once_and_survive_what_they_have_to() {
    let mut hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    for text in ["first", "second"] {
        send(&hub, &service, text).await;
    }
    hub.kill();
    hub.restart().await;
    let service = hub.service();
    assert_eq!(waiting(&hub, &service).await, 2);

    let mut device = Device::dial(&hub).await;
    let token = token("press-7", KEY);
    assert_eq!(device.connect("press-7", &token, false).await, ACCEPTED);
    assert_eq!(
        device.subscribe(&[(MESSAGES, 1)]).await,
        Some(Packet::Suback(vec![1]))
    );
    let bag = "%24.to=%2Fdevices%2Fpress-7%2Fmessages%2Fdevicebound&%24.mid=m%201&line=%C3%BC%2F3";
    for expected in ["first", "second"] {
        let Some(Packet::Publish {
            topic,
            payload,
            qos: 1,
        }) = device.receive().await
        else {
            panic!("no message");
        };
        assert!(
            topic.starts_with(&format!("devices/press-7/messages/devicebound/{bag}")),
            "{topic}"
        );
        assert_eq!(payload, expected);
    }
    expect_none_waiting(&hub, &service).await;
    // More than are sent at a time, to a device that is there already.
    for number in 0..40 {
        send(&hub, &service, &number.to_string()).await;
    }
    for number in 0..40 {
        let Some(Packet::Publish { payload, .. }) = device.receive().await else {
            panic!("no message {number}");
        };
        assert_eq!(payload, number.to_string());
    }
    expect_none_waiting(&hub, &service).await;
    device.disconnect().await;

    // The subscription of a lasting session stands.
    send(&hub, &service, "while away").await;
    let mut device = Device::dial(&hub).await;
    assert_eq!(device.connect("press-7", &token, false).await, RESUMED);
    assert!(matches!(
        device.receive().await,
        Some(Packet::Publish { payload, .. }) if payload == "while away"
    ));
    expect_none_waiting(&hub, &service).await;
}

#[tokio::test]
async fn telemetry_is_seen_with_its_property_bag() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    let topic = "devices/press-7/messages/events/%24.mid=3&a=b%20c";
    device.publish(1, topic, "{\"t\":21}".as_bytes()).await;
    assert!(matches!(device.receive().await, Some(Packet::Puback(_))));
    let events = "GET /devices/press-7/messages/events";
    let tail = service.done(&hub, events, &Value::Null).await;
    let message = &tail["messages"][0];
    assert_eq!(message["properties"], json!({ "$.mid": "3", "a": "b c" }));
    assert_eq!(message["body"], "{\"t\":21}");
}

#[tokio::test]
async fn a_will_speaks_for_a_device_that_left_without_a_word() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let token = token("press-7", KEY);
    let will = Some(("devices/press-7/messages/events/why=lost", "gone"));
    for polite in [true, false] {
        let mut device = Device::dial(&hub).await;
        let connected = device
            .connect_with("press-7", Some(&token), true, will)
            .await;
        assert_eq!(connected, ACCEPTED);
        if polite {
            device.disconnect().await;
        }
    }
    let events = "GET /devices/press-7/messages/events";
    let messages = expect("the will", START_WITHIN, async || {
        let tail = service.done(&hub, events, &Value::Null).await;
        let messages = tail["messages"].as_array().unwrap().clone();
        (!messages.is_empty()).then_some(messages)
    })
    .await;
    let expected = json!({ "why": "lost", "iothub-MessageType": "Will" });
    assert_eq!((messages.len(), &messages[0]["properties"]), (1, &expected));
    assert_eq!(messages[0]["body"], "gone");
}
