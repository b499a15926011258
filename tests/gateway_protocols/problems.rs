//! Everything that can go wrong, caused for real and seen through both front ends.

use rehome::gateway::body::LARGEST;
use rehome::gateway::error::Problem;

use rehome::gateway::limits::{Rate, RequestLimits};
use rehome::gateway::service::Settings;
use serde_json::{Value, json};

use crate::device::{ANSWERS, Https, Manner, Mqtt, Said, poll_path, register_path};
use crate::stage::{Mood, SCOPE, Stage, device_key, signed, token};

const ID: &str = "device-001";

/// What a device does to meet a problem.
struct Cause {
    stage: Stage,
    token: String,
    scope: &'static str,
    ask: Ask,
}

enum Ask {
    Register(Vec<u8>),
    Poll(String),
    /// Only HTTPS can ask this.
    Line(String),
}

fn cause(problem: &Problem) -> Cause {
    let mut settings = Settings::default();
    let mut token = token(ID);
    let (mut scope, mut ask) = (SCOPE, Ask::Register(b"{}".to_vec()));
    let mut mood = Mood::Works;
    let mut quota = None;
    match problem {
        Problem::BadRequest(_) => ask = Ask::Register(b"{".to_vec()),
        Problem::Unauthorized(_) => token = signed(ID, &device_key(ID), 1),
        Problem::WrongKey => token = signed(ID, &device_key("device-002"), 4_000_000_000),
        Problem::NotEnrolled => {
            scope = "0ne000TEST2";
            let resource = format!("{scope}/registrations/{ID}");
            token = rehome::domain::sas::SasToken::sign(
                &resource,
                &device_key(ID),
                4_000_000_000,
                None,
            );
        }
        Problem::NotRegistered => {
            ask = Ask::Line(format!(
                "POST /{SCOPE}/registrations/{ID}?api-version=2019-03-31"
            ));
        }
        Problem::UnknownOperation => ask = Ask::Poll("5.unknown".to_owned()),
        Problem::UnknownPath => ask = Ask::Line("GET /nothing".to_owned()),
        Problem::MethodNotAllowed => {
            ask = Ask::Line(format!("DELETE {}", poll_path(ID, "5.x", "2019-03-31")));
        }
        Problem::TooLarge(_) => ask = Ask::Register(vec![b' '; LARGEST + 1]),
        Problem::QuotaExceeded => quota = Some(1),
        Problem::Throttled => {
            let none = Rate {
                burst: 0,
                per_ten_seconds: 0,
            };
            settings.limits = RequestLimits {
                register: none,
                ..settings.limits
            };
        }
        Problem::Unavailable => mood = Mood::Silent,
        Problem::Internal => mood = Mood::Refuses,
    }
    let stage = Stage::with(settings);
    stage.memory.set(mood);
    stage.enroll("line-3", &json!({ "group": {}, "maxRegistrations": quota }));
    Cause {
        stage,
        token,
        scope,
        ask,
    }
}

async fn over_https(cause: &Cause) -> (u16, Value, Option<String>) {
    let mut device = Https::open(&cause.stage.listen().await).await;
    if matches!(cause.ask, Ask::Register(_)) {
        // For the quota: somebody is there already.
        device.register("device-000", "{}").await;
    }
    let in_scope = |path: String| path.replace(SCOPE, cause.scope);
    let (line, body) = match &cause.ask {
        Ask::Register(body) => (
            format!("PUT {}", register_path(ID, "2019-03-31")),
            &body[..],
        ),
        Ask::Poll(operation) => (
            format!("GET {}", poll_path(ID, operation, "2019-03-31")),
            &b""[..],
        ),
        Ask::Line(line) => (line.clone(), &b"{}"[..]),
    };
    let reply = device
        .request(&in_scope(line), Some(&cause.token), "", body)
        .await;
    let retry_after = reply.header("retry-after").map(str::to_owned);
    (reply.status, reply.body, retry_after)
}

