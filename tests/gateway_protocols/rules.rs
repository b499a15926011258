//! Rules that hold whatever a device speaks, seen through all five front ends.

use std::sync::Arc;
use std::time::Duration;

use rehome::api::v1alpha1::RegistrationState;
use rehome::gateway::service::Settings;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::amqp_device::{Amqp, Answer, Ask, Stream, links};
use crate::device::{ANSWERS, Https, Manner, Mqtt, Reply, dial};
use crate::stage::{Sockets, Stage};
use crate::tunnel::tunnel;

const ID: &str = "device-001";
const WEBSOCKET: &str = "/$iothub/websocket";

#[derive(Debug, Clone, Copy)]
enum Front {
    Https,
    Mqtt,
    MqttWebSocket,
    Amqp,
    AmqpWebSocket,
}

const FRONTS: [Front; 5] = [
    Front::Https,
    Front::Mqtt,
    Front::MqttWebSocket,
    Front::Amqp,
    Front::AmqpWebSocket,
];

/// One answer, as any protocol shows it.
#[derive(Debug)]
struct Shown {
    retry_after: Option<i32>,
    body: Value,
}

impl From<Reply> for Shown {
    fn from(reply: Reply) -> Self {
        let retry_after = reply.header("retry-after");
        Self {
            retry_after: retry_after.map(|text| text.parse().unwrap()),
            body: reply.body,
        }
    }
}

impl From<(String, Value)> for Shown {
    fn from((topic, body): (String, Value)) -> Self {
        let retry_after = topic.split_once("&retry-after=");
        Self {
            retry_after: retry_after.map(|(_, text)| text.parse().unwrap()),
            body,
        }
    }
}

impl From<Answer> for Shown {
    fn from(told: Answer) -> Self {
        let [lower, upper] = told.retry_after;
        assert_eq!(lower, upper);
        Self {
            retry_after: lower,
            body: told.body,
        }
    }
}

/// Registering, polling while it runs, polling when it is over.
async fn story(front: Front, stage: &Stage, ends: RegistrationState) -> [Shown; 3] {
    let sockets = stage.listen().await;
    let finish = || stage.memory.finish(ID, ends);
    match front {
        Front::Https => over_https(&sockets, finish).await,
        Front::Mqtt => over_mqtt(dial(&sockets, sockets.mqtt, true).await, finish).await,
        Front::MqttWebSocket => {
            over_mqtt(tunnel(&sockets, WEBSOCKET, "mqtt", 8192).await, finish).await
        }
        Front::Amqp => over_amqp(dial(&sockets, sockets.amqp, true).await, finish).await,
        Front::AmqpWebSocket => {
            over_amqp(tunnel(&sockets, WEBSOCKET, "AMQPWSB10", 8192).await, finish).await
        }
    }
}

async fn over_https(sockets: &Arc<Sockets>, finish: impl Fn()) -> [Shown; 3] {
    let mut device = Https::open(sockets).await;
    let first = device.register(ID, "{}").await;
    let operation = first.operation();
    let running = device.poll(ID, &operation).await;
    finish();
    let over = device.poll(ID, &operation).await;
    [first.into(), running.into(), over.into()]
}

async fn over_mqtt<S>(stream: S, finish: impl Fn()) -> [Shown; 3]
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut device = Mqtt::connect(stream, &Manner::of(ID)).await;
    device.subscribe(ANSWERS, 1).await;
    device.register(0, "1", 1).await;
    let first = device.answer().await;
    let operation = first.1["operationId"].as_str().unwrap().to_owned();
    device.poll(0, "2", &operation).await;
    let running = device.answer().await;
    finish();
    device.poll(0, "3", &operation).await;
    let over = device.answer().await;
    [first.into(), running.into(), over.into()]
}

async fn over_amqp(stream: impl Stream, finish: impl Fn()) -> [Shown; 3] {
    let mut device = Amqp::open(stream, &links(ID)).await.unwrap();
    let first = device.ask(Ask::register(b"{}")).await;
    let operation = first.body["operationId"].as_str().unwrap().to_owned();
    let running = device.ask(Ask::poll(&operation)).await;
    finish();
    let over = device.ask(Ask::poll(&operation)).await;
    [first.into(), running.into(), over.into()]
}

