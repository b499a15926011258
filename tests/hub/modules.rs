//! Modules at the device side.

use rehome::domain::sas::SasToken;
use serde_json::{Value, json};

use super::device::{ACCEPTED, KEY, OTHER_KEY, REFUSED, connected, create, token};
use super::mqtt::{Device, Packet};
use super::process::{HOST, HubProcess, Service, unix_now};

const MODULE: &str = "press-7/gauge";

async fn create_module(hub: &HubProcess, service: &Service) {
    let keys = json!({ "primaryKey": OTHER_KEY, "secondaryKey": OTHER_KEY });
    let entry = json!({ "id": "press-7", "moduleId": "gauge", "importMode": "create",
                        "authentication": { "type": "sas", "symmetricKey": keys } });
    service.done(hub, "POST /devices", &json!([entry])).await;
}

fn module_token(key: &str) -> String {
    let resource = format!("{HOST}/devices/press-7/modules/gauge");
    SasToken::sign(&resource, &key.parse().unwrap(), unix_now() + 600, None)
}

async fn connected_module(hub: &HubProcess) -> Device {
    let mut module = Device::dial(hub).await;
    let token = module_token(OTHER_KEY);
    assert_eq!(module.connect(MODULE, &token, true).await, ACCEPTED);
    module
}

#[tokio::test]
async fn a_module_works_with_its_own_twin_next_to_its_device() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    create_module(&hub, &service).await;
    let mut device = connected(&hub, "press-7").await;
    let mut module = connected_module(&hub).await;
    let filters = [
        ("$iothub/twin/res/#", 1),
        ("$iothub/twin/PATCH/properties/desired/#", 0),
        ("$iothub/methods/POST/#", 0),
    ];
    module.subscribe(&filters).await;
    device.subscribe(&filters).await;
    let report = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    assert_eq!(
        module.ask(report, r#"{"bar":3}"#).await.0,
        "$iothub/twin/res/204/?$rid=1&$version=2"
    );
    let gauge = "/twins/press-7/modules/gauge";
    let twin = service
        .done(&hub, &format!("GET {gauge}"), &Value::Null)
        .await;
    assert_eq!(twin["properties"]["reported"]["bar"], 3);
    assert_eq!(twin["connectionState"], "Connected");

    let patch = json!({ "properties": { "desired": { "rate": 5 } } });
    service.done(&hub, &format!("PATCH {gauge}"), &patch).await;
    assert!(matches!(
        module.receive().await,
        Some(Packet::Publish { payload, .. }) if payload == r#"{"$version":2,"rate":5}"#
    ));
    let (_, body) = device.ask("$iothub/twin/GET/?$rid=2", "").await;
    assert_eq!(
        body,
        r#"{"desired":{"$version":1},"reported":{"$version":1}}"#
    );

    let (caller, base) = (service.clone(), hub.service_url(""));
    let call = tokio::spawn(async move {
        let body = json!({ "methodName": "read" });
        let call = "POST /twins/press-7/modules/gauge/methods";
        caller
            .call_url(call, &base, &body)
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    });
    let Some(Packet::Publish { topic, .. }) = module.receive().await else {
        panic!("no call");
    };
    let rid = topic
        .strip_prefix("$iothub/methods/POST/read/?$rid=")
        .unwrap();
    module
        .publish(0, &format!("$iothub/methods/res/200/?$rid={rid}"), b"7")
        .await;
    assert_eq!(call.await.unwrap(), json!({ "status": 200, "payload": 7 }));

    let topic = "devices/press-7/modules/gauge/messages/events/a=b";
    module.publish(1, topic, b"3 bar").await;
    assert!(matches!(module.receive().await, Some(Packet::Puback(_))));
    let events = "GET /devices/press-7/messages/events";
    let tail = service.done(&hub, events, &Value::Null).await;
    assert_eq!(tail["messages"][0]["moduleId"], "gauge");
}

#[tokio::test]
async fn only_the_module_itself_is_let_in_and_only_once() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    create_module(&hub, &service).await;
    let wrong = "d3Jvbmcta2V5LTAxMjM0NQ==";
    for (id, token, expected) in [
        (MODULE, module_token(OTHER_KEY), ACCEPTED),
        (MODULE, module_token(wrong), REFUSED),
        (MODULE, module_token(KEY), REFUSED),
        (MODULE, token("press-7", KEY), REFUSED),
        ("press-7/none", module_token(OTHER_KEY), REFUSED),
        ("press-7", module_token(OTHER_KEY), REFUSED),
    ] {
        let mut client = Device::dial(&hub).await;
        assert_eq!(
            client.connect(id, &token, true).await,
            expected,
            "{id} {token}"
        );
    }
    let mut device = connected(&hub, "press-7").await;
    let mut first = connected_module(&hub).await;
    let mut second = connected_module(&hub).await;
    assert_eq!(first.receive().await, None);
    second
        .publish(1, "devices/press-7/modules/gauge/messages/events/", b"x")
        .await;
    assert!(matches!(second.receive().await, Some(Packet::Puback(_))));
    device
        .publish(1, "devices/press-7/messages/events/", b"x")
        .await;
    assert!(matches!(device.receive().await, Some(Packet::Puback(_))));
}

#[tokio::test]
async fn a_module_that_may_no_longer_connect_is_cut_off_at_once() {
    let hub = HubProcess::start().await;
    let service = hub.service();
    let gauge = "/devices/press-7/modules/gauge";
    let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
    let sas = json!({ "authentication": { "type": "sas", "symmetricKey": keys } });
    let mut disabled = sas.clone();
    disabled["status"] = "disabled".into();
    for (call, body) in [
        (format!("DELETE {gauge}"), Value::Null),
        (format!("PUT {gauge}"), sas),
        ("PUT /devices/press-7".to_owned(), disabled),
        ("DELETE /devices/press-7".to_owned(), Value::Null),
    ] {
        create(&hub, &service, "press-7").await;
        create_module(&hub, &service).await;
        let mut module = connected_module(&hub).await;
        service.done(&hub, &call, &body).await;
        assert_eq!(module.receive().await, None, "{call}");
        let mut again = Device::dial(&hub).await;
        let token = module_token(OTHER_KEY);
        assert_eq!(again.connect(MODULE, &token, true).await, REFUSED, "{call}");
        // What is there already is left for the next round to make anew.
        let delete = "DELETE /devices/press-7";
        service.call(&hub, delete, &Value::Null).await.unwrap();
    }
}