/// Topic and body; nothing when MQTT closes instead.
async fn over_mqtt(cause: &Cause) -> Option<(String, Value)> {
    let manner = Manner {
        password: Some(cause.token.clone()),
        ..Manner::of(ID)
    };
    let mut device = Mqtt(cause.stage.mqtt());
    device.send(&manner.packet_in(cause.scope)).await;
    assert_eq!(
        device.next().await,
        Said::Connack {
            session_present: 0,
            code: 0
        }
    );
    device.subscribe(ANSWERS, 1).await;
    match &cause.ask {
        Ask::Register(body) => {
            let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
            device.publish(0, topic, 0, body).await;
        }
        Ask::Poll(operation) => device.poll(0, "1", operation).await,
        Ask::Line(_) => return None,
    }
    Some(device.answer().await)
}

#[tokio::test]
async fn every_problem_reads_the_same_in_both_protocols() {
    for problem in Problem::every() {
        let cause = cause(&problem);
        let (status, body, retry_after) = over_https(&cause).await;
        assert_eq!(status, problem.status().as_u16(), "{problem:?}: {body}");
        assert_eq!(body["errorCode"], problem.code(), "{problem:?}");
        assert!(
            body["timestampUtc"].as_str().unwrap().ends_with('Z'),
            "{problem:?}"
        );
        let expected = problem.retry_after().map(|seconds| seconds.to_string());
        assert_eq!(retry_after, expected, "{problem:?}");

        let Some((topic, said)) = over_mqtt(&cause).await else {
            continue;
        };
        let retry_after = expected
            .map(|it| format!("&retry-after={it}"))
            .unwrap_or_default();
        assert_eq!(
            topic,
            format!("$dps/registrations/res/{status}/?$rid=1{retry_after}")
        );
        assert_eq!(
            (&said["errorCode"], &said["message"]),
            (&body["errorCode"], &body["message"])
        );
        assert!(said.get("operationId").is_none() && said.get("status").is_none());
    }
}

#[tokio::test]
async fn keys_without_the_label_vouch_for_nobody_and_ask_for_patience() {
    let stage = Stage::new();
    stage.set_keys(None);
    let mut device = Https::open(&stage.listen().await).await;
    assert_eq!(device.register(ID, "{}").await.status, 503);
    stage.set_keys(Some("true"));
    assert_eq!(device.register(ID, "{}").await.status, 202);
}

#[tokio::test]
async fn an_individual_enrollment_decides_alone() {
    let stage = Stage::new();
    stage.enroll(
        "one",
        &json!({ "individual": { "registrationId": "DEVICE-001" } }),
    );
    let mut device = Https::open(&stage.listen().await).await;
    // The derived key of the group is not the individual's key.
    assert_eq!(device.register(ID, "{}").await.body["errorCode"], 401_000);
    assert_eq!(device.register("device-002", "{}").await.status, 202);
    let line = format!("PUT {}", register_path(ID, "2019-03-31"));
    let own = signed(ID, &crate::stage::KEY.parse().unwrap(), 4_000_000_000);
    assert_eq!(
        device.request(&line, Some(&own), "", b"{}").await.status,
        202
    );
}

#[tokio::test]
async fn a_disabled_enrollment_answers_whom_it_knows_and_nobody_else() {
    let stage = Stage::new();
    stage.enroll(
        "line-3",
        &json!({ "group": {}, "provisioningStatus": "Disabled" }),
    );
    let mut device = Https::open(&stage.listen().await).await;
    assert_eq!(
        device.register(ID, "{}").await.status,
        202,
        "told by the operation's state"
    );
    assert_eq!(stage.memory.count(), 1);
    let line = format!("PUT {}", register_path("device-002", "2019-03-31"));
    let wrong = signed("device-002", &device_key(ID), 4_000_000_000);
    assert_eq!(
        device.request(&line, Some(&wrong), "", b"{}").await.status,
        401
    );
    assert_eq!(stage.memory.count(), 1, "nothing is written for a stranger");
}
