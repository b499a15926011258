//! A hub whose devices are in a real PostgreSQL: what is left of acknowledged writes when either of
//! them is killed, and two processes of one hub.

use rehome_testing::{Postgres, expect, show};
use serde_json::{Value, json};

use super::device::{KEY, UNAVAILABLE, connected, create, token};
use super::durability::survive;
use super::mqtt::Device;
use super::process::{HubProcess, START_WITHIN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_hub_or_postgresql_is_killed() {
    let mut server = Postgres::start().await.unwrap();
    let hub = HubProcess::start_in(&server).await;
    let total = survive(hub, 8, async |hub, round| {
        if round % 2 == 0 {
            hub.kill();
            hub.restart().await;
            return;
        }
        server.kill().await.unwrap();
        // It goes on by itself once the database is back, and is the same process.
        let process = hub.process();
        let lost = "the hub serves nobody until it is back";
        process.wait_for_line(lost, START_WITHIN).await.unwrap();
        server.restart().await.unwrap();
        regained(hub).await;
    });
    show(format_args!(
        "8 kills, {} acknowledged writes, none lost",
        total.await
    ));
}

/// Waits until the hub answers again after its database was away.
async fn regained(hub: &HubProcess) {
    expect("a hub that is ready again", START_WITHIN, async || {
        (hub.asked("/readyz").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_postgresql_is_away_the_hub_says_so_and_then_goes_on() {
    let mut server = Postgres::start().await.unwrap();
    let mut hub = HubProcess::start_in(&server).await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let counter = |counter: u8| json!({ "properties": { "desired": { "counter": counter } } });
    let patch = "PATCH /twins/press-7";
    let before = service.done(&hub, patch, &counter(1)).await;
    let mut device = connected(&hub, "press-7").await;
    assert_eq!(hub.asked("/readyz").await.0, 200);

    server.kill().await.unwrap();
    let unready = expect("a hub that is not ready", START_WITHIN, async || {
        let (status, text) = hub.asked("/readyz").await;
        (status == 503 && text.contains("refused")).then_some(text)
    });
    let unready = unready.await;
    assert!(unready.contains("connect to PostgreSQL"), "{unready}");
    assert_eq!(hub.asked("/livez").await.0, 200);
    let metrics = hub.asked("/metrics").await.1;
    assert!(
        metrics.contains("rehome_hub_store_takes_writes 0"),
        "{metrics}"
    );
    for call in ["GET /twins/press-7", patch] {
        let response = service.call(&hub, call, &counter(2)).await.unwrap();
        assert_eq!(response.status(), 503, "{call}");
        let text = response.text().await.unwrap();
        assert!(text.contains("connect to PostgreSQL"), "{call}: {text}");
    }
    let log = hub.log();
    assert!(
        log.contains("it is tried again until that has changed"),
        "{log}"
    );
    // Of a write on its way nobody could have told it.
    assert_eq!(device.receive().await, None);
    let mut device = Device::dial(&hub).await;
    let token = token("press-7", KEY);
    assert_eq!(device.connect("press-7", &token, true).await, UNAVAILABLE);

    server.restart().await.unwrap();
    regained(&hub).await;
    let after = service.done(&hub, "GET /twins/press-7", &Value::Null).await;
    assert_eq!(after["properties"]["desired"]["counter"], 1);
    assert_eq!(after["etag"], before["etag"]);
    service.done(&hub, patch, &counter(2)).await;
    connected(&hub, "press-7").await;
    assert!(hub.process().ended().unwrap().is_none(), "the same process");
    let metrics = hub.asked("/metrics").await.1;
    assert!(
        metrics.contains("rehome_hub_store_takes_writes 1"),
        "{metrics}"
    );
    tells_nobody(&hub, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_stands_still_is_away_and_no_write_acts_unseen_afterwards() {
    let mut server = Postgres::start().await.unwrap();
    let mut hub = HubProcess::start_in(&server).await;
    let service = hub.service();
    create(&hub, &service, "press-7").await;
    let counter = |counter: u8| json!({ "properties": { "desired": { "counter": counter } } });
    let patch = "PATCH /twins/press-7";
    service.done(&hub, patch, &counter(1)).await;

    server.pause().await.unwrap();
    // Of this one nobody knows what became of it, and it is told so.
    let unknown = service.call(&hub, patch, &counter(2)).await.unwrap();
    assert!(unknown.status().is_server_error(), "{}", unknown.status());
    let unready = expect("a hub that is not ready", START_WITHIN, async || {
        let (status, text) = hub.asked("/readyz").await;
        (status == 503).then_some(text)
    });
    let unready = unready.await;
    assert!(unready.contains("no answer within"), "{unready}");
    let refused = service.call(&hub, patch, &counter(3)).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(hub.asked("/livez").await.0, 200);

    server.resume().unwrap();
    regained(&hub).await;
    // What is read now stays so: the write of before has happened, or never will.
    let first = service.done(&hub, "GET /twins/press-7", &Value::Null).await;
    let seen = &first["properties"]["desired"]["counter"];
    assert!(*seen == 1 || *seen == 2, "{seen}");
    let version = first["properties"]["desired"]["$version"].as_u64().unwrap();
    let changed = service.done(&hub, patch, &counter(4)).await;
    let desired = &changed["properties"]["desired"];
    assert_eq!(desired["counter"], 4);
    assert_eq!(desired["$version"], version + 1);
    assert!(hub.process().ended().unwrap().is_none(), "the same process");
}

/// Nothing that can be read of the hub has the password.
async fn tells_nobody(hub: &HubProcess, server: &Postgres) {
    let told = [
        hub.log(),
        hub.asked("/readyz").await.1,
        hub.asked("/metrics").await.1,
    ];
    for text in told {
        assert!(!text.contains(server.password()), "{text}");
    }
}

#[tokio::test]
async fn why_postgresql_cannot_be_used_is_said_and_its_url_is_not() {
    let server = Postgres::start().await.unwrap();
    let wrong = server.url().replace(server.password(), "wrong");
    for (url, says) in [
        (server.url_with_public_roots(), "UnknownIssuer"),
        (wrong, "password authentication failed"),
    ] {
        let mut hub = HubProcess::prepared();
        hub.move_to_url(&url);
        hub.begin();
        hub.process()
            .wait_for_line(says, START_WITHIN)
            .await
            .unwrap();
        let (status, text) = hub.asked("/readyz").await;
        assert_eq!(status, 503, "{text}");
        assert!(text.contains(says), "{text}");
        tells_nobody(&hub, &server).await;
    }
    let unknown = format!("{}&sslpassword={}", server.url(), server.password());
    let broken = server.url().replacen(':', "", 1);
    for (url, says) in [
        (unknown, "has a parameter that is not known"),
        (broken, "cannot be read"),
    ] {
        let mut hub = HubProcess::prepared();
        hub.move_to_url(&url);
        hub.begin();
        assert!(!hub.process().wait(START_WITHIN).await.unwrap().success());
        let log = hub.log();
        assert!(log.contains(says), "{log}");
        assert!(!log.contains(server.password()), "{log}");
    }
}

#[tokio::test]
async fn of_two_processes_of_one_hub_one_serves_and_the_other_takes_over() {
    let server = Postgres::start().await.unwrap();
    let mut first = HubProcess::start_in(&server).await;
    let service = first.service();
    let body = json!({ "deviceId": "press-7" });
    service
        .done(
            &first,
            "POST /devices",
            &json!([{ "id": "press-7", "importMode": "create" }]),
        )
        .await;
    let mut second = HubProcess::prepared();
    second.move_to(&server);
    second.begin();
    let process = second.process();
    process
        .wait_for_line("another process serves hub", START_WITHIN)
        .await
        .unwrap();
    let (status, text) = second.asked("/readyz").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("another process serves hub"), "{text}");
    assert_eq!(second.asked("/livez").await.0, 200);
    service.done(&first, "PUT /devices/press-7", &body).await;
    first.kill();
    second.serves().await;
    let seen = second
        .service()
        .done(&second, "GET /devices/press-7", &Value::Null)
        .await;
    assert_eq!(seen["deviceId"], "press-7");
}
