//! Devices with X.509 certificates, over MQTT, WebSocket and HTTPS.

use rehome_testing::{Authority, Issued};
use serde_json::{Value, json};

use super::device::{ACCEPTED, KEY, REFUSED, create, token};
use super::mqtt::{Device, Packet};
use super::process::{HubProcess, Service, thumbprint};

async fn register(hub: &HubProcess, service: &Service, id: &str, authentication: Value) {
    let entry = json!({ "id": id, "importMode": "create", "authentication": authentication });
    service.done(hub, "POST /devices", &json!([entry])).await;
}

fn identity(issued: &Issued) -> (&str, &str) {
    (&issued.cert_pem, &issued.key_pem)
}

fn self_signed(primary: &Issued, secondary: &str) -> Value {
    let thumbprints = json!({
        "primaryThumbprint": thumbprint(&primary.cert_pem),
        "secondaryThumbprint": secondary,
    });
    json!({ "type": "selfSigned", "x509Thumbprint": thumbprints })
}

async fn answer(hub: &HubProcess, issued: Option<&Issued>, id: &str) -> Option<Packet> {
    let mut device = Device::dial_as(hub, issued.map(identity)).await;
    device.connect_with(id, None, true, None).await
}

#[tokio::test]
async fn a_device_is_let_in_by_its_thumbprint() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    let anyone = Authority::new("Anyone").unwrap();
    let [first, second, other] = [(); 3].map(|()| anyone.issue(&["whatever"]).unwrap());
    let spare = thumbprint(&second.cert_pem).to_lowercase();
    register(&hub, &service, "press-7", self_signed(&first, &spare)).await;
    for (issued, expected) in [
        (Some(&first), ACCEPTED),
        (Some(&second), ACCEPTED),
        (Some(&other), REFUSED),
        (None, REFUSED),
    ] {
        assert_eq!(answer(&hub, issued, "press-7").await, expected);
    }
    // A token never speaks for a device with certificates, nor a certificate for one with keys.
    let mut device = Device::dial_as(&hub, Some(identity(&first))).await;
    let token = token("press-7", KEY);
    assert_eq!(device.connect("press-7", &token, true).await, REFUSED);
    create(&hub, &service, "keyed").await;
    assert_eq!(answer(&hub, Some(&first), "keyed").await, REFUSED);

    // Whoever is connected with a certificate that no longer counts is cut off.
    let mut device = Device::dial_as(&hub, Some(identity(&first))).await;
    assert_eq!(
        device.connect_with("press-7", None, true, None).await,
        ACCEPTED
    );
    let rolled = json!({ "authentication": self_signed(&other, &spare) });
    service.done(&hub, "PUT /devices/press-7", &rolled).await;
    assert_eq!(device.receive().await, None);
    assert_eq!(answer(&hub, Some(&first), "press-7").await, REFUSED);
    assert_eq!(answer(&hub, Some(&other), "press-7").await, ACCEPTED);
}

#[tokio::test]
async fn a_device_is_let_in_by_a_certificate_authority_of_the_hub() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    let ours = |name: &str| hub.device_authority.issue(&[name]).unwrap();
    let strangers = Authority::new("Test Devices").unwrap();
    let own = ours("press-7");
    let by_authority = json!({ "type": "certificateAuthority" });
    register(&hub, &service, "press-7", by_authority).await;
    register(&hub, &service, "pinned", self_signed(&ours("pinned"), "")).await;
    for (issued, id, expected) in [
        (&own, "press-7", ACCEPTED),
        (&ours("press-8"), "press-7", REFUSED),
        (&strangers.issue(&["press-7"]).unwrap(), "press-7", REFUSED),
        (&ours("pinned"), "pinned", REFUSED),
        (&own, "unknown", REFUSED),
    ] {
        assert_eq!(answer(&hub, Some(issued), id).await, expected, "{id}");
    }
    let mut device = Device::dial_as(&hub, Some(identity(&own))).await;
    assert_eq!(
        device.connect_with("press-7", None, true, None).await,
        ACCEPTED
    );
    let disabled =
        json!({ "status": "disabled", "authentication": { "type": "certificateAuthority" } });
    service.done(&hub, "PUT /devices/press-7", &disabled).await;
    assert_eq!(device.receive().await, None);
    assert_eq!(answer(&hub, Some(&own), "press-7").await, REFUSED);
}

#[tokio::test]
async fn mqtt_over_websocket_works_as_mqtt_does() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    let own = hub.device_authority.issue(&["press-7"]).unwrap();
    let by_authority = json!({ "type": "certificateAuthority" });
    register(&hub, &service, "press-7", by_authority).await;
    create(&hub, &service, "keyed").await;
    for path in [
        "/$iothub/websocket",
        "/$iothub/websocket?iothub-no-client-cert=true",
        "/mqtt",
    ] {
        let mut device = Device::dial_web(&hub, path, identity(&own)).await;
        let token = token("keyed", KEY);
        assert_eq!(
            device.connect("keyed", &token, true).await,
            ACCEPTED,
            "{path}"
        );
        device.subscribe(&[("$iothub/twin/res/#", 0)]).await;
        let (topic, _) = device.ask("$iothub/twin/GET/?$rid=1", " ").await;
        assert_eq!(topic, "$iothub/twin/res/200/?$rid=1");
        device.disconnect().await;
    }
    let mut device = Device::dial_web(&hub, "/$iothub/websocket", identity(&own)).await;
    assert_eq!(
        device.connect_with("press-7", None, true, None).await,
        ACCEPTED
    );
    // One identity has one connection, whatever it comes over.
    assert_eq!(answer(&hub, Some(&own), "press-7").await, ACCEPTED);
    assert_eq!(device.receive().await, None);
    let mut refused = Device::dial_web(&hub, "/$iothub/websocket", identity(&own)).await;
    assert_eq!(refused.connect("keyed", "no token", true).await, REFUSED);
}

#[tokio::test]
async fn telemetry_over_https_takes_a_certificate_too() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    let own = hub.device_authority.issue(&["press-7"]).unwrap();
    let by_authority = json!({ "type": "certificateAuthority" });
    register(&hub, &service, "press-7", by_authority).await;
    let path = "/devices/press-7/messages/events";
    let sent = hub.post_as(identity(&own), path, "hello").await;
    assert_eq!(sent, 204);
    let other = hub.device_authority.issue(&["press-8"]).unwrap();
    assert_eq!(hub.post_as(identity(&other), path, "hello").await, 401);
    let tail = service
        .done(&hub, &format!("GET {path}"), &Value::Null)
        .await;
    assert_eq!(tail["messages"][0]["body"], "hello");
}
