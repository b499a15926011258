//! Queries.

use super::*;

impl Client {
    async fn query(&self, query: &str, headers: &[(&str, &str)]) -> Reply {
        let token = token("service");
        let mut all = vec![("Authorization", token.as_str())];
        all.extend(headers);
        let body = json!({ "query": query }).to_string();
        self.send(
            Method::POST,
            "/devices/query?api-version=2021-04-12",
            &all,
            body,
        )
        .await
    }

    async fn ids(&self, condition: &str) -> Vec<String> {
        let reply = self
            .query(
                &format!("select deviceId from devices where {condition}"),
                &[],
            )
            .await;
        assert_eq!(reply.status, 200, "{condition}: {}", reply.body);
        let items = reply.body.as_array().unwrap().iter();
        items
            .map(|item| item["deviceId"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Three devices that differ in everything a query can ask.
async fn fleet() -> Client {
    let client = client();
    let entries = json!([
        { "id": "a", "importMode": "create", "tags": { "site": "Bonn", "line": { "no": 1 }, "x-y": true } },
        { "id": "b", "importMode": "create", "status": "disabled", "statusReason": "rehome 1 2",
          "tags": { "site": "Köln", "line": { "no": 2.5 } },
          "properties": { "desired": { "rate": 5 }, "reported": { "rate": null, "fw": "1.2" } } },
        { "id": "c", "importMode": "create", "tags": { "site": "it's" }, "properties": { "reported": { "fw": "2.0" } } },
    ]);
    assert_eq!(
        client.call("POST /devices", None, entries).await.status,
        200
    );
    client
}

#[tokio::test]
async fn conditions_find_the_devices_that_meet_them() {
    let client = fleet().await;
    for (condition, expected) in [
        ("deviceId = 'b'", "b"),
        ("status = 'disabled'", "b"),
        ("STATUS = 'disabled'", ""),
        ("STARTSWITH(statusReason, 'rehome ')", "b"),
        ("connectionState = 'Disconnected'", "abc"),
        ("tags.site = \"Bonn\"", "a"),
        ("tags.site = 'it''s' or tags.site = 'K\u{f6}ln'", "bc"),
        ("tags.site <> 'Bonn'", "bc"),
        ("tags.[[x-y]] = true", "a"),
        ("tags.line.no = 1.0", "a"),
        ("tags.line.no > 1", "b"),
        ("2 >= tags.line.no", "a"),
        ("tags.line.no != 1", "b"),
        ("NOT tags.line.no = 1", "b"),
        ("NOT NOT tags.line.no = 1", "a"),
        ("tags.site < 5", ""),
        ("tags.site IN ['Bonn', 'it\\'s', 7]", "ac"),
        ("tags.site NIN ['Bonn']", "bc"),
        ("is_defined(properties.reported.fw)", "bc"),
        ("not is_defined(properties.reported.rate)", "abc"),
        (
            "properties.reported.fw < '1.5' and properties.desired.rate = 5",
            "b",
        ),
        ("properties.desired.$version = 1", "abc"),
        (
            "deviceId = 'a' or deviceId = 'b' and status = 'enabled'",
            "a",
        ),
        (
            "(deviceId = 'a' or deviceId = 'b') and status = 'disabled'",
            "b",
        ),
        (
            "capabilities.iotEdge = false and authenticationType = 'sas'",
            "abc",
        ),
    ] {
        assert_eq!(
            client.ids(condition).await.concat(),
            expected,
            "{condition}"
        );
    }
}

#[tokio::test]
async fn a_selection_is_twins_columns_or_a_count() {
    let client = fleet().await;
    let twins = client
        .query("SELECT * FROM devices WHERE status = 'disabled'", &[])
        .await;
    assert_eq!(twins.headers["x-ms-item-type"], "Twin");
    assert_eq!(twins.body, json!([client.get("/twins/b").await]));

    let text = "SELECT deviceId, tags.line.no AS line, properties.reported.fw FROM devices";
    let columns = client.query(text, &[]).await;
    assert_eq!(columns.headers["x-ms-item-type"], "Raw");
    assert_eq!(
        columns.body,
        json!([{ "deviceId": "a", "line": 1 }, { "deviceId": "b", "line": 2.5, "fw": "1.2" }, { "deviceId": "c", "fw": "2.0" }])
    );
    for (query, expected) in [
        (
            "SELECT COUNT() AS devices FROM devices",
            json!([{ "devices": 3 }]),
        ),
        (
            "SELECT COUNT() FROM devices WHERE tags.line.no > 0",
            json!([{ "count": 2 }]),
        ),
    ] {
        assert_eq!(client.query(query, &[]).await.body, expected);
    }
}

#[tokio::test]
async fn pages_continue_where_the_one_before_ended() {
    let client = client();
    for hundred in 0..5 {
        let entry = |n| json!({ "id": format!("d{hundred}{n:02}"), "importMode": "create", "tags": { "even": n % 2 == 0 } });
        let entries = (0..100).map(entry).collect::<Value>();
        assert_eq!(
            client.call("POST /devices", None, entries).await.status,
            200
        );
    }
    let (mut seen, mut continuation) = (Vec::new(), None::<String>);
    loop {
        let mut headers = vec![("x-ms-max-item-count", "60")];
        headers.extend(continuation.as_deref().map(|it| ("x-ms-continuation", it)));
        let page = client
            .query("SELECT * FROM devices WHERE tags.even = true", &headers)
            .await;
        let items = page.body.as_array().unwrap();
        assert!(items.len() <= 60);
        seen.extend(
            items
                .iter()
                .map(|twin| twin["deviceId"].as_str().unwrap().to_owned()),
        );
        match page.headers.get("x-ms-continuation") {
            Some(next) => continuation = Some(next.to_str().unwrap().to_owned()),
            None => break,
        }
    }
    assert_eq!(seen.len(), 250);
    assert!(seen.is_sorted());
    let reply = client
        .query("SELECT * FROM devices", &[("x-ms-continuation", "?")])
        .await;
    assert_eq!(reply.error(), 400_004);
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused_with_the_place() {
    let client = client();
    for (query, complaint) in [
        ("", "ends too early, where SELECT"),
        ("SELECT * FROM devices.jobs", "FROM devices and"),
        ("SELECT * FROM devices WHERE", "ends too early"),
        ("SELECT * FROM devices WHERE a =", "ends too early"),
        ("SELECT * FROM devices WHERE a ~ 1", "unexpected '~'"),
        ("SELECT * FROM devices WHERE a = 'x", "does not end"),
        ("SELECT * FROM devices WHERE a = 1-2", "for a number"),
        ("SELECT * FROM devices WHERE a IN []", "where a value"),
        ("SELECT * FROM devices GROUP BY a", "unexpected 'GROUP'"),
        ("SELECT a, FROM devices", "unexpected 'devices'"),
        (
            &format!("SELECT * FROM devices WHERE {}a = 1", "(".repeat(3000)),
            "nested too deeply",
        ),
        (&"x".repeat(9000), "longer than"),
    ] {
        let reply = client.query(query, &[]).await;
        assert_eq!(reply.error(), 400_004, "{query}");
        let message = reply.body["Message"].as_str().unwrap();
        assert!(message.contains(complaint), "{query}: {message}");
    }
}
