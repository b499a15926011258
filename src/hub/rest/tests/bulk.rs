//! Bulk operations.

use super::*;

#[tokio::test]
async fn a_bulk_create_carries_the_whole_twin_to_another_hub() {
    let (source, target) = (client(), client());
    source
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    for value in [1.0, 2.5] {
        let body =
            json!({ "tags": { "t": value }, "properties": { "desired": { "a": { "b": value } } } });
        source.call("PATCH /twins/press-7", None, body).await;
    }
    let id = "press-7".parse().unwrap();
    let generation = source
        .hub
        .device(&id)
        .await
        .unwrap()
        .identity
        .generation_id
        .clone();
    let report = json!({ "nonce": "x", "big": 4_503_599_627_370_495_i64, "one": 1.0 });
    source
        .hub
        .report(
            &crate::hub::client::Client::from(&id),
            &generation,
            report.as_object().unwrap(),
            None,
        )
        .await
        .unwrap();
    let twin = source.get("/twins/press-7").await;

    let mut entry = with_key("disabled");
    entry.as_object_mut().unwrap().remove("deviceId");
    entry["id"] = json!("press-7");
    entry["importMode"] = json!("create");
    entry["statusReason"] = json!("rehome 4fbe 1");
    entry["tags"] = twin["tags"].clone();
    entry["properties"] = twin["properties"].clone();
    let reply = target.call("POST /devices", None, json!([entry])).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.body["isSuccessful"], true);
    assert_eq!(
        (&reply.body["errors"], &reply.body["warnings"]),
        (&json!([]), &json!([]))
    );
    let copy = target.get("/twins/press-7").await;
    assert_eq!(copy["tags"], twin["tags"]);
    assert_eq!(copy["properties"], twin["properties"]);
    assert_eq!(copy["properties"]["reported"]["$version"], 2);

    let created = &reply.body["devices"][0];
    let identity = target.get("/devices/press-7").await;
    for member in ["deviceId", "generationId", "etag"] {
        assert_eq!(created[member], identity[member]);
    }
    assert_ne!(created["generationId"], json!(generation));
    let enabled = target
        .call(
            "PUT /devices/press-7",
            created["etag"].as_str(),
            with_key("enabled"),
        )
        .await;
    assert_eq!(enabled.body["status"], "enabled");
}

#[tokio::test]
async fn bulk_entries_succeed_and_fail_on_their_own() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let reply = client
        .call(
            "POST /devices",
            None,
            json!([
                { "id": "press-7", "importMode": "create", "status": "enabled" },
                { "id": "a", "importMode": "create", "status": "enabled" },
                { "id": "b", "importMode": "update", "status": "enabled" },
                { "id": "c", "importMode": "createOrUpdate" },
                { "id": "d", "importMode": "deleteIfMatchETag" },
                { "id": "e", "moduleId": "m", "importMode": "create" },
                { "id": "f" },
                { "id": "no such id", "importMode": "create" },
                { "id": "g", "importMode": "create", "properties": { "desired": { "a.b": 1 } } },
                { "id": "h", "importMode": "update", "tags": {"a": 1} },
                { "id": "i", "importMode": "create", "status": 5 },
            ]),
        )
        .await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.headers["iothub-errorcode"],
        "BulkRegistryOperationFailure"
    );
    assert_eq!(reply.body["isSuccessful"], false);
    let errors = reply.body["errors"].as_array().unwrap();
    let found: Vec<_> = errors
        .iter()
        .map(|error| {
            (
                error["deviceId"].as_str().unwrap(),
                error["errorCode"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("press-7", "DeviceAlreadyExists"),
        ("b", "DeviceNotFound"),
        ("c", "ArgumentInvalid"),
        ("d", "PreconditionFailed"),
        ("e", "IotHubUnauthorizedAccess"),
        ("f", "ArgumentNull"),
        ("no such id", "ArgumentInvalid"),
        ("g", "ArgumentInvalid"),
        ("h", "ArgumentInvalid"),
        ("i", "DeserializationError"),
    ];
    assert_eq!(found, expected);
    assert_eq!(reply.body["devices"][0]["deviceId"], "a");

    let etag = client.get("/devices/a").await["etag"].clone();
    let twin_etag = client.get("/twins/press-7").await["etag"].clone();
    let reply = client
        .call("POST /devices", None, json!([
            { "id": "a", "importMode": "updateIfMatchETag", "eTag": etag, "status": "disabled" },
            { "id": "press-7", "importMode": "updateTwinIfMatchETag", "twinETag": twin_etag, "tags": { "x": 1 } },
        ]))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(client.get("/devices/a").await["status"], "disabled");
    assert_eq!(
        client.get("/twins/press-7").await["tags"],
        json!({ "x": 1 })
    );
    let stale = json!([{ "id": "a", "importMode": "deleteIfMatchETag", "eTag": etag },
                       { "id": "press-7", "importMode": "Delete" }]);
    let reply = client.call("POST /devices", None, stale).await;
    assert_eq!(reply.body["errors"][0]["errorCode"], "PreconditionFailed");
    assert_eq!(
        client
            .call("GET /devices/press-7", None, Value::Null)
            .await
            .error(),
        404_001
    );
}

#[tokio::test]
async fn a_bulk_request_of_the_wrong_form_is_refused_whole() {
    let client = client();
    let twice =
        json!([{ "id": "a", "importMode": "create" }, { "id": "a", "importMode": "delete" }]);
    for (body, code) in [
        (json!([]), 400_004),
        (json!({ "devices": [] }), 400_012),
        (json!(["a"]), 400_012),
        (twice, 400_011),
        (json!(vec![json!({ "id": "a" }); 101]), 400_004),
    ] {
        assert_eq!(
            client
                .call("POST /devices", None, body.clone())
                .await
                .error(),
            code,
            "{body}"
        );
    }
}
