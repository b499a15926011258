//! The hub client against the real hub, in process: everything between the two is as in
//! production but the network.

#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use rehome::clock::{Clock, SystemClock};
use rehome::domain::attestation::{DeviceCredential, DeviceKeys};
use rehome::domain::identity::{Credential, IdentityChange, Mark, NewIdentity};
use rehome::domain::module::{Module, NewModule};
use rehome::domain::twin::{Content, Metadata};
use rehome::hub::Hub;
use rehome::hub::rest::Policies;
use rehome::registry::{
    Cause, ConnectionString, Created, Deleted, HubClient, HubSettings, Transport, TransportError,
};
use serde_json::json;
use tower::ServiceExt as _;

const HOST: &str = "hub-west.test";
const POLICY_KEY: &str = "cHJpbWFyeS1rZXktMDEyMw==";
const OTHER_KEY: &str = "c2Vjb25kYXJ5LWtleS0wMTIz";

/// A hub without a network in between.
struct InProcess(Router);

impl Transport for InProcess {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let router = self.0.clone();
        async move {
            let broken = |error: axum::Error| TransportError::Broken(error.to_string());
            let response = router.oneshot(request.map(Body::from)).await;
            let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes();
            Ok(Response::from_parts(parts, body))
        }
        .boxed()
    }
}

fn hub() -> HubClient {
    hub_with(
        &["RegistryRead", "RegistryWrite", "ServiceConnect"],
        POLICY_KEY,
    )
}

/// A client that signs with `key`, at a hub where `POLICY_KEY` has these permissions.
fn hub_with(permissions: &[&str], key: &str) -> HubClient {
    let policies = json!({"policies": [{"name": "operator", "permissions": permissions,
        "primaryKey": POLICY_KEY, "secondaryKey": POLICY_KEY}]});
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let random = Arc::new(|bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).unwrap());
    let policies = Policies::parse(&policies.to_string()).unwrap();
    let hub = Hub::in_memory(HOST, policies, clock.clone(), random);
    let text = format!("HostName={HOST};SharedAccessKeyName=operator;SharedAccessKey={key}");
    let settings = HubSettings {
        host_name: HOST.into(),
        endpoint: format!("https://{HOST}"),
        credentials: ConnectionString::parse(&text).unwrap(),
        rates: None,
        call_timeout: Duration::from_secs(20),
        guarantees: Vec::new(),
        observer: Arc::new(()),
    };
    let transport = Arc::new(InProcess(rehome::hub::rest::router(hub)));
    HubClient::new(settings, transport, clock)
}

fn keys() -> DeviceCredential {
    DeviceCredential::Keys(DeviceKeys {
        primary: POLICY_KEY.parse().unwrap(),
        secondary: OTHER_KEY.parse().unwrap(),
    })
}

fn new_identity(device_id: &str) -> NewIdentity {
    let map = |value: serde_json::Value| value.as_object().unwrap().clone();
    NewIdentity {
        device_id: device_id.into(),
        mark: Mark::new("uid-1", "transfer-1"),
        credential: Credential::Attested(keys()),
        edge: false,
        content: Content {
            tags: map(json!({"site": "b"})),
            desired: map(json!({"speed": 3})),
            reported: map(json!({"nonce": "n-1"})),
        },
        versions: Some((41, 7)),
        metadata: Metadata::default(),
    }
}

fn change(enabled: bool, reason: Option<&str>) -> IdentityChange {
    IdentityChange {
        enabled,
        reason: reason.map(str::to_owned),
        credential: None,
    }
}

