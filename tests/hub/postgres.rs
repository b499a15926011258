//! A hub whose devices are in a real PostgreSQL: what is left of acknowledged writes when either of
//! them is killed, and two processes of one hub.

use rehome_testing::{Postgres, show};
use serde_json::{Value, json};

use super::durability::survive;
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
        // It ends by itself: what it was told last may not be so.
        assert!(!hub.process().wait(START_WITHIN).await.unwrap().success());
        assert!(hub.log().contains("the hub's store has failed"));
        hub.begin();
        let process = hub.process();
        let waits = "it is tried again until that has changed";
        process.wait_for_line(waits, START_WITHIN).await.unwrap();
        server.restart().await.unwrap();
        hub.serves().await;
    });
    show(format_args!(
        "8 kills, {} acknowledged writes, none lost",
        total.await
    ));
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
        let said = hub.process().wait_for_line(says, START_WITHIN);
        assert!(said.await.unwrap().contains("it is tried again"));
        assert!(!hub.log().contains(server.password()), "{}", hub.log());
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
    service.done(&first, "PUT /devices/press-7", &body).await;
    first.kill();
    second.serves().await;
    let seen = second
        .service()
        .done(&second, "GET /devices/press-7", &Value::Null)
        .await;
    assert_eq!(seen["deviceId"], "press-7");
}
