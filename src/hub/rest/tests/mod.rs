//! The service API as a client sees it, through the router.

mod access;
mod bulk;
mod devices;
mod identities;
mod modules;
mod query;
mod twins;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::clock::Clock;
use crate::domain::sas::SasToken;

const HOST: &str = "hub-west.test";
const NOW: i64 = 1_800_000_000;
const KEY: &str = "cHJpbWFyeS1rZXktMDEyMw==";
const OTHER_KEY: &str = "c2Vjb25kYXJ5LWtleS0wMQ==";
const DEVICE_KEY: &str = "ZGV2aWNlLWtleS0wMTIzNA==";

/// Shared, because two hubs with one source of randomness would give out one generation.
static COUNTER: AtomicU8 = AtomicU8::new(0);

pub(super) struct Client {
    hub: Arc<Hub>,
    router: Router,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

pub(super) fn client() -> Client {
    let policy = |name: &str, permissions: &[&str]| json!({ "name": name, "permissions": permissions, "primaryKey": KEY, "secondaryKey": OTHER_KEY });
    let all = [
        "RegistryRead",
        "RegistryWrite",
        "ServiceConnect",
        "DeviceConnect",
    ];
    let file = json!({ "policies": [
        policy("iothubowner", &all),
        policy("service", &["ServiceConnect"]),
        policy("registryRead", &["RegistryRead"]),
        policy("registryReadWrite", &["RegistryRead", "RegistryWrite"]),
    ] });
    let hub = Hub::in_memory(
        HOST,
        Policies::parse(&file.to_string()).unwrap(),
        Arc::new(Stopped),
        Arc::new(|bytes| bytes.fill(COUNTER.fetch_add(1, Ordering::Relaxed))),
    );
    Client {
        router: router(Arc::clone(&hub)),
        hub,
    }
}

/// A clock that stands still.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// A token for the resource in exactly this spelling.
fn sign(resource: &str, key: &str, expiry: i64, policy: Option<&str>) -> String {
    let expiry = u64::try_from(expiry).unwrap();
    SasToken::sign_literal(resource, &key.parse().unwrap(), expiry, policy)
}

fn token(policy: &str) -> String {
    sign(HOST, KEY, NOW + 3600, Some(policy))
}

impl Client {
    async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        assert!(headers.contains_key("x-ms-request-id"));
        assert_eq!(
            headers["rehome-hub"],
            "etags-unique, fence, versions, modules"
        );
        Reply {
            status,
            headers,
            body,
        }
    }

    /// With the owner's token; `call` is like "PUT /devices/a".
    pub(super) async fn call(&self, call: &str, if_match: Option<&str>, body: Value) -> Reply {
        let (method, path) = call.split_once(' ').unwrap();
        let joint = if path.contains('?') { '&' } else { '?' };
        let uri = format!("{path}{joint}api-version=2021-04-12");
        let token = token("iothubowner");
        let mut headers = vec![("Authorization", token.as_str())];
        headers.extend(if_match.map(|etag| ("If-Match", etag)));
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(method.parse().unwrap(), &uri, &headers, body)
            .await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let reply = self.call(&format!("GET {path}"), None, Value::Null).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.body
    }
}

impl Reply {
    /// The number in the body, checked against the header and the status.
    fn error(&self) -> u64 {
        let inner: Value = serde_json::from_str(self.body["Message"].as_str().unwrap()).unwrap();
        assert!(
            self.body["ExceptionMessage"]
                .as_str()
                .unwrap()
                .starts_with("Tracking ID:")
        );
        let number = inner["errorCode"].as_u64().unwrap();
        assert_eq!(u64::from(self.status), number / 1000);
        assert!(!inner["message"].as_str().unwrap().is_empty());
        assert!(self.headers.contains_key("iothub-errorcode"));
        number
    }

    fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

fn with_key(status: &str) -> Value {
    let keys = json!({ "primaryKey": DEVICE_KEY, "secondaryKey": DEVICE_KEY });
    json!({ "deviceId": "press-7", "status": status, "authentication": { "type": "sas", "symmetricKey": keys } })
}