#[tokio::test]
async fn a_device_is_created_disabled_with_all_of_its_twin_and_its_versions() {
    let hub = hub();
    hub.probe().await.unwrap();
    let new = new_identity("press%7#a?");
    let Created::New {
        generation_id,
        etag,
    } = hub.create(&new).await.unwrap()
    else {
        panic!("our hub names what it made");
    };
    let identity = hub.read("press%7#a?").await.unwrap().unwrap();
    assert_eq!(
        (identity.generation_id.as_str(), identity.etag.as_str()),
        (&*generation_id, &*etag)
    );
    assert!(!identity.enabled && identity.is_marked("uid-1", "transfer-1"));
    assert!(identity.has_credential(&keys()));
    let twin = hub.read_twin("press%7#a?").await.unwrap().unwrap();
    assert_eq!(twin.content, new.content);
    assert_eq!((twin.desired_version, twin.reported_version), (41, 7));
    assert_eq!(twin.device_etag, etag);
    assert_eq!(hub.create(&new).await.unwrap(), Created::AlreadyExists);
}

#[tokio::test]
async fn an_update_needs_the_version_that_was_read_and_keeps_the_keys() {
    let hub = hub();
    hub.create(&new_identity("d")).await.unwrap();
    let read = hub.read("d").await.unwrap().unwrap();
    let enabled = hub
        .update(&read, &change(true, read.reason.as_deref()))
        .await
        .unwrap();
    assert!(enabled.enabled && enabled.is_marked("uid-1", "transfer-1"));
    assert!(enabled.has_credential(&keys()));
    let error = hub.update(&read, &change(false, None)).await.unwrap_err();
    assert_eq!(error.cause, Cause::PreconditionFailed, "{error}");
    let error = hub.delete("d", &read.etag).await.unwrap_err();
    assert_eq!(error.cause, Cause::PreconditionFailed, "{error}");
    assert_eq!(hub.delete("d", &enabled.etag).await.unwrap(), Deleted::Gone);
    assert_eq!(
        hub.delete("d", &enabled.etag).await.unwrap(),
        Deleted::WasAbsent
    );
    assert!(hub.read("d").await.unwrap().is_none());
    assert!(hub.read_twin("d").await.unwrap().is_none());
}

#[tokio::test]
async fn a_fenced_device_s_twin_refuses_writes_and_says_so() {
    let hub = hub();
    hub.create(&new_identity("d")).await.unwrap();
    let nothing = serde_json::Map::new();
    let tags = json!({"site": "c"}).as_object().unwrap().clone();
    let twin = hub.read_twin("d").await.unwrap().unwrap();
    let error = hub
        .patch_twin("d", &twin.etag, &tags, &nothing)
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::Fenced, "{error}");
    let identity = hub.read("d").await.unwrap().unwrap();
    hub.update(&identity, &change(true, None)).await.unwrap();
    let patched = hub
        .patch_twin("d", &twin.etag, &tags, &nothing)
        .await
        .unwrap();
    assert_eq!(patched.content.tags, tags);
    assert_eq!(patched.content.desired, twin.content.desired);
    let replaced = hub
        .replace_twin("d", &patched.etag, &nothing, &nothing)
        .await
        .unwrap();
    assert!(replaced.content.tags.is_empty() && replaced.content.desired.is_empty());
    let error = hub
        .replace_twin("d", &patched.etag, &tags, &nothing)
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::PreconditionFailed, "{error}");
}

#[tokio::test]
async fn a_hub_tells_what_it_is_and_what_it_will_not_do() {
    let hub = hub();
    hub.create(&new_identity("d")).await.unwrap();
    let facts = hub.probe().await.unwrap();
    assert_eq!(facts.device_count, 1);
    assert!(facts.max_device_count.is_some());
    assert!(
        hub.guarantees("fence")
            && hub.guarantees("versions")
            && hub.guarantees("etags-unique")
            && hub.guarantees("modules")
    );
    hub.check_rights().await.unwrap();

    let wrong_key = hub_with(&["RegistryRead"], OTHER_KEY)
        .probe()
        .await
        .unwrap_err();
    assert!(
        matches!(wrong_key.cause, Cause::Unauthorized(_)),
        "{wrong_key}"
    );
    for lacking in [
        ["RegistryRead", "RegistryWrite"],
        ["RegistryRead", "ServiceConnect"],
    ] {
        let hub = hub_with(&lacking, POLICY_KEY);
        hub.probe().await.unwrap();
        let error = hub.check_rights().await.unwrap_err();
        assert!(
            matches!(error.cause, Cause::Unauthorized(_)),
            "{lacking:?}: {error}"
        );
    }
}

