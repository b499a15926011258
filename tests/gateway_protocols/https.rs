//! The API over HTTPS.

use std::sync::atomic::Ordering;

use rehome::api::v1alpha1::RegistrationState;
use serde_json::json;

use crate::device::{Https, poll_path, register_path};
use crate::stage::{Mood, SCOPE, Stage, token};

const ID: &str = "device-001";

#[tokio::test]
async fn r01_registering_is_202_even_when_assigned_at_once_and_polling_is_200() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    let first = device.register(ID, "{}").await;
    assert_eq!(
        (first.status, &first.body["status"]),
        (202, &json!("assigning"))
    );
    assert_eq!(first.header("retry-after"), Some("3"), "R16");
    assert_eq!(
        first.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let location = "https://localhost/0ne000TEST1/registrations/device-001/register";
    assert_eq!(first.header("location"), Some(location));
    assert!(first.header("x-ms-request-id").is_some());

    let running = device.poll(ID, &first.operation()).await;
    assert_eq!(
        (running.status, &running.body["status"]),
        (202, &json!("assigning"))
    );
    assert_eq!(running.header("retry-after"), Some("3"));

    stage.memory.finish(ID, RegistrationState::Assigned);
    let over = device.poll(ID, &first.operation()).await;
    assert_eq!((over.status, over.header("retry-after")), (200, None));
    assert_eq!(over.body["registrationState"]["assignedHub"], "west.test");

    let again = device.register(ID, "{}").await;
    assert_eq!(
        (again.status, &again.body["status"]),
        (202, &json!("assigned"))
    );
    assert_eq!(again.operation(), first.operation());
    assert_eq!(
        stage.memory.count(),
        1,
        "an unchanged device writes nothing"
    );
}

#[tokio::test]
async fn r01_a_fast_assignment_is_in_the_first_answer() {
    let stage = Stage::new();
    stage.memory.set(Mood::Assigns);
    let mut device = Https::open(&stage.listen().await).await;
    let first = device.register(ID, "{}").await;
    assert_eq!(
        (first.status, &first.body["status"]),
        (202, &json!("assigned"))
    );
    // The Rust client of IoT Edge polls all the same.
    assert_eq!(device.poll(ID, &first.operation()).await.status, 200);
}

#[tokio::test]
async fn r01_the_oldest_clients_always_poll() {
    let stage = Stage::new();
    stage.memory.set(Mood::Assigns);
    let mut device = Https::open(&stage.listen().await).await;
    let line = format!("PUT {}", register_path(ID, "2017-11-15"));
    for _ in 0..2 {
        let answer = device.request(&line, Some(&token(ID)), "", b"").await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (202, &json!("assigning"))
        );
        let line = format!("GET {}", poll_path(ID, &answer.operation(), "2017-11-15"));
        let over = device.request(&line, Some(&token(ID)), "", b"").await;
        assert_eq!(
            (over.status, &over.body["status"]),
            (200, &json!("assigned"))
        );
    }
}

#[tokio::test]
async fn r05_what_a_poll_carries_does_not_matter() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    let operation = device.register(ID, "{}").await.operation();
    let line = format!("GET {}", poll_path(ID, &operation, "2019-03-31"));
    for body in [
        "{}",
        " ",
        "not JSON",
        r#"{"registrationId":"somebody-else"}"#,
    ] {
        let answer = device
            .request(&line, Some(&token(ID)), "", body.as_bytes())
            .await;
        assert_eq!(answer.status, 202, "{body}");
    }
}

#[tokio::test]
async fn r12_failed_and_disabled_are_answers_and_not_errors() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    for (id, state, word) in [
        ("device-f", RegistrationState::Failed, "failed"),
        ("device-d", RegistrationState::Disabled, "disabled"),
    ] {
        let operation = device.register(id, "{}").await.operation();
        stage.memory.finish(id, state);
        let answer = device.poll(id, &operation).await;
        assert_eq!((answer.status, &answer.body["status"]), (200, &json!(word)));
        let registration = &answer.body["registrationState"];
        assert_eq!(registration["registrationId"], id);
        assert!(registration["errorCode"].is_i64() && registration["errorMessage"].is_string());
    }
}

#[tokio::test]
async fn r17_an_operation_stays_readable() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    let operation = device.register(ID, "{}").await.operation();
    stage.memory.finish(ID, RegistrationState::Assigned);
    let first = device.poll(ID, &operation).await.body;
    for _ in 0..3 {
        assert_eq!(device.poll(ID, &operation).await.body, first);
    }
    assert_eq!(
        stage.memory.reads.load(Ordering::Relaxed),
        0,
        "no call to the API server"
    );
}

#[tokio::test]
async fn r27_a_client_that_names_no_host_is_served() {
    let stage = Stage::new();
    let mut device = Https::open_without_sni(&stage.listen().await).await;
    assert_eq!(device.register(ID, "{}").await.status, 202);
}

