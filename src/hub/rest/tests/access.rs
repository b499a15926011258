//! Who is let in.

use super::*;

impl Client {
    /// The status, or the number of the error where it is 401.
    async fn outcome(&self, call: &str, authorization: Option<&str>) -> u64 {
        let (method, path) = call.split_once(' ').unwrap();
        let uri = format!("{path}?api-version=2021-04-12");
        let mut headers = vec![("If-Match", "*")];
        headers.extend(authorization.map(|it| ("Authorization", it)));
        let reply = self
            .send(method.parse().unwrap(), &uri, &headers, "{}")
            .await;
        if reply.status == 401 {
            reply.error()
        } else {
            u64::from(reply.status)
        }
    }
}

#[tokio::test]
async fn only_a_token_that_a_policy_signed_for_this_hub_is_let_in() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let owner = Some("iothubowner");
    for (resource, key, expiry, policy, expected) in [
        (HOST, KEY, NOW + 60, owner, 200),
        (HOST, OTHER_KEY, NOW + 60, owner, 200),
        ("HUB-west.test", KEY, NOW + 60, owner, 200),
        ("hub-west.test%2fdevices", KEY, NOW + 60, owner, 200),
        (HOST, KEY, NOW - 299, owner, 200),
        (HOST, KEY, NOW - 300, owner, 401_003),
        (HOST, DEVICE_KEY, NOW + 60, owner, 401_003),
        (HOST, KEY, NOW + 60, Some("nobody"), 401_003),
        (HOST, KEY, NOW + 60, None, 401_003),
        ("hub-east.test", KEY, NOW + 60, owner, 401_003),
        ("hub-west.test%2Ftwins", KEY, NOW + 60, owner, 401_003),
    ] {
        let token = sign(resource, key, expiry, policy);
        let found = client.outcome("GET /devices/press-7", Some(&token)).await;
        assert_eq!(found, expected, "{token}");
    }
    for header in [Some("Bearer abc"), Some(""), None] {
        assert_eq!(
            client.outcome("GET /devices/press-7", header).await,
            401_003,
            "{header:?}"
        );
    }
}

#[tokio::test]
async fn each_call_needs_its_permission() {
    let client = client();
    client
        .call("PUT /devices/press-7", None, with_key("enabled"))
        .await;
    let refused = 401_002;
    for (policy, registry_read, registry_write, service_connect) in [
        ("iothubowner", true, true, true),
        ("service", false, false, true),
        ("registryRead", true, false, false),
        ("registryReadWrite", true, true, false),
    ] {
        let token = token(policy);
        for (call, granted, status) in [
            ("GET /devices/press-7", registry_read, 200),
            ("GET /devices", registry_read, 200),
            ("GET /devices/press-7/modules", registry_read, 200),
            ("GET /devices/press-7/modules/gauge", registry_read, 404),
            ("PUT /devices/press-7/modules/gauge", registry_write, 404),
            ("DELETE /devices/press-7/modules/gauge", registry_write, 404),
            ("GET /statistics/devices", registry_read, 200),
            ("GET /statistics/service", registry_read, 200),
            ("PUT /devices/none", registry_write, 404),
            ("DELETE /devices/none", registry_write, 404),
            ("POST /devices", registry_write, 400),
            ("GET /twins/press-7", service_connect, 200),
            ("PATCH /twins/press-7", service_connect, 200),
            ("PUT /twins/press-7", service_connect, 200),
            ("DELETE /devices/press-7/commands", service_connect, 200),
            ("GET /twins/press-7/modules/gauge", service_connect, 404),
            ("POST /twins/press-7/methods", service_connect, 400),
            (
                "POST /twins/press-7/modules/gauge/methods",
                service_connect,
                400,
            ),
            ("POST /messages/devicebound", service_connect, 400),
            ("GET /messages/events", service_connect, 200),
            ("GET /devices/press-7/messages/events", service_connect, 200),
        ] {
            let expected = if granted { status } else { refused };
            assert_eq!(
                client.outcome(call, Some(&token)).await,
                expected,
                "{policy}: {call}"
            );
        }
    }
}

#[tokio::test]
async fn an_api_version_is_required_and_any_date_will_do() {
    let client = client();
    let token = token("iothubowner");
    for (query, status) in [
        ("", 400),
        ("?api-version=", 400),
        ("?api-version=latest", 400),
        ("?api-version=2017-11-08-preview", 200),
        ("?top=1&api-version=2024-03-31", 200),
    ] {
        let uri = format!("/devices{query}");
        let reply = client
            .send(Method::GET, &uri, &[("Authorization", &token)], "")
            .await;
        assert_eq!(reply.status, status, "{query}");
    }
}

#[tokio::test]
async fn changed_policies_count_at_once() {
    let client = client();
    client.hub.set_policies(Policies::default());
    assert_eq!(
        client.call("GET /devices", None, Value::Null).await.error(),
        401_003
    );
}