#[tokio::test]
async fn what_carries_our_mark_and_is_disabled_is_found() {
    let hub = hub();
    for device in ["a", "b", "c"] {
        hub.create(&new_identity(device)).await.unwrap();
    }
    let enabled = hub.read("b").await.unwrap().unwrap();
    hub.update(&enabled, &change(true, enabled.reason.as_deref()))
        .await
        .unwrap();
    let broken = hub.read("c").await.unwrap().unwrap();
    hub.update(&broken, &change(false, Some("broken pump")))
        .await
        .unwrap();
    let (marked, next) = hub.marked(None).await.unwrap();
    assert_eq!(next, None);
    let marked: Vec<_> = marked.iter().map(|one| one.device_id.as_str()).collect();
    assert_eq!(marked, ["a"]);
}

#[tokio::test]
async fn a_module_is_carried_whole_while_a_mark_holds_both_devices() {
    let (source, target) = (hub(), hub());
    for hub in [&source, &target] {
        hub.probe().await.unwrap();
        hub.create(&new_identity("press%7")).await.unwrap();
    }
    let there = target.read("press%7").await.unwrap().unwrap();
    let module = NewModule {
        device_id: "press%7".into(),
        id: "gauge#1".into(),
        managed_by: Some("line".into()),
        authentication: Some(Credential::Attested(keys()).authentication()),
        content: new_identity("press%7").content,
        versions: (41, 7),
        metadata: Metadata::default(),
        device_etag: None,
    };
    // Made while the device was free, and then held.
    let free = source.read("press%7").await.unwrap().unwrap();
    let free = source.update(&free, &change(true, None)).await.unwrap();
    let made = source.create_module(&module).await.unwrap();
    assert_eq!(made, Created::NewUnstamped);
    let held = change(false, Some("rehome uid-1 transfer-1"));
    let held = source.update(&free, &held).await.unwrap();
    assert_eq!(held.module_ids(), ["gauge#1"]);
    assert_eq!(source.modules("press%7").await.unwrap(), ["gauge#1"]);
    let read = source
        .read_module("press%7", "gauge#1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.managed_by.as_deref(), Some("line"));
    assert_eq!(source.read_module("press%7", "none").await.unwrap(), None);

    let error = target.create_module(&read.copy("press%7", None)).await;
    assert!(matches!(error.unwrap_err().cause, Cause::Refused { .. }));
    let error = target
        .create_module(&read.copy("press%7", Some("MA==")))
        .await;
    assert_eq!(error.unwrap_err().cause, Cause::PreconditionFailed);
    let copy = read.copy("press%7", Some(&there.etag));
    assert_eq!(
        target.create_module(&copy).await.unwrap(),
        Created::NewUnstamped
    );
    assert_eq!(
        target.create_module(&copy).await.unwrap(),
        Created::AlreadyExists
    );
    let found = target
        .read_module("press%7", "gauge#1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.twin.content, read.twin.content);
    assert_eq!(
        (found.twin.desired_version, found.twin.reported_version),
        (41, 7)
    );
    let keys = |module: &Module| module.authentication.as_ref().unwrap()["symmetricKey"].clone();
    assert_eq!(keys(&found), keys(&read));

    // Late, when the device was let go.
    let there = target.read("press%7").await.unwrap().unwrap();
    assert_eq!(
        there.etag,
        copy.device_etag.clone().unwrap(),
        "modules leave the device's etag"
    );
    target.update(&there, &change(true, None)).await.unwrap();
    let late = target.create_module(&copy).await;
    assert_eq!(late.unwrap_err().cause, Cause::PreconditionFailed);
    assert_eq!(
        target.modules("unknown").await.unwrap_err().cause.class(),
        "unauthorized"
    );
}
