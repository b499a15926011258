//! The hub client's requests, byte for byte, and what it concludes from the answers that Azure's
//! documentation shows.

#![cfg(test)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
use rehome::clock::Clock;
use rehome::domain::identity::{Credential, IdentityChange, Mark, NewIdentity};
use rehome::domain::twin::{Content, Metadata};
use rehome::registry::{
    Cause, ConnectionString, Created, Deleted, HubClient, HubSettings, Transport, TransportError,
};
use serde_json::{Value, json};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Answers with what was recorded, and keeps what it was asked.
#[derive(Default)]
struct Recorded {
    asked: Mutex<Vec<Request<Bytes>>>,
    answers: Mutex<VecDeque<Answer>>,
}

enum Answer {
    Gives(Response<Bytes>),
    Fails(TransportError),
    Hangs,
}

impl Transport for Recorded {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        self.asked.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop_front().unwrap();
        async move {
            match answer {
                Answer::Gives(response) => Ok(response),
                Answer::Fails(error) => Err(error),
                Answer::Hangs => std::future::pending().await,
            }
        }
        .boxed()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    Answer::Gives(response.body(body.into()).unwrap())
}

fn hub(answers: impl IntoIterator<Item = Answer>) -> (HubClient, Arc<Recorded>) {
    let recorded = Arc::new(Recorded {
        answers: Mutex::new(answers.into_iter().collect()),
        ..Recorded::default()
    });
    let credentials = "HostName=hub-west.example.com;SharedAccessKeyName=iothubowner;\
                       SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ=";
    let settings = HubSettings {
        host_name: "hub-west.example.com".into(),
        endpoint: "https://hub-west.example.com:8443".into(),
        credentials: ConnectionString::parse(credentials).unwrap(),
        rates: None,
        call_timeout: Duration::from_secs(20),
        guarantees: Vec::new(),
        observer: Arc::new(()),
    };
    let client = HubClient::new(settings, recorded.clone(), Arc::new(Noon));
    (client, recorded)
}

impl Recorded {
    /// Method, path and the headers that matter of the only request, and its body.
    fn only(&self) -> (String, Option<String>, Value) {
        let asked = self.asked.lock().unwrap();
        let [request] = asked.as_slice() else {
            panic!("{} requests", asked.len());
        };
        let authorization = request.headers()["authorization"].to_str().unwrap();
        assert!(
            authorization.starts_with("SharedAccessSignature sr=hub-west.example.com&sig="),
            "{authorization}"
        );
        assert!(
            authorization.ends_with("&se=1700003600&skn=iothubowner"),
            "{authorization}"
        );
        let if_match = request.headers().get("if-match");
        let body = serde_json::from_slice(request.body()).unwrap_or_default();
        (
            format!("{} {}", request.method(), request.uri()),
            if_match.map(|value| value.to_str().unwrap().to_owned()),
            body,
        )
    }
}

fn device(status: &str) -> Value {
    json!({"deviceId": "press 7", "generationId": "638", "etag": "MTIz", "status": status,
        "statusReason": "rehome u t", "connectionState": "Disconnected",
        "authentication": {"type": "sas",
            "symmetricKey": {"primaryKey": "YWFh", "secondaryKey": "YmJi"}},
        "capabilities": {"iotEdge": false}})
}

fn new_identity() -> NewIdentity {
    NewIdentity {
        device_id: "press 7".into(),
        mark: Mark::new("u", "t"),
        credential: Credential::Copied(json!({"type": "sas",
            "symmetricKey": {"primaryKey": "YWFh", "secondaryKey": "YmJi"}})),
        edge: false,
        content: Content {
            tags: json!({"site": "b"}).as_object().unwrap().clone(),
            ..Content::default()
        },
        versions: None,
        metadata: Metadata::default(),
    }
}

#[tokio::test]
async fn an_identity_is_read_by_its_encoded_id() {
    let (hub, recorded) = hub([answer(200, &[("etag", "\"OTk=\"")], &device("enabled"))]);
    let identity = hub.read("press 7").await.unwrap().unwrap();
    assert_eq!(identity.etag, "OTk=");
    assert!(identity.enabled && identity.is_marked("u", "t"));
    let (line, if_match, _) = recorded.only();
    assert_eq!(
        line,
        "GET https://hub-west.example.com:8443/devices/press%207?api-version=2021-04-12"
    );
    assert_eq!(if_match, None);
}