#[tokio::test]
async fn r28_one_connection_serves_everything_and_every_answer_is_json() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    for (line, status) in [
        (format!("PUT {}", register_path(ID, "2019-03-31")), 202),
        ("GET /".to_owned(), 404),
        (format!("GET {}", register_path(ID, "2019-03-31")), 405),
        (format!("DELETE /{SCOPE}/registrations/{ID}"), 405),
        ("PUT /a/b/c/d/e/f".to_owned(), 404),
        (
            format!("GET {}", poll_path(ID, "5.unknown", "2019-03-31")),
            404,
        ),
        (format!("PUT {}", register_path(ID, "2019-03-31")), 202),
    ] {
        let answer = device.request(&line, Some(&token(ID)), "", b"{}").await;
        assert_eq!(answer.status, status, "{line}");
        assert!(
            answer
                .status_line
                .starts_with(&format!("HTTP/1.1 {status} ")),
            "R28: the space"
        );
        assert_eq!(answer.header("connection"), None, "{line}");
        if status >= 400 {
            assert_eq!(
                answer.body["errorCode"].as_u64().unwrap() / 1000,
                u64::from(status)
            );
            assert!(answer.body["trackingId"].is_string() && answer.body["message"].is_string());
            assert!(answer.header("x-ms-error-code").is_some());
        }
    }
}

#[tokio::test]
async fn odd_but_harmless_headers_are_tolerated() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    let line = format!("PUT {}", register_path(ID, "2021-06-01"));
    let headers = "Content-Encoding: utf-8\r\nUserAgent: prov_device_client/1.0\r\n\
                   Content-Type: application/json; charset=utf-8\r\nConnection: keep-alive\r\n";
    let answer = device
        .request(&line, Some(&token(ID)), headers, b"{}")
        .await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn ids_in_paths_may_be_percent_encoded() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    let id = "sn:aa.bb_cc-01";
    let line = format!("PUT {}", register_path("sn%3aaa.bb_cc-01", "2019-03-31"));
    let answer = device.request(&line, Some(&token(id)), "", b"").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["registrationState"]["registrationId"], id);
}

#[tokio::test]
async fn every_api_version_since_the_first_is_understood() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    for (number, version) in [
        "2017-08-31-preview",
        "2017-11-15",
        "2018-04-01",
        "2018-09-01-preview",
        "2018-11-01",
        "2019-03-31",
        "2021-06-01",
        "2021-10-01",
        "2025-07-01-preview",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("device-{number}");
        let line = format!("PUT {}&forceRegistration=true", register_path(&id, version));
        let answer = device.request(&line, Some(&token(&id)), "", b"{}").await;
        assert_eq!(answer.status, 202, "{version}");
    }
    for bad in ["2016-01-01", "latest", ""] {
        let line = format!("PUT {}", register_path(ID, bad));
        let answer = device.request(&line, Some(&token(ID)), "", b"{}").await;
        assert_eq!(answer.body["errorCode"], 400_001, "{bad}");
    }
    let line = format!("PUT /{SCOPE}/registrations/{ID}/register");
    let answer = device.request(&line, Some(&token(ID)), "", b"{}").await;
    assert!(
        answer.body["message"]
            .as_str()
            .unwrap()
            .contains("api-version")
    );
}

#[tokio::test]
async fn a_lookup_shows_the_registration_and_starts_nothing() {
    let stage = Stage::new();
    let mut device = Https::open(&stage.listen().await).await;
    let line = format!("POST /{SCOPE}/registrations/{ID}?api-version=2021-06-01");
    let nobody = device.request(&line, Some(&token(ID)), "", b"{}").await;
    assert_eq!(
        (nobody.status, &nobody.body["errorCode"]),
        (404, &json!(404_201))
    );
    device.register(ID, "{}").await;
    let early = device.request(&line, Some(&token(ID)), "", b"{}").await;
    assert_eq!(
        (early.status, &early.body["status"]),
        (200, &json!("assigning"))
    );
    stage.memory.finish(ID, RegistrationState::Assigned);
    let over = device.request(&line, Some(&token(ID)), "", b"{}").await;
    assert_eq!(
        (over.status, &over.body["assignedHub"]),
        (200, &json!("west.test"))
    );
    assert!(over.body.get("operationId").is_none());
    let csr = device
        .request(&line, Some(&token(ID)), "", br#"{"csr":"AAAA"}"#)
        .await;
    assert_eq!(csr.status, 400);
    assert_eq!(stage.memory.count(), 1);
}

#[tokio::test]
async fn two_requests_at_once_are_one_operation() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let (mut one, mut two) = (Https::open(&sockets).await, Https::open(&sockets).await);
    let (first, second) = tokio::join!(one.register(ID, "{}"), two.register(ID, "{}"));
    assert_eq!(first.operation(), second.operation());
}

#[tokio::test]
async fn a_gateway_that_stops_lets_connections_end() {
    let stage = Stage::new();
    let sockets = stage.listen().await;
    let mut device = Https::open(&sockets).await;
    device.register(ID, "{}").await;
    sockets.stop.send(true).unwrap();
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(device.stream(), &mut rest);
    tokio::time::timeout(std::time::Duration::from_secs(20), ended)
        .await
        .expect("it ends")
        .ok();
    assert!(rest.is_empty());
}
