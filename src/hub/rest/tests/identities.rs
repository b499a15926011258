//! Identities and the form of requests.

use super::*;

#[tokio::test]
async fn an_identity_is_shown_as_iot_hub_shows_it() {
    let client = client();
    let created = client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    assert_eq!(created.status, 200);
    assert_eq!(
        created.etag(),
        format!("\"{}\"", created.body["etag"].as_str().unwrap())
    );
    let generation = created.body["generationId"].clone();
    let expected = json!({
        "deviceId": "press-7",
        "generationId": generation,
        "etag": "MQ==",
        "connectionState": "Disconnected",
        "connectionStateUpdatedTime": "0001-01-01T00:00:00Z",
        "status": "enabled",
        "statusReason": null,
        "statusUpdatedTime": "0001-01-01T00:00:00Z",
        "lastActivityTime": "0001-01-01T00:00:00Z",
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "type": "sas",
            "symmetricKey": { "primaryKey": DEVICE_KEY, "secondaryKey": DEVICE_KEY },
            "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
        },
        "capabilities": { "iotEdge": false },
    });
    assert_eq!(created.body, expected);
    assert_eq!(client.get("/devices/press-7").await, expected);
    for path in ["/devices?top=5", "/devices/?top=5"] {
        assert_eq!(client.get(path).await, json!([expected]), "{path}");
    }
    assert_eq!(client.get("/devices/press-7/modules").await, json!([]));
}

#[tokio::test]
async fn identity_preconditions_follow_the_table() {
    let client = client();
    let put = async |if_match: Option<&str>| {
        client
            .call("PUT /devices/press-7", if_match, with_key("enabled"))
            .await
    };
    let delete = async |if_match: Option<&str>| {
        client
            .call("DELETE /devices/press-7", if_match, Value::Null)
            .await
    };

    assert_eq!(put(Some("*")).await.error(), 404_001);
    assert_eq!(put(Some("\"MQ==\"")).await.error(), 404_001);
    assert_eq!(delete(Some("*")).await.error(), 404_001);
    assert_eq!(delete(None).await.error(), 412_001);

    let created = put(None).await;
    let again = put(None).await;
    assert_eq!(again.error(), 409_001);
    assert_eq!(again.headers["iothub-errorcode"], "DeviceAlreadyExists");

    let updated = put(Some(&created.etag())).await;
    assert_eq!(updated.status, 200);
    assert_ne!(updated.etag(), created.etag());
    assert_eq!(updated.body["generationId"], created.body["generationId"]);
    assert_eq!(put(Some(&created.etag())).await.error(), 412_001);
    assert_eq!(
        put(Some(updated.etag().trim_matches('"'))).await.status,
        200
    );
    assert_eq!(put(Some("\"*\"")).await.status, 200);

    assert_eq!(delete(None).await.error(), 412_001);
    assert_eq!(delete(Some(&created.etag())).await.error(), 412_001);
    let gone = delete(Some("*")).await;
    assert_eq!((gone.status, gone.body), (204, Value::Null));

    let reborn = put(None).await;
    assert_ne!(reborn.body["generationId"], created.body["generationId"]);
    assert_ne!(reborn.etag(), created.etag());
    assert_eq!(delete(Some(&created.etag())).await.error(), 412_001);
}

#[tokio::test]
async fn an_update_without_authentication_makes_new_keys() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let updated = client
        .call(
            "PUT /devices/press-7",
            Some("*"),
            json!({ "deviceId": "press-7" }),
        )
        .await;
    let keys = &updated.body["authentication"]["symmetricKey"];
    assert_ne!(keys["primaryKey"], DEVICE_KEY);
    assert_ne!(keys["primaryKey"], keys["secondaryKey"]);
}

#[tokio::test]
async fn a_full_hub_refuses_devices_and_says_how_many_it_holds() {
    let policies = Policies::clone(&client().hub.policies.load());
    let hub = Hub::new(
        Arc::new(crate::hub::store::MemoryStore::new()),
        crate::hub::Settings {
            host_name: HOST.into(),
            max_devices: 1,
            policies,
            clock: Arc::new(Stopped),
            random: Arc::new(|bytes| bytes.fill(1)),
        },
    );
    let client = Client {
        router: router(Arc::clone(&hub)),
        hub,
    };
    client
        .call("PUT /devices/press-7", None, with_key("disabled"))
        .await;
    let full = client.call("PUT /devices/other", None, json!({})).await;
    assert_eq!(full.error(), 413_002);
    assert_eq!(full.headers["iothub-errorcode"], "TooManyDevices");
    let expected = json!({ "totalDeviceCount": 1, "enabledDeviceCount": 0, "disabledDeviceCount": 1, "maxDeviceCount": 1, "isStoreFull": false });
    assert_eq!(client.get("/statistics/devices").await, expected);
    assert_eq!(
        client.get("/statistics/service").await,
        json!({ "connectedDeviceCount": 0, "telemetryMessageCount": 0 })
    );
}

#[tokio::test]
async fn requests_of_the_wrong_form_are_refused() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    for (call, body, code) in [
        ("GET /devices/a%20b", Value::Null, 400_004),
        ("GET /devices/missing", Value::Null, 404_001),
        ("GET /nothing", Value::Null, 404_000),
        ("POST /twins/press-7", Value::Null, 405_000),
        (
            "PUT /devices/press-7",
            json!({ "deviceId": "other" }),
            400_004,
        ),
        ("PUT /devices/press-7", json!([]), 400_012),
        ("PATCH /twins/press-7", json!([1]), 400_012),
        (
            "PATCH /twins/press-7",
            json!({ "tags": { "a$": 1 } }),
            400_004,
        ),
        (
            "PATCH /twins/press-7",
            json!({ "tags": { "a": "x".repeat(600_000) } }),
            413_001,
        ),
    ] {
        let reply = client.call(call, None, body).await;
        assert_eq!(reply.error(), code, "{call}: {}", reply.body);
    }
    let token = token("iothubowner");
    let uri = "/twins/press-7?api-version=2021-04-12";
    let huge = r#"{"tags":{"a":12345678901234567890123}}"#;
    let reply = client
        .send(Method::PATCH, uri, &[("Authorization", &token)], huge)
        .await;
    assert_eq!(reply.error(), 400_004);
}

#[tokio::test]
async fn a_percent_encoded_id_is_the_id() {
    let client = client();
    let created = client
        .call("PUT /devices/a%23b%25c%3Fd", None, json!({}))
        .await;
    assert_eq!(created.body["deviceId"], "a#b%c?d");
}
