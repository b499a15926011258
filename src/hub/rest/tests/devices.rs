//! What devices send over HTTPS, what services read of it, and messages to devices.

use super::*;

const EVENTS: &str = "/devices/press-7/messages/events";

fn device_token(id: &str, key: &str) -> String {
    sign(&format!("{HOST}%2Fdevices%2F{id}"), key, NOW + 60, None)
}

async fn with_press() -> Client {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    client
}

impl Client {
    async fn post(&self, token: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let uri = format!("{EVENTS}?api-version=2020-09-30");
        let mut all = vec![("Authorization", token)];
        all.extend(headers);
        self.send(Method::POST, &uri, &all, body.to_owned()).await
    }

    async fn message(&self, headers: &[(&str, &str)], body: &str) -> Reply {
        let token = token("service");
        let mut all = vec![("Authorization", token.as_str())];
        all.extend(headers);
        let uri = "/messages/devicebound?api-version=2021-04-12";
        self.send(Method::POST, uri, &all, body.to_owned()).await
    }
}

#[tokio::test]
async fn telemetry_over_https_is_seen_in_the_tail_with_its_properties() {
    let client = with_press().await;
    let headers = [
        ("iothub-app-line", "3"),
        ("iothub-messageid", "m-1"),
        ("content-type", "application/json"),
    ];
    let token = device_token("press-7", DEVICE_KEY);
    let sent = client.post(&token, &headers, r#"{"t":21}"#).await;
    assert_eq!((sent.status, sent.body), (204, Value::Null));
    let batch = json!([
        { "body": "Zmlyc3Q=", "properties": { "iothub-app-Line": "4", "iothub-messageid": "m-2" } },
        { "body": "second", "base64Encoded": false },
    ]);
    let kind = [("content-type", "application/vnd.microsoft.iothub.json")];
    assert_eq!(
        client.post(&token, &kind, &batch.to_string()).await.status,
        204
    );

    let tail = client.get(EVENTS).await;
    let seen: Vec<_> = tail["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["body"].as_str().unwrap(), one["properties"].clone()))
        .collect();
    let expected = [
        (r#"{"t":21}"#, json!({ "$.mid": "m-1", "line": "3" })),
        ("first", json!({ "$.mid": "m-2", "Line": "4" })),
        ("second", json!({})),
    ];
    assert_eq!(seen, expected);
    assert_eq!(tail["next"], 3);
    let rest = client.get("/messages/events?after=1&top=1").await;
    assert_eq!(rest["messages"][0]["body"], "first");
    assert_eq!(rest["messages"][0]["deviceId"], "press-7");
    assert_eq!(client.get("/messages/events?after=3").await["next"], 3);
    let counted = client.get("/statistics/devices/press-7").await;
    assert_eq!(counted["telemetryMessageCount"], 3);
}

#[tokio::test]
async fn only_the_device_itself_sends_its_telemetry() {
    let client = with_press().await;
    client.call("PUT /devices/other", None, json!({})).await;
    for (token, status) in [
        (device_token("press-7", DEVICE_KEY), 204),
        (token("iothubowner"), 204),
        (token("service"), 401),
        (device_token("press-7", OTHER_KEY), 401),
        (device_token("other", DEVICE_KEY), 401),
        (String::new(), 401),
    ] {
        let sent = client.post(&token, &[], "x").await;
        assert_eq!(sent.status, status, "{token}");
    }
    client
        .call("PUT /devices/press-7", Some("*"), with_key("disabled"))
        .await;
    let token = device_token("press-7", DEVICE_KEY);
    assert_eq!(client.post(&token, &[], "x").await.error(), 401_003);
    // A device's token opens nothing else.
    let uri = format!("{EVENTS}?api-version=2020-09-30");
    let headers = [("Authorization", token.as_str())];
    assert_eq!(
        client.send(Method::GET, &uri, &headers, "").await.error(),
        401_003
    );
    let unknown = client
        .call("GET /devices/none/messages/events", None, Value::Null)
        .await;
    assert_eq!(unknown.error(), 404_001);
}

#[tokio::test]
async fn a_message_too_large_is_refused() {
    let client = with_press().await;
    let token = device_token("press-7", DEVICE_KEY);
    let whole = "x".repeat(256 * 1024);
    assert_eq!(client.post(&token, &[], &whole).await.status, 204);
    assert_eq!(
        client.post(&token, &[], &format!("{whole}x")).await.error(),
        413_001
    );
    let to = [("iothub-to", "/devices/press-7/messages/devicebound")];
    let large = "x".repeat(64 * 1024);
    assert_eq!(client.message(&to, &large).await.error(), 413_001);
}

#[tokio::test]
async fn messages_to_a_device_wait_in_a_bounded_queue() {
    let client = with_press().await;
    let to = ("iothub-to", "/devices/press-7/messages/deviceBound");
    for _ in 0..50 {
        assert_eq!(client.message(&[to], "x").await.status, 204);
    }
    assert_eq!(client.message(&[to], "x").await.error(), 403_004);
    let twin = client.get("/twins/press-7").await;
    assert_eq!(twin["cloudToDeviceMessageCount"], 50);
    let purged = client
        .call("DELETE /devices/press-7/commands", None, Value::Null)
        .await;
    assert_eq!(purged.body["totalMessagesPurged"], 50);
    assert_eq!(
        client.get("/devices/press-7").await["cloudToDeviceMessageCount"],
        0
    );

    for (headers, number) in [
        (vec![], 400_004),
        (vec![("iothub-to", "/devices/press-7")], 400_004),
        (
            vec![("iothub-to", "/devices/none/messages/devicebound")],
            404_001,
        ),
        (vec![to, ("iothub-expiry", "tomorrow")], 400_004),
        (vec![to, ("iothub-expiry", "2020-01-01T00:00:00Z")], 400_004),
    ] {
        assert_eq!(
            client.message(&headers, "x").await.error(),
            number,
            "{headers:?}"
        );
    }
    let mut held = with_key("disabled");
    client
        .call("PUT /devices/press-7", Some("*"), held.clone())
        .await;
    assert_eq!(client.message(&[to], "x").await.error(), 404_001);
    held["statusReason"] = "rehome 4fbe 1".into();
    client.call("PUT /devices/press-7", Some("*"), held).await;
    assert_eq!(client.message(&[to], "x").await.error(), 409_000);
}

#[tokio::test]
async fn a_device_fetches_its_messages_over_https_and_settles_each() {
    let client = with_press().await;
    let to = ("iothub-to", "/devices/press-7/messages/devicebound");
    for text in ["first", "second"] {
        let headers = [to, ("iothub-messageid", text), ("iothub-app-line", "3")];
        assert_eq!(client.message(&headers, text).await.status, 204);
    }
    let token = device_token("press-7", DEVICE_KEY);
    let call = async |method: Method, path: &str| {
        let uri = format!("/devices/press-7/messages/{path}api-version=2020-09-30");
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("Authorization", &token);
        let request = request.body(Body::empty()).unwrap();
        let response = client.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        (status, headers, String::from_utf8(body.to_vec()).unwrap())
    };
    let (status, headers, body) = call(Method::GET, "deviceBound?").await;
    assert_eq!((status, body.as_str()), (200, "first"));
    assert_eq!(headers["iothub-messageid"], "first");
    assert_eq!(headers["iothub-app-line"], "3");
    assert_eq!(headers["iothub-deliverycount"], "0");
    let lock = headers["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let (_, headers, body) = call(Method::GET, "devicebound?").await;
    assert_eq!(body, "second");
    let second = headers["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    assert_eq!(call(Method::GET, "devicebound?").await.0, 204);

    let abandon = format!("devicebound/{lock}/abandon?");
    assert_eq!(call(Method::POST, &abandon).await.0, 204);
    let lost = call(Method::DELETE, &format!("devicebound/{lock}?")).await;
    assert_eq!(
        (lost.0, &lost.1["iothub-errorcode"]),
        (412, &"DeviceMessageLockLost".parse().unwrap())
    );
    let (_, headers, body) = call(Method::GET, "devicebound?").await;
    assert_eq!(
        (body.as_str(), &headers["iothub-deliverycount"]),
        ("first", &"1".parse().unwrap())
    );
    let lock = headers["etag"].to_str().unwrap().trim_matches('"');
    assert_eq!(
        call(Method::DELETE, &format!("deviceBound/{lock}?reject&"))
            .await
            .0,
        204
    );
    assert_eq!(
        call(Method::DELETE, &format!("devicebound/{second}?"))
            .await
            .0,
        204
    );
    assert_eq!(
        client.get("/devices/press-7").await["cloudToDeviceMessageCount"],
        0
    );

    let service = client.call(
        "GET /devices/press-7/messages/devicebound",
        None,
        Value::Null,
    );
    assert_eq!(
        service.await.status,
        204,
        "a policy with DeviceConnect speaks for devices"
    );
    let other = device_token("other", DEVICE_KEY);
    let uri = "/devices/press-7/messages/devicebound?api-version=2020-09-30";
    let refused = client
        .send(Method::GET, uri, &[("Authorization", &other)], "")
        .await;
    assert_eq!(refused.error(), 401_003);
}

#[tokio::test]
async fn a_method_call_is_refused_where_nobody_can_take_it() {
    let client = with_press().await;
    let call = |body: Value| client.call("POST /twins/press-7/methods", None, body);
    for (body, number) in [
        (json!({ "methodName": "reboot" }), 404_103),
        (json!({ "payload": 1 }), 400_004),
        (json!({ "methodName": "a/b" }), 400_004),
        (json!({ "methodName": "x".repeat(101) }), 400_004),
        (
            json!({ "methodName": "m", "responseTimeoutInSeconds": 4 }),
            400_004,
        ),
        (
            json!({ "methodName": "m", "connectTimeoutInSeconds": 301 }),
            400_004,
        ),
        (
            json!({ "methodName": "m", "payload": "x".repeat(128 * 1024) }),
            413_001,
        ),
        (json!({ "methodName": 1 }), 400_012),
    ] {
        assert_eq!(call(body).await.error(), number);
    }
    let body = json!({ "methodName": "m" });
    for path in ["none", "press-7/modules/none"] {
        let call = format!("POST /twins/{path}/methods");
        let reply = client.call(&call, None, body.clone()).await;
        assert_eq!(reply.error(), 404_001, "{path}");
    }
}
