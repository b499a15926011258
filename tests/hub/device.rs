//! The device side, over TLS.

use std::time::Duration;

use rehome::domain::sas::SasToken;
use rehome_testing::expect;
use serde_json::{Value, json};

use super::mqtt::{Device, Packet};
use super::process::{HOST, HubProcess, START_WITHIN, Service, unix_now};

pub(crate) const KEY: &str = "ZGV2aWNlLWtleS0wMTIzNA==";
pub(crate) const OTHER_KEY: &str = "b3RoZXIta2V5LTAxMjM0NQ==";
pub(crate) const ACCEPTED: Option<Packet> = Some(Packet::Connack {
    session_present: false,
    code: 0,
});
pub(crate) const RESUMED: Option<Packet> = Some(Packet::Connack {
    session_present: true,
    code: 0,
});
pub(crate) const REFUSED: Option<Packet> = Some(Packet::Connack {
    session_present: false,
    code: 5,
});

pub(crate) const UNAVAILABLE: Option<Packet> = Some(Packet::Connack {
    session_present: false,
    code: 3,
});

pub(crate) fn identity(status: &str, secondary: &str) -> Value {
    let keys = json!({ "primaryKey": KEY, "secondaryKey": secondary });
    json!({ "status": status, "authentication": { "type": "sas", "symmetricKey": keys } })
}

pub(crate) fn token(id: &str, key: &str) -> String {
    token_until(id, key, unix_now() + 600)
}

fn token_until(id: &str, key: &str, expiry: u64) -> String {
    SasToken::sign(
        &format!("{HOST}/devices/{id}"),
        &key.parse().unwrap(),
        expiry,
        None,
    )
}

pub(crate) async fn create(hub: &HubProcess, service: &Service, id: &str) {
    let mut entry = identity("enabled", OTHER_KEY);
    entry["id"] = id.into();
    entry["importMode"] = "create".into();
    service.done(hub, "POST /devices", &json!([entry])).await;
}

pub(crate) async fn connected(hub: &HubProcess, id: &str) -> Device {
    let mut device = Device::dial(hub).await;
    assert_eq!(device.connect(id, &token(id, KEY), true).await, ACCEPTED);
    device
}

async fn is_connected(hub: &HubProcess, service: &Service, id: &str) -> bool {
    let identity = service
        .done(hub, &format!("GET /devices/{id}"), &Value::Null)
        .await;
    identity["connectionState"] == "Connected"
}

