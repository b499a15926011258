//! Modules.

use super::*;

const GAUGE: &str = "/devices/press-7/modules/gauge";
const GAUGE_TWIN: &str = "/twins/press-7/modules/gauge";

async fn with_press() -> Client {
    let client = client();
    let created = client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    assert_eq!(created.status, 200);
    client
}

async fn with_gauge() -> Client {
    let client = with_press().await;
    let created = client.call(&format!("PUT {GAUGE}"), None, json!({})).await;
    assert_eq!(created.status, 200, "{}", created.body);
    client
}

/// Disables the device; a reason that begins with `rehome ` holds it for a move.
async fn disable(client: &Client, reason: &str) -> String {
    let mut body = with_key("disabled");
    body["statusReason"] = reason.into();
    let disabled = client.call("PUT /devices/press-7", Some("*"), body).await;
    assert_eq!(disabled.status, 200);
    disabled.etag()
}

#[tokio::test]
async fn a_module_is_created_read_updated_and_deleted() {
    let client = with_press().await;
    let keys = json!({ "primaryKey": DEVICE_KEY, "secondaryKey": OTHER_KEY });
    let body = json!({ "deviceId": "press-7", "moduleId": "gauge", "managedBy": "line",
                       "authentication": { "type": "sas", "symmetricKey": keys } });
    let created = client.call(&format!("PUT {GAUGE}"), None, body).await;
    assert_eq!(created.status, 200, "{}", created.body);
    assert_eq!(created.body["managedBy"], "line");
    assert_eq!(created.body["connectionState"], "Disconnected");
    assert_eq!(created.body["authentication"]["symmetricKey"], keys);
    assert!(created.body.get("status").is_none());
    assert_eq!(client.get(GAUGE).await, created.body);
    let listed = client.get("/devices/press-7/modules").await;
    assert_eq!(listed, json!([created.body]));
    assert_eq!(
        client.get("/devices/press-7").await["moduleIds"],
        json!(["gauge"])
    );

    let again = client.call(&format!("PUT {GAUGE}"), None, json!({})).await;
    assert_eq!(again.error(), 409_301);
    let stale = client
        .call(&format!("PUT {GAUGE}"), Some("\"MA==\""), json!({}))
        .await;
    assert_eq!(stale.error(), 412_001);
    let none = json!({ "authentication": { "type": "none" } });
    let updated = client
        .call(&format!("PUT {GAUGE}"), Some(&created.etag()), none)
        .await;
    assert_eq!(updated.status, 200, "{}", updated.body);
    assert_eq!(updated.body["managedBy"], Value::Null);
    assert_eq!(updated.body["generationId"], created.body["generationId"]);
    assert_eq!(updated.body["authentication"]["type"], "sas");
    assert_ne!(updated.body["authentication"]["symmetricKey"], keys);

    let delete = format!("DELETE {GAUGE}");
    assert_eq!(
        client.call(&delete, None, Value::Null).await.error(),
        412_001
    );
    let stale = client
        .call(&delete, Some(&created.etag()), Value::Null)
        .await;
    assert_eq!(stale.error(), 412_001);
    let deleted = client
        .call(&delete, Some(&updated.etag()), Value::Null)
        .await;
    assert_eq!(deleted.status, 204);
    assert_eq!(
        client.call(&delete, Some("*"), Value::Null).await.error(),
        404_010
    );
    let gone = client
        .call(&format!("GET {GAUGE}"), None, Value::Null)
        .await;
    assert_eq!(gone.error(), 404_010);
}

#[tokio::test]
async fn what_is_no_module_is_refused() {
    let client = with_gauge().await;
    for (call, body, number) in [
        (
            "PUT /devices/press-7/modules/$edgeAgent",
            json!({}),
            400_004,
        ),
        ("PUT /devices/press-7/modules/a%20b", json!({}), 400_004),
        (
            "PUT /devices/press-7/modules/m",
            json!({ "moduleId": "n" }),
            400_004,
        ),
        (
            "PUT /devices/press-7/modules/m",
            json!({ "deviceId": "n" }),
            400_004,
        ),
        (
            "PUT /devices/press-7/modules/m",
            json!({ "managedBy": "x".repeat(129) }),
            400_004,
        ),
        ("PUT /devices/none/modules/m", json!({}), 401_002),
        ("GET /devices/none/modules", Value::Null, 401_002),
        ("GET /twins/press-7/modules/none", Value::Null, 404_001),
        ("GET /twins/none/modules/gauge", Value::Null, 404_001),
    ] {
        let reply = client.call(call, None, body).await;
        assert_eq!(reply.error(), number, "{call}");
    }
    for number in 1..50 {
        let call = format!("PUT /devices/press-7/modules/m{number}");
        assert_eq!(client.call(&call, None, json!({})).await.status, 200);
    }
    let one_more = client
        .call("PUT /devices/press-7/modules/more", None, json!({}))
        .await;
    assert_eq!(one_more.error(), 413_003);
}