#[tokio::test]
async fn a_create_is_one_bulk_call_with_identity_and_twin() {
    let made = json!({"isSuccessful": true, "errors": [], "warnings": [],
        "devices": [{"deviceId": "press 7", "generationId": "639", "etag": "MA=="}]});
    let (hub, recorded) = hub([answer(200, &[], &made)]);
    let created = hub.create(&new_identity()).await.unwrap();
    let expected = Created::New {
        generation_id: "639".into(),
        etag: "MA==".into(),
    };
    assert_eq!(created, expected);
    let (line, _, body) = recorded.only();
    assert_eq!(
        line,
        "POST https://hub-west.example.com:8443/devices?api-version=2021-04-12"
    );
    assert_eq!(
        body,
        json!([{"id": "press 7", "importMode": "create", "status": "disabled",
            "statusReason": "rehome u t",
            "authentication": {"type": "sas",
                "symmetricKey": {"primaryKey": "YWFh", "secondaryKey": "YmJi"}},
            "capabilities": {"iotEdge": false}, "tags": {"site": "b"},
            "properties": {"desired": {}, "reported": {}}}])
    );
}

#[tokio::test]
async fn a_create_ends_as_azure_documents_it() {
    let plain = json!({"isSuccessful": true, "errors": [], "warnings": []});
    let warning = json!({"isSuccessful": true, "errors": [], "warnings": [
        {"deviceId": "press 7", "warningCode": "DeviceRegisteredWithoutTwin", "warningStatus": ""}]});
    let taken = |code: Value| {
        json!({"isSuccessful": false, "warnings": [],
            "errors": [{"deviceId": "press 7", "errorCode": code, "errorStatus": "exists"}]})
    };
    let bulk: &[_] = &[("iothub-errorcode", "BulkRegistryOperationFailure")];
    for (given, expected) in [
        (answer(200, &[], &plain), Created::NewUnstamped),
        (answer(200, &[], &warning), Created::WithoutTwin),
        (
            answer(400, bulk, &taken(json!("DeviceAlreadyExists"))),
            Created::AlreadyExists,
        ),
        (
            answer(400, bulk, &taken(json!(409_001))),
            Created::AlreadyExists,
        ),
    ] {
        let (hub, _) = hub([given]);
        assert_eq!(hub.create(&new_identity()).await.unwrap(), expected);
    }
    let (hub, _) = hub([answer(400, bulk, &taken(json!("TooManyDevices")))]);
    let error = hub.create(&new_identity()).await.unwrap_err();
    assert!(
        matches!(error.cause, Cause::Refused { status: 413, .. }),
        "{error}"
    );
    assert!(!error.to_string().contains("YWFh"));
}