#[tokio::test]
async fn a_device_works_with_its_twin() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    assert!(is_connected(&hub, &service, "press-7").await);
    let filters = [
        ("$iothub/twin/res/#", 1),
        ("$iothub/twin/PATCH/properties/desired/#", 0),
        ("$iothub/methods/POST/#", 0),
    ];
    assert_eq!(
        device.subscribe(&filters).await,
        Some(Packet::Suback(vec![1, 0, 0]))
    );

    let (topic, body) = device.ask("$iothub/twin/GET/?$rid=7f-1", " ").await;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=7f-1");
    let expected = json!({ "desired": { "$version": 1 }, "reported": { "$version": 1 } });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);

    let report = r#"{"nonce":"r4nd0m","one":1.0,"nested":{"a":1}}"#;
    let answer = device
        .ask("$iothub/twin/PATCH/properties/reported/?$rid=2", report)
        .await;
    assert_eq!(
        answer,
        (
            "$iothub/twin/res/204/?$rid=2&$version=2".to_owned(),
            String::new()
        )
    );
    let twin = service.done(&hub, "GET /twins/press-7", &Value::Null).await;
    assert_eq!(twin["properties"]["reported"]["nonce"], "r4nd0m");
    assert_eq!(twin["properties"]["reported"]["one"].to_string(), "1.0");

    for (payload, status) in [("not json", 400), (r#"{"a.b":1}"#, 400)] {
        let (topic, body) = device
            .ask("$iothub/twin/PATCH/properties/reported/?$rid=3", payload)
            .await;
        assert_eq!(topic, format!("$iothub/twin/res/{status}/?$rid=3"));
        assert!(
            serde_json::from_str::<Value>(&body).unwrap()["errorCode"].is_u64(),
            "{body}"
        );
    }
    let stale = "$iothub/twin/PATCH/properties/reported/?$rid=4&$version=1";
    assert_eq!(
        device.ask(stale, "{}").await.0,
        "$iothub/twin/res/412/?$rid=4"
    );

    for version in 2..=4 {
        let patch = json!({ "properties": { "desired": { "rate": version, "gone": null } } });
        service.done(&hub, "PATCH /twins/press-7", &patch).await;
        let told = device.receive().await;
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        let payload = format!(r#"{{"$version":{version},"gone":null,"rate":{version}}}"#);
        assert_eq!(
            told,
            Some(Packet::Publish {
                topic,
                payload,
                qos: 0
            })
        );
    }
    let topic = "$iothub/twin/PATCH/properties/desired/#";
    assert_eq!(device.unsubscribe(topic).await, Some(Packet::Unsuback));
    let patch = json!({ "properties": { "desired": { "rate": 0 } } });
    service.done(&hub, "PATCH /twins/press-7", &patch).await;
    assert!(
        device
            .ask("$iothub/twin/GET/?$rid=9", "")
            .await
            .1
            .contains("\"rate\":0")
    );
    device.disconnect().await;
}

#[tokio::test]
async fn only_the_device_itself_is_let_in() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    create(&hub, &service, "off").await;
    service
        .done(&hub, "PUT /devices/off", &identity("disabled", OTHER_KEY))
        .await;
    let raw = format!("{HOST}/devices/press-7");
    let owner = |resource: &str| {
        let key = "cHJpbWFyeS1rZXktMDEyMw==".parse().unwrap();
        SasToken::sign(resource, &key, unix_now() + 600, Some("iothubowner"))
    };
    for (id, token, code) in [
        ("press-7", token("press-7", KEY), 0),
        ("press-7", token("press-7", OTHER_KEY), 0),
        (
            "press-7",
            SasToken::sign_literal(&raw, &KEY.parse().unwrap(), unix_now() + 9, None),
            0,
        ),
        ("press-7", owner(HOST), 0),
        ("press-7", owner(&raw), 0),
        ("press-7", token("off", KEY), 5),
        ("press-7", token("press-7", "d3Jvbmcta2V5LTAxMjM0NQ=="), 5),
        ("press-7", token_until("press-7", KEY, unix_now() - 301), 5),
        ("press-7", "no token".into(), 5),
        ("off", token("off", KEY), 5),
        ("unknown", token("unknown", KEY), 5),
        ("off", owner(HOST), 5),
    ] {
        let mut device = Device::dial(&hub).await;
        let answer = device.connect(id, &token, true).await;
        assert_eq!(
            answer,
            Some(Packet::Connack {
                session_present: false,
                code
            }),
            "{id} {token}"
        );
        if code != 0 {
            assert_eq!(device.receive().await, None);
        }
    }
    assert!(!hub.log().contains("SharedAccessSignature"));
}

#[tokio::test]
async fn a_device_that_may_no_longer_connect_is_cut_off_at_once() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    for (id, call, body) in [
        ("deleted", "DELETE /devices/deleted", Value::Null),
        (
            "disabled",
            "PUT /devices/disabled",
            identity("disabled", OTHER_KEY),
        ),
        ("rotated", "PUT /devices/rotated", identity("enabled", KEY)),
    ] {
        create(&hub, &service, id).await;
        let mut device = connected(&hub, id).await;
        service.done(&hub, call, &body).await;
        assert_eq!(device.receive().await, None, "{id}");
        let expected = if id == "rotated" { ACCEPTED } else { REFUSED };
        let mut again = Device::dial(&hub).await;
        assert_eq!(
            again.connect(id, &token(id, KEY), true).await,
            expected,
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_change_that_leaves_the_credential_alone_does_not_cut_a_device_off() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    let mut body = identity("enabled", OTHER_KEY);
    body["statusReason"] = "serviced".into();
    service.done(&hub, "PUT /devices/press-7", &body).await;
    service
        .done(&hub, "PATCH /twins/press-7", &json!({ "tags": { "a": 1 } }))
        .await;
    device
        .publish(1, "devices/press-7/messages/events/", b"still here")
        .await;
    assert!(matches!(device.receive().await, Some(Packet::Puback(_))));
}

#[tokio::test]
async fn a_second_connection_closes_the_first() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut first = connected(&hub, "press-7").await;
    let mut second = connected(&hub, "press-7").await;
    assert_eq!(first.receive().await, None);
    assert!(is_connected(&hub, &service, "press-7").await);
    second.disconnect().await;
    expect(
        "the device to count as disconnected",
        START_WITHIN,
        async || (!is_connected(&hub, &service, "press-7").await).then_some(()),
    )
    .await;
    let statistics = service
        .done(&hub, "GET /statistics/service", &Value::Null)
        .await;
    assert_eq!(statistics["connectedDeviceCount"], 0);
}

