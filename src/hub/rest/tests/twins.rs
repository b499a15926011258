//! Twins, their preconditions and the fence.

use super::*;

#[tokio::test]
async fn a_fresh_twin_is_shown_as_iot_hub_shows_it() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let at = "2027-01-15T08:00:00.0000000Z";
    let section = |metadata: Value| json!({ "$version": 1, "$metadata": metadata });
    assert_eq!(
        client.get("/twins/press-7").await,
        json!({
            "deviceId": "press-7",
            "etag": "AAAAAAAAAAE=",
            "deviceEtag": "MQ==",
            "version": 2,
            "modelId": "",
            "status": "enabled",
            "statusReason": null,
            "statusUpdateTime": "0001-01-01T00:00:00Z",
            "connectionState": "Disconnected",
            "lastActivityTime": "0001-01-01T00:00:00Z",
            "cloudToDeviceMessageCount": 0,
            "authenticationType": "sas",
            "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
            "capabilities": { "iotEdge": false },
            "tags": {},
            "properties": {
                "desired": section(json!({ "$lastUpdated": at, "$lastUpdatedVersion": 1 })),
                "reported": section(json!({ "$lastUpdated": at })),
            },
        })
    );
}

#[tokio::test]
async fn twin_preconditions_follow_the_table() {
    let client = client();
    let patch = json!({ "tags": { "line": 3 } });
    assert_eq!(
        client
            .call("PATCH /twins/press-7", None, patch.clone())
            .await
            .error(),
        404_001
    );
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let before = client.get("/twins/press-7").await;
    let first = client
        .call("PATCH /twins/press-7", None, patch.clone())
        .await;
    assert_eq!(
        (first.status, &first.body["tags"]),
        (200, &json!({ "line": 3 }))
    );
    assert_ne!(first.body["etag"], before["etag"]);
    assert_eq!(first.body["deviceEtag"], before["deviceEtag"]);
    for method in ["PATCH", "PUT"] {
        let call = format!("{method} /twins/press-7");
        let stale = before["etag"].as_str();
        assert_eq!(
            client.call(&call, stale, patch.clone()).await.error(),
            412_001
        );
        assert_eq!(
            client
                .call(&call, Some("\"*\""), patch.clone())
                .await
                .status,
            200
        );
        let current = client.get("/twins/press-7").await;
        assert_eq!(
            client
                .call(&call, current["etag"].as_str(), patch.clone())
                .await
                .status,
            200
        );
    }
    let body = json!({ "properties": { "desired": { "a": 1 } } });
    let replaced = client.call("PUT /twins/press-7", None, body).await.body;
    assert_eq!(replaced["tags"], json!({}));
    assert_eq!(replaced["properties"]["desired"]["a"], 1);
}

#[tokio::test]
async fn a_move_s_mark_on_a_disabled_identity_fences_its_twin() {
    let client = client();
    let identity = |status, reason| {
        let mut body = with_key(status);
        body["statusReason"] = reason;
        body
    };
    client
        .call(
            "PUT /devices/press-7",
            None,
            identity("disabled", json!("broken seal")),
        )
        .await;
    let tags = json!({ "tags": { "a": 1 } });
    assert_eq!(
        client
            .call("PATCH /twins/press-7", None, tags.clone())
            .await
            .status,
        200
    );

    let mark = json!("rehome 4fbe 1");
    let fenced = client
        .call(
            "PUT /devices/press-7",
            Some("*"),
            identity("disabled", mark.clone()),
        )
        .await;
    assert_eq!(fenced.status, 200);
    for method in ["PATCH", "PUT"] {
        let refused = client
            .call(&format!("{method} /twins/press-7"), Some("*"), tags.clone())
            .await;
        assert_eq!(refused.error(), 409_000);
        assert_eq!(refused.headers["iothub-errorcode"], "GenericConflict");
    }
    let entry = json!([{ "id": "press-7", "importMode": "updateTwin", "tags": { "a": 2 } }]);
    let bulk = client.call("POST /devices", None, entry).await;
    assert_eq!(bulk.body["errors"][0]["errorCode"], "GenericConflict");
    assert_eq!(
        client.get("/twins/press-7").await["tags"],
        json!({ "a": 1 })
    );

    let enabled = client
        .call(
            "PUT /devices/press-7",
            Some(&fenced.etag()),
            identity("enabled", mark),
        )
        .await;
    assert_eq!(enabled.status, 200);
    assert_eq!(
        client.call("PATCH /twins/press-7", None, tags).await.status,
        200
    );
}

#[tokio::test]
async fn thirty_writers_of_one_twin_lose_nothing() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let writers = (0..30).map(|n| {
        let body = json!({ "properties": { "desired": { format!("w{n}"): n } } });
        client.call("PATCH /twins/press-7", Some("*"), body)
    });
    for reply in futures::future::join_all(writers).await {
        assert_eq!(reply.status, 200);
    }
    let desired = client.get("/twins/press-7").await["properties"]["desired"].clone();
    assert_eq!(desired["$version"], 31);
    assert!((0..30).all(|n| desired[format!("w{n}")] == n));
}

#[tokio::test]
async fn a_device_s_report_is_refused_as_its_identity_demands() {
    let client = client();
    let created = client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let generation = created.body["generationId"].as_str().unwrap();
    let id = crate::hub::client::Client::from(&"press-7".parse().unwrap());
    let patch = json!({ "a": 1 });
    let report = async |generation: &str| {
        let patch = patch.as_object().unwrap();
        let reported = client.hub.report(&id, generation, patch, None).await;
        reported.map_err(|refusal| refusal.code)
    };
    assert_eq!(report(generation).await, Ok(2));
    assert_eq!(report("another").await, Err(ErrorCode::DeviceNotFound));
    for (reason, code) in [
        ("broken seal", ErrorCode::DeviceDisabled),
        ("rehome 4fbe 1", ErrorCode::GenericConflict),
    ] {
        let mut body = with_key("disabled");
        body["statusReason"] = reason.into();
        client.call("PUT /devices/press-7", Some("*"), body).await;
        assert_eq!(report(generation).await, Err(code));
    }
    client
        .call("PUT /devices/press-7", Some("*"), with_key("enabled"))
        .await;
    assert_eq!(report(generation).await, Ok(3));
}

#[tokio::test]
async fn times_do_not_go_back_with_the_clock() {
    let settings = |clock: Arc<dyn Clock>| crate::hub::Settings {
        host_name: HOST.into(),
        max_devices: 1,
        policies: Policies::clone(&client().hub.policies.load()),
        clock,
        random: Arc::new(|bytes| bytes.fill(1)),
    };
    let store = crate::hub::store::MemoryStore::new();
    let ahead = Hub::new(Arc::new(store.clone()), settings(Arc::new(Ahead)));
    let behind = Hub::new(Arc::new(store), settings(Arc::new(Stopped)));
    let created = ahead.bulk(vec![
        json!({ "id": "press-7", "importMode": "create" })
            .as_object()
            .unwrap()
            .clone(),
    ]);
    assert!(created.await.unwrap().errors.is_empty());
    let client = Client {
        router: router(Arc::clone(&behind)),
        hub: behind,
    };
    let body = json!({ "properties": { "desired": { "a": 1 } } });
    let written = client.call("PATCH /twins/press-7", None, body).await.body;
    let at = &written["properties"]["desired"]["$metadata"]["a"]["$lastUpdated"];
    assert_eq!(at, "2027-01-15T09:00:00.0000000Z");
}

/// An hour ahead of [`Stopped`].
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW + 3600).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}