#[tokio::test]
async fn an_update_sends_the_whole_identity_under_its_etag() {
    let (hub, recorded) = hub([
        answer(200, &[], &device("enabled")),
        answer(200, &[("etag", "\"MTI0\"")], &device("disabled")),
    ]);
    let identity = hub.read("press 7").await.unwrap().unwrap();
    recorded.asked.lock().unwrap().clear();
    let change = IdentityChange {
        enabled: false,
        reason: None,
        credential: None,
    };
    let fenced = hub.update(&identity, &change).await.unwrap();
    assert!(!fenced.enabled);
    let (line, if_match, body) = recorded.only();
    assert!(line.starts_with("PUT https://hub-west.example.com:8443/devices/press%207?"));
    assert_eq!(if_match.unwrap(), "\"MTIz\"");
    let mut expected = device("disabled");
    expected["statusReason"] = Value::Null;
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_delete_of_what_is_gone_is_told_apart() {
    let gone = [("iothub-errorcode", "DeviceNotFound")];
    let (hub, recorded) = hub([answer(204, &[], &Value::Null)]);
    assert_eq!(hub.delete("a#b", "MTIz").await.unwrap(), Deleted::Gone);
    let (line, if_match, _) = recorded.only();
    assert!(line.starts_with("DELETE https://hub-west.example.com:8443/devices/a%23b?"));
    assert_eq!(if_match.unwrap(), "\"MTIz\"");

    let (hub, _) = self::hub([
        answer(404, &gone, &Value::Null),
        answer(
            412,
            &[("iothub-errorcode", "PreconditionFailed")],
            &Value::Null,
        ),
        answer(404, &[], &Value::Null),
    ]);
    assert_eq!(hub.delete("d", "e").await.unwrap(), Deleted::WasAbsent);
    let stale = hub.delete("d", "e").await.unwrap_err();
    assert_eq!(stale.cause, Cause::PreconditionFailed);
    let elsewhere = hub.delete("d", "e").await.unwrap_err();
    assert!(
        matches!(elsewhere.cause, Cause::Unreachable(_)),
        "{elsewhere}"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_and_a_broken_connection_leave_open_what_happened() {
    let (hub, _) = hub([
        Answer::Hangs,
        Answer::Fails(TransportError::Broken("reset".into())),
        Answer::Fails(TransportError::Unreachable("connection refused".into())),
        answer(200, &[], &json!({"isSuccessful": "what"})),
    ]);
    let start = tokio::time::Instant::now();
    for expected in [
        "fate-unknown",
        "fate-unknown",
        "unreachable",
        "fate-unknown",
    ] {
        let error = hub.create(&new_identity()).await.unwrap_err();
        assert_eq!(error.cause.class(), expected, "{error}");
        assert_eq!(error.is_without_effect(), expected == "unreachable");
    }
    assert!(start.elapsed() <= hub.settling_time());
}

#[tokio::test]
async fn a_probe_learns_what_the_hub_guarantees() {
    let counts = json!({"totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1});
    let mut full = counts.clone();
    full["isStoreFull"] = true.into();
    let (hub, _) = hub([
        answer(200, &[("rehome-hub", "fence, versions")], &counts),
        answer(200, &[], &counts),
        answer(200, &[], &full),
    ]);
    let facts = hub.probe().await.unwrap();
    assert_eq!(facts.guarantees, ["fence", "versions"]);
    assert_eq!((facts.device_count, facts.max_device_count), (3, None));
    assert!(hub.guarantees("versions"));
    let facts = hub.probe().await.unwrap();
    assert!(!hub.guarantees("versions") && !facts.is_store_full);
    assert!(hub.probe().await.unwrap().is_store_full);
}

#[tokio::test]
async fn rights_are_checked_without_touching_a_device() {
    let absent = [("iothub-errorcode", "DeviceNotFound")];
    let refused = [("iothub-errorcode", "IotHubUnauthorizedAccess")];
    let (hub, recorded) = hub([
        answer(404, &absent, &Value::Null),
        answer(404, &absent, &Value::Null),
        answer(404, &absent, &Value::Null),
        answer(401, &refused, &Value::Null),
    ]);
    hub.check_rights().await.unwrap();
    let error = hub.check_rights().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unauthorized(_)));
    assert!(error.to_string().contains("RegistryWrite"));
    let asked = recorded.asked.lock().unwrap();
    assert_eq!(asked[1].headers()["if-match"], "\"rehome\"");
}

#[tokio::test]
async fn only_marked_identities_are_listed_and_pages_are_followed() {
    let page = json!([
        {"deviceId": "a", "statusReason": "rehome u1 t1", "status": "disabled"},
        {"deviceId": "b", "statusReason": "broken pump", "status": "disabled"},
        {"deviceId": "c", "status": "disabled"}]);
    let (hub, recorded) = hub([
        answer(200, &[("x-ms-continuation", "next-page")], &page),
        answer(200, &[], &json!([])),
    ]);
    let (marked, next) = hub.marked(None).await.unwrap();
    assert_eq!(marked.len(), 1);
    assert_eq!(
        (
            marked[0].device_id.as_str(),
            marked[0].mark.transfer.as_str()
        ),
        ("a", "t1")
    );
    let (_, end) = hub.marked(next.as_deref()).await.unwrap();
    assert_eq!(end, None);
    let asked = recorded.asked.lock().unwrap();
    assert_eq!(asked[1].headers()["x-ms-continuation"], "next-page");
}

#[tokio::test]
async fn a_module_s_identity_that_is_not_shown_leaves_its_twin() {
    let refusal = json!({ "Message": "{\"errorCode\":401002,\"message\":\"Unauthorized\"}" });
    let twin = json!({ "deviceId": "d", "moduleId": "m", "etag": "AAAAAAAAAAE=",
        "deviceEtag": "MA==", "properties": {
            "desired": { "speed": 3, "$version": 4 }, "reported": { "$version": 1 } } });
    let headers = [("iothub-errorcode", "IotHubUnauthorizedAccess")];
    let (hub, _) = hub([answer(401, &headers, &refusal), answer(200, &[], &twin)]);
    let module = hub.read_module("d", "m").await.unwrap().unwrap();
    assert_eq!(module.authentication, None);
    assert_eq!(module.twin.desired_version, 4);
    let missing = json!({ "Message": "{\"errorCode\":404010,\"message\":\"none\"}" });
    let headers = [("iothub-errorcode", "ModuleNotFound")];
    let (hub, _) = self::hub([answer(404, &headers, &missing)]);
    assert_eq!(hub.read_module("d", "m").await.unwrap(), None);
}

#[tokio::test]
async fn a_hub_without_modules_has_none_to_list() {
    let refusal = json!({ "Message": "{\"errorCode\":403010,\"message\":\"basic tier\"}" });
    let headers = [("iothub-errorcode", "OperationNotAvailableInCurrentTier")];
    let (hub, _) = hub([answer(403, &headers, &refusal)]);
    assert!(hub.modules("d").await.unwrap().is_empty());
    let listed = json!([{ "moduleId": "m", "deviceId": "d", "etag": "MA==" }]);
    let (hub, asked) = self::hub([answer(200, &[], &listed)]);
    assert_eq!(hub.modules("d#1").await.unwrap(), ["m"]);
    let (call, _, _) = asked.only();
    assert!(call.contains("/devices/d%231/modules?"), "{call}");
}
