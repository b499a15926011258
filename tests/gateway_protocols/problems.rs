//! Everything that can go wrong, caused for real and seen through all five front ends.

use std::sync::Arc;

use rehome::gateway::body::LARGEST;
use rehome::gateway::error::Problem;
use rehome::gateway::limits::{Rate, RequestLimits};
use rehome::gateway::service::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::amqp_device::{Amqp, Answer, Ask as Message, Links, Rejection, Stream, links};
use crate::device::{ANSWERS, Https, Manner, Mqtt, Said, dial, poll_path, register_path};
use crate::stage::{Mood, SCOPE, Sockets, Stage, device_key, signed, token};
use crate::tunnel::tunnel;

const ID: &str = "device-001";
const WEBSOCKET: &str = "/$iothub/websocket";

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
    Lookup,
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
        Problem::NotRegistered => ask = Ask::Lookup,
        Problem::UnknownOperation => {
            ask = Ask::Poll("5.unknown".to_owned());
            // One device asks through every front end.
            settings.limits.poll.burst = 100;
        }
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

async fn over_https(cause: &Cause, sockets: &Arc<Sockets>) -> (u16, Value, Option<String>) {
    let mut device = Https::open(sockets).await;
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
        Ask::Lookup => (
            format!("POST /{SCOPE}/registrations/{ID}?api-version=2019-03-31"),
            &b"{}"[..],
        ),
        Ask::Line(line) => (line.clone(), &b"{}"[..]),
    };
    let reply = device
        .request(&in_scope(line), Some(&cause.token), "", body)
        .await;
    let retry_after = reply.header("retry-after").map(str::to_owned);
    (reply.status, reply.body, retry_after)
}

/// Topic and body; nothing where MQTT cannot ask that.
async fn over_mqtt<S>(cause: &Cause, stream: S) -> Option<(String, Value)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let manner = Manner {
        password: Some(cause.token.clone()),
        ..Manner::of(ID)
    };
    let mut device = Mqtt(stream);
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
        Ask::Lookup | Ask::Line(_) => return None,
    }
    Some(device.answer().await)
}

/// What becomes of the message; nothing where AMQP cannot ask that.
async fn over_amqp(
    cause: &Cause,
    stream: impl Stream,
    links: Links,
) -> Option<Result<Answer, Rejection>> {
    let in_scope = |text: String| text.replace(SCOPE, cause.scope);
    let links = Links {
        login: Some((
            in_scope(format!("{SCOPE}/registrations/{ID}")),
            cause.token.clone(),
        )),
        address: in_scope(links.address),
        ..links
    };
    let mut device = Amqp::open(stream, &links).await.unwrap();
    let message = match &cause.ask {
        Ask::Register(body) => Message::register(body),
        Ask::Poll(operation) => Message::poll(operation),
        Ask::Lookup => Message {
            operation: "iotdps-get-registration",
            ..Message::register(b"{}")
        },
        Ask::Line(_) => return None,
    };
    Some(device.try_ask(message).await)
}

#[tokio::test]
async fn every_problem_reads_the_same_through_all_five_front_ends() {
    for problem in Problem::every() {
        let cause = cause(&problem);
        let sockets = cause.stage.listen().await;
        let (status, body, retry_after) = over_https(&cause, &sockets).await;
        assert_eq!(status, problem.status().as_u16(), "{problem:?}: {body}");
        assert_eq!(body["errorCode"], problem.code(), "{problem:?}");
        let at = body["timestampUtc"].as_str().unwrap();
        assert!(at.ends_with('Z'), "{problem:?}");
        let expected = problem.retry_after().map(|seconds| seconds.to_string());
        assert_eq!(retry_after, expected, "{problem:?}");
        let same = |said: &Value| {
            let members = |of: &Value| (of["errorCode"].clone(), of["message"].clone());
            assert_eq!(members(said), members(&body), "{problem:?}");
            // The Java SDK would take it for an answer.
            assert!(said.get("operationId").is_none() && said.get("status").is_none());
        };

        let tcp = dial(&sockets, sockets.mqtt, true).await;
        let tunnelled = tunnel(&sockets, WEBSOCKET, "mqtt", 8192).await;
        let said = [
            over_mqtt(&cause, tcp).await,
            over_mqtt(&cause, tunnelled).await,
        ];
        let suffix = expected
            .map(|it| format!("&retry-after={it}"))
            .unwrap_or_default();
        for (topic, said) in said.into_iter().flatten() {
            let expected = format!("$dps/registrations/res/{status}/?$rid=1{suffix}");
            assert_eq!(topic, expected);
            same(&said);
        }

        let retry_after = problem.retry_after().map(|it| i32::try_from(it).unwrap());
        let tcp = dial(&sockets, sockets.amqp, true).await;
        let tunnelled = tunnel(&sockets, WEBSOCKET, "AMQPWSB10", 8192).await;
        let said = [
            over_amqp(&cause, tcp, links(ID)).await,
            over_amqp(&cause, tunnelled, links(ID).like_c()).await,
        ];
        for rejected in said.into_iter().flatten() {
            let rejection = rejected.unwrap_err();
            assert_eq!(rejection.condition, problem.condition(), "{problem:?}");
            assert_eq!(rejection.retry_after, [retry_after; 2], "{problem:?}");
            same(&rejection.description);
        }
        let tcp = dial(&sockets, sockets.amqp, true).await;
        if let Some(told) = over_amqp(&cause, tcp, links(ID).like_java()).await {
            let told = told.unwrap();
            assert_eq!(told.retry_after, [retry_after; 2], "{problem:?}");
            same(&told.body);
        }
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