#[tokio::test]
async fn subscriptions_of_a_lasting_session_survive_the_connection_and_the_hub() {
    let mut hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let token = token("press-7", KEY);
    let mut device = Device::dial(&hub).await;
    assert_eq!(device.connect("press-7", &token, false).await, ACCEPTED);
    let filters = [
        ("$iothub/twin/res/#", 1),
        ("$iothub/twin/PATCH/properties/desired/#", 1),
    ];
    assert_eq!(
        device.subscribe(&filters).await,
        Some(Packet::Suback(vec![1, 1]))
    );
    device.disconnect().await;
    assert!(hub.terminate().await);
    hub.restart().await;

    let mut device = Device::dial(&hub).await;
    assert_eq!(device.connect("press-7", &token, false).await, RESUMED);
    assert!(
        device
            .ask("$iothub/twin/GET/?$rid=1", "")
            .await
            .0
            .starts_with("$iothub/twin/res/200/")
    );
    let patch = json!({ "properties": { "desired": { "rate": 1 } } });
    service.done(&hub, "PATCH /twins/press-7", &patch).await;
    assert!(matches!(
        device.receive().await,
        Some(Packet::Publish { qos: 1, .. })
    ));
    device.disconnect().await;

    for clean in [true, false] {
        let mut device = Device::dial(&hub).await;
        assert_eq!(
            device.connect("press-7", &token, clean).await,
            ACCEPTED,
            "a clean start"
        );
        device.disconnect().await;
    }
}

#[tokio::test]
async fn telemetry_is_taken_and_counted() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    let large = vec![b'x'; 256 * 1024];
    device
        .publish(0, "devices/press-7/messages/events", b"1")
        .await;
    device
        .publish(1, "devices/press-7/messages/events/a=b&%24.mid=3", &large)
        .await;
    assert!(matches!(device.receive().await, Some(Packet::Puback(_))));
    device
        .publish(
            1,
            "devices/press-7/messages/events/",
            "{\"t\":21}".as_bytes(),
        )
        .await;
    assert!(matches!(device.receive().await, Some(Packet::Puback(_))));
    let seen = service
        .done(&hub, "GET /statistics/devices/press-7", &Value::Null)
        .await;
    let expected =
        json!({ "deviceId": "press-7", "telemetryMessageCount": 3, "lastTelemetry": "{\"t\":21}" });
    assert_eq!(seen, expected);
    let all = service
        .done(&hub, "GET /statistics/service", &Value::Null)
        .await;
    assert_eq!(
        all,
        json!({ "connectedDeviceCount": 1, "telemetryMessageCount": 3 })
    );
}

#[tokio::test]
async fn what_is_not_served_ends_the_connection() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    for (qos, topic) in [
        (2, "devices/press-7/messages/events/"),
        (1, "devices/other/messages/events/"),
        (0, "anything"),
        (1, "$iothub/methods/res/fine/?$rid=1"),
        (1, "devices/press-7/modules/gauge/messages/events/"),
    ] {
        let mut device = connected(&hub, "press-7").await;
        device.publish(qos, topic, b"{}").await;
        assert_eq!(device.receive().await, None, "{topic} at QoS {qos}");
    }
    for filter in [
        "#",
        "devices/other/messages/devicebound/#",
        "$iothub/twin/#",
    ] {
        let mut device = connected(&hub, "press-7").await;
        assert_eq!(device.subscribe(&[(filter, 0)]).await, None, "{filter}");
    }
}

#[tokio::test]
async fn concurrent_changes_reach_a_device_in_the_order_of_their_versions() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    device
        .subscribe(&[("$iothub/twin/PATCH/properties/desired/#", 0)])
        .await;
    let writers: Vec<_> = (0..40)
        .map(|n| {
            let (service, base) = (service.clone(), hub.service_url(""));
            tokio::spawn(async move {
                let patch = json!({ "properties": { "desired": { format!("w{n}"): n } } });
                let call = "PATCH /twins/press-7";
                service
                    .call_url(call, &base, &patch)
                    .await
                    .unwrap()
                    .error_for_status()
                    .unwrap();
            })
        })
        .collect();
    for version in 2..=41 {
        let Some(Packet::Publish { topic, .. }) = device.receive().await else {
            panic!("closed before version {version}");
        };
        assert_eq!(
            topic,
            format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
        );
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_hub_told_to_stop_ends_connections_and_itself() {
    let mut hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let mut device = connected(&hub, "press-7").await;
    let started = tokio::time::Instant::now();
    assert!(hub.terminate().await);
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "it waited for somebody"
    );
    assert_eq!(device.receive().await, None);
    assert!(
        service
            .call(&hub, "GET /devices", &Value::Null)
            .await
            .is_err()
    );
}