#[tokio::test]
async fn r10_unassigned_is_never_said() {
    for front in FRONTS {
        for answer in story(front, &Stage::new(), RegistrationState::Assigned).await {
            assert!(
                !answer.body.to_string().contains("unassigned"),
                "{front:?}: {answer:?}"
            );
            let status = answer.body["status"].as_str().unwrap();
            assert!(
                ["assigning", "assigned"].contains(&status),
                "{front:?}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn r11_assigning_carries_its_registration() {
    for front in FRONTS {
        let [_, running, _] = story(front, &Stage::new(), RegistrationState::Assigned).await;
        let state = &running.body["registrationState"];
        assert_eq!(state["registrationId"], ID, "{front:?}");
        assert_eq!(state["status"], "assigning", "{front:?}");
    }
}

#[tokio::test]
async fn r12_failed_carries_everything_that_sdks_dereference() {
    for front in FRONTS {
        let [_, _, over] = story(front, &Stage::new(), RegistrationState::Failed).await;
        let state = &over.body["registrationState"];
        assert_eq!(state["registrationId"], ID, "{front:?}");
        assert_eq!(state["status"], "failed", "{front:?}");
        assert_eq!(state["errorCode"], 400_208, "{front:?}");
        assert_eq!(state["errorMessage"], "no hub", "{front:?}");
    }
}

#[tokio::test]
async fn r13_assigned_names_hub_and_device() {
    for front in FRONTS {
        let [_, _, over] = story(front, &Stage::new(), RegistrationState::Assigned).await;
        let state = &over.body["registrationState"];
        assert_eq!(state["assignedHub"], "west.test", "{front:?}");
        assert_eq!(state["deviceId"], ID, "{front:?}");
    }
}

/// What the Java SDK demands of a certificate once one is described.
const CERTIFICATE: [&str; 8] = [
    "subjectName",
    "sha1Thumbprint",
    "sha256Thumbprint",
    "issuerName",
    "notBeforeUtc",
    "notAfterUtc",
    "serialNumber",
    "version",
];

/// Certificates anywhere in an answer that are described in part.
fn described_in_part(body: &Value) -> Vec<Value> {
    let Value::Object(members) = body else {
        return Vec::new();
    };
    let of = |(name, value): (&String, &Value)| {
        let described = ["certificateInfo", "signingCertificateInfo"].contains(&name.as_str());
        let whole = CERTIFICATE.iter().all(|member| !value[*member].is_null());
        let whole = whole && value["version"].is_number();
        if described && !value.is_null() && !whole {
            return vec![value.clone()];
        }
        described_in_part(value)
    };
    members.iter().flat_map(of).collect()
}

#[tokio::test]
async fn r14_certificates_are_described_in_full_or_not_at_all() {
    let part = serde_json::json!({ "x509": { "certificateInfo": { "subjectName": "CN=d" } } });
    assert_eq!(
        described_in_part(&part).len(),
        1,
        "the check sees what is there"
    );
    for front in FRONTS {
        for answer in story(front, &Stage::new(), RegistrationState::Assigned).await {
            assert_eq!(
                described_in_part(&answer.body),
                Vec::<Value>::new(),
                "{front:?}"
            );
        }
    }
}

#[tokio::test]
async fn r16_devices_are_told_to_wait_as_long_as_every_sdk_understands() {
    for front in FRONTS {
        let [first, running, over] = story(front, &Stage::new(), RegistrationState::Assigned).await;
        for answer in [first, running] {
            assert!((2..=5).contains(&answer.retry_after.unwrap()), "{front:?}");
        }
        assert_eq!(over.retry_after, None, "{front:?}");
    }
}

#[tokio::test]
async fn r26_every_answer_has_an_operation_id() {
    for front in FRONTS {
        let answers = story(front, &Stage::new(), RegistrationState::Assigned).await;
        let [first, running, over] = answers.map(|answer| answer.body["operationId"].clone());
        assert!(first.is_string(), "{front:?}");
        assert_eq!([&running, &over], [&first; 2], "{front:?}");
    }
}

/// The Java SDK waits 10 s for an answer, the others longer; nothing here may hold one so long.
#[tokio::test(start_paused = true)]
async fn r18_no_answer_is_held_while_an_operation_takes_its_time() {
    let mut settings = Settings::default();
    // Requests are counted by a clock that does not stand still.
    settings.limits.poll.burst = 100;
    let stage = Stage::with(settings);
    let mut device = Mqtt::connect(stage.mqtt(), &Manner::of(ID)).await;
    // Nothing is acknowledged here.
    device.subscribe(ANSWERS, 0).await;
    let mut operation = String::new();
    for round in 0..20 {
        let asked = Instant::now();
        if round == 0 {
            device.register(0, "1", 1).await;
        } else {
            device.poll(0, "1", &operation).await;
        }
        let (_, body) = device.answer().await;
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(body["status"], "assigning");
        body["operationId"]
            .as_str()
            .unwrap()
            .clone_into(&mut operation);
        tokio::time::advance(Duration::from_secs(3)).await;
    }
    // The slowest there is: the record of before is being deleted and does not go.
    stage.memory.change(ID, |record| record.deleting = true);
    let asked = Instant::now();
    device.register(0, "2", 1).await;
    device.answer().await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}