#[tokio::test]
async fn a_module_s_twin_is_its_own() {
    let client = with_gauge().await;
    let twin = client.get(GAUGE_TWIN).await;
    assert_eq!(
        (&twin["deviceId"], &twin["moduleId"]),
        (&json!("press-7"), &json!("gauge"))
    );
    assert_eq!(twin["properties"]["desired"]["$version"], 1);
    let body = json!({ "tags": { "t": 1 }, "properties": { "desired": { "rate": 5 } } });
    let etag = twin["etag"].as_str().unwrap();
    let patched = client
        .call(&format!("PATCH {GAUGE_TWIN}"), Some(etag), body)
        .await;
    assert_eq!(patched.status, 200);
    assert_eq!(patched.body["properties"]["desired"]["rate"], 5);
    let stale = client
        .call(&format!("PATCH {GAUGE_TWIN}"), Some(etag), json!({}))
        .await;
    assert_eq!(stale.error(), 412_001);
    let device = client.get("/twins/press-7").await;
    assert_eq!(
        (
            &device["tags"],
            &device["properties"]["desired"]["$version"]
        ),
        (&json!({}), &json!(1))
    );
    let replaced = client
        .call(&format!("PUT {GAUGE_TWIN}"), None, json!({}))
        .await;
    assert_eq!(replaced.body["tags"], json!({}));
}

#[tokio::test]
async fn modules_go_with_their_device() {
    let client = with_gauge().await;
    let removed = client
        .call("DELETE /devices/press-7", Some("*"), Value::Null)
        .await;
    assert_eq!(removed.status, 204);
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    assert_eq!(client.get("/devices/press-7/modules").await, json!([]));
}

#[tokio::test]
async fn an_update_of_the_device_leaves_its_modules_alone() {
    let client = with_gauge().await;
    let before = client.get(GAUGE).await;
    client
        .call("PUT /devices/press-7", Some("*"), with_key("enabled"))
        .await;
    assert_eq!(client.get(GAUGE).await, before);
}

#[tokio::test]
async fn a_disabled_device_takes_module_twins_and_no_module_identities() {
    let client = with_gauge().await;
    disable(&client, "broken seal").await;
    for call in [
        "GET /devices/press-7/modules",
        "GET /devices/press-7/modules/gauge",
        "PUT /devices/press-7/modules/gauge",
        "PUT /devices/press-7/modules/new",
        "DELETE /devices/press-7/modules/gauge",
    ] {
        let reply = client.call(call, Some("*"), json!({})).await;
        assert_eq!(reply.error(), 401_002, "{call}");
    }
    let patched = client
        .call(&format!("PATCH {GAUGE_TWIN}"), None, json!({}))
        .await;
    assert_eq!(patched.status, 200);
}

#[tokio::test]
async fn a_device_held_by_a_move_shows_its_modules_and_takes_no_write_to_them() {
    let client = with_gauge().await;
    let module = client.get(GAUGE).await;
    disable(&client, "rehome 4fbe 1").await;
    assert_eq!(client.get(GAUGE).await, module);
    assert_eq!(
        client.get("/devices/press-7").await["moduleIds"],
        json!(["gauge"])
    );
    client.get(GAUGE_TWIN).await;
    for call in [
        "PATCH /twins/press-7/modules/gauge",
        "PUT /twins/press-7/modules/gauge",
        "PUT /devices/press-7/modules/gauge",
        "PUT /devices/press-7/modules/new",
        "DELETE /devices/press-7/modules/gauge",
    ] {
        let reply = client.call(call, Some("*"), json!({})).await;
        assert_eq!(reply.error(), 409_000, "{call}");
    }
}

