//! Starting, stopping, and an API server that is gone.

use std::time::Duration;

use rehome::api::v1alpha1::RegistrationState;
use rehome_testing::{Cluster, expect, scratch};

use crate::plant::{Gateway, PATIENCE, Plant, Status};

#[tokio::test]
async fn it_is_alive_but_not_ready_until_its_token_is_there() {
    let plant = Plant::new().await;
    let token_file = scratch("token").unwrap().join("token");
    let kubeconfig = format!("--kubeconfig={}", plant.cluster.kubeconfig().display());
    let token = format!("--token-file={}", token_file.display());
    let mut gateway = Gateway::spawn_with(&[&kubeconfig, &token]);
    gateway
        .process
        .wait_for_line("waiting for the token", PATIENCE)
        .await
        .unwrap();
    assert_eq!(gateway.health("livez").await.0, Status(200));
    let (status, why) = gateway.health("readyz").await;
    assert_eq!(status, Status(503), "{why}");
    std::fs::write(&token_file, &plant.operator.gateway.token).unwrap();
    gateway.until_ready().await;
    let mark = plant.mark();
    gateway.register_until(&plant.device("press-1"), 202).await;
    let asked = plant.asked_since(mark);
    assert_eq!(
        asked.count("create", "deviceregistrations"),
        1,
        "as the gateway: {asked}"
    );
}

#[tokio::test]
async fn asked_to_end_it_ends_in_good_order() {
    let plant = Plant::new().await;
    let mut gateway = plant.gateway().await;
    // A connection that is open and idle does not keep it.
    gateway.register_until(&plant.device("press-1"), 202).await;
    let status = gateway
        .process
        .terminate(Duration::from_secs(20))
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(
        gateway
            .process
            .output()
            .unwrap()
            .contains("the gateway stops")
    );
}

#[tokio::test]
async fn without_the_api_server_it_answers_what_it_knows_and_asks_for_patience() {
    let plant = Plant::on(Cluster::private().await.unwrap()).await;
    let gateway = plant.gateway().await;
    let device = plant.device("press-1");
    let first = gateway.register_until(&device, 202).await;
    plant.finish("press-1", RegistrationState::Assigned).await;
    gateway
        .poll_until(&device, first.operation(), "assigned")
        .await;

    plant.cluster.stop_api_server().await.unwrap();
    assert_eq!(
        gateway.poll(&device, first.operation()).await.body["status"],
        "assigned"
    );
    assert_eq!(gateway.register(&device).await.body["status"], "assigned");
    let new = gateway.register(&plant.device("press-2")).await;
    assert_eq!(
        (new.status, new.body["errorCode"].as_u64()),
        (503, Some(503_000))
    );

    plant.cluster.start_api_server().await.unwrap();
    gateway.register_until(&plant.device("press-2"), 202).await;
    // It hears again what others do.
    let second = gateway
        .register(&plant.device("press-3"))
        .await
        .operation()
        .to_owned();
    plant.finish("press-3", RegistrationState::Assigned).await;
    gateway
        .poll_until(&plant.device("press-3"), &second, "assigned")
        .await;
    expect("ready again", PATIENCE, async || {
        (gateway.health("readyz").await.0 == Status(200)).then_some(())
    })
    .await;
}