#[tokio::test]
async fn a_bulk_create_carries_a_whole_module_to_a_held_device_that_nobody_touched() {
    let (source, target) = (with_gauge().await, with_press().await);
    let patch = json!({ "tags": { "t": 1 }, "properties": { "desired": { "rate": 5 } } });
    source
        .call(&format!("PATCH {GAUGE_TWIN}"), None, patch)
        .await;
    let (module, twin) = (source.get(GAUGE).await, source.get(GAUGE_TWIN).await);
    let etag = disable(&target, "rehome 4fbe 1").await;
    let entry = |device_etag: Option<&str>| {
        let mut entry = json!({ "id": "press-7", "moduleId": "gauge", "importMode": "create",
            "managedBy": module["managedBy"], "authentication": module["authentication"],
            "tags": twin["tags"], "properties": twin["properties"] });
        if let Some(etag) = device_etag {
            entry["deviceETag"] = etag.into();
        }
        json!([entry])
    };
    let code = |reply: Reply| reply.body["errors"][0]["errorCode"].clone();
    let bare = target.call("POST /devices", None, entry(None)).await;
    assert_eq!(code(bare), "GenericConflict");
    let other = target
        .call("POST /devices", None, entry(Some("\"MA==\"")))
        .await;
    assert_eq!(code(other), "PreconditionFailed");
    let any = target.call("POST /devices", None, entry(Some("*"))).await;
    assert_eq!(code(any), "GenericConflict");
    let created = target.call("POST /devices", None, entry(Some(&etag))).await;
    assert_eq!(created.status, 200, "{}", created.body);
    let copy = target.get(GAUGE_TWIN).await;
    assert_eq!(copy["tags"], twin["tags"]);
    assert_eq!(copy["properties"], twin["properties"]);
    assert_eq!(
        target.get(GAUGE).await["authentication"],
        module["authentication"]
    );

    // A late one, once the device is let go, creates nothing.
    target
        .call(&format!("DELETE {GAUGE}"), Some("*"), Value::Null)
        .await;
    target
        .call("PUT /devices/press-7", Some("*"), with_key("enabled"))
        .await;
    target
        .call(&format!("DELETE {GAUGE}"), Some("*"), Value::Null)
        .await;
    let late = target.call("POST /devices", None, entry(Some(&etag))).await;
    assert_eq!(late.body["errors"][0]["moduleId"], "gauge");
    assert_eq!(code(late), "PreconditionFailed");
}

#[tokio::test]
async fn modules_are_queried_page_by_page() {
    let client = client();
    let mut entries = Vec::new();
    for device in ["a", "b", "c"] {
        entries.push(json!({ "id": device, "importMode": "create" }));
    }
    client.call("POST /devices", None, json!(entries)).await;
    let mut entries = Vec::new();
    for (device, module) in [("a", "m"), ("a", "n"), ("a", "o"), ("c", "m")] {
        entries.push(
            json!({ "id": device, "moduleId": module, "importMode": "create",
                             "tags": { "site": device } }),
        );
    }
    client.call("POST /devices", None, json!(entries)).await;
    let token = token("service");
    let ask = async |query: &str, page: &str, continuation: &str| {
        let headers = [
            ("Authorization", token.as_str()),
            ("x-ms-max-item-count", page),
            ("x-ms-continuation", continuation),
        ];
        let uri = "/devices/query?api-version=2021-04-12";
        let body = json!({ "query": query }).to_string();
        client.send(Method::POST, uri, &headers, body).await
    };
    for page in ["1", "2", "3", "9"] {
        let (mut seen, mut continuation) = (Vec::new(), String::new());
        loop {
            let query = "SELECT deviceId, moduleId FROM devices.modules";
            let reply = ask(query, page, &continuation).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            for item in reply.body.as_array().unwrap() {
                let text = |name: &str| item[name].as_str().unwrap().to_owned();
                seen.push(format!("{}/{}", text("deviceId"), text("moduleId")));
            }
            match reply.headers.get("x-ms-continuation") {
                Some(next) => next.to_str().unwrap().clone_into(&mut continuation),
                None => break,
            }
        }
        assert_eq!(seen, ["a/m", "a/n", "a/o", "c/m"], "pages of {page}");
    }
    let found = ask(
        "SELECT * FROM devices.modules WHERE tags.site = 'c'",
        "9",
        "",
    )
    .await;
    assert_eq!(found.body[0]["moduleId"], "m");
    let count = ask(
        "SELECT COUNT() FROM devices.modules WHERE moduleId = 'm'",
        "9",
        "",
    )
    .await;
    assert_eq!(count.body, json!([{ "count": 2 }]));
}
