//! Who may register, and what a stranger costs.

use rehome::domain::attestation::derive_device_key;
use rehome_testing::expect;

use crate::plant::{Device, Gateway, KEY, OTHER_KEY, PATIENCE, Plant};

#[tokio::test]
async fn a_stranger_reaches_nothing_behind_the_gateway() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    gateway.register_until(&plant.device("press-1"), 202).await;
    let mark = plant.mark();
    let good = plant.device("press-2");
    let wrong_key = Device {
        key: KEY.parse().unwrap(),
        ..good.clone()
    };
    let wrong_scope = Device {
        scope: "0ne00NOBODY".into(),
        ..good.clone()
    };
    let nonsense = Device {
        id: "-".into(),
        ..good.clone()
    };
    let old = Device {
        api_version: "2016-01-01",
        ..good
    };
    for (device, status) in [
        (&wrong_key, 401),
        (&wrong_scope, 404),
        (&nonsense, 400),
        (&old, 400),
    ] {
        for _ in 0..5 {
            assert_eq!(gateway.register(device).await.status, status);
            let operation = "5.0000000000000000.00000000-0000-0000-0000-000000000000";
            assert_eq!(gateway.poll(device, operation).await.status, status);
        }
    }
    // Known, but asking for an operation that cannot be its own.
    let known = plant.device("press-1");
    assert_eq!(gateway.poll(&known, "5.made-up").await.status, 404);
    let asked = plant.asked_since(mark);
    assert!(asked.is_empty(), "{asked}");
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    let old = plant.device("press-3");
    let new = Device {
        key: derive_device_key(&OTHER_KEY.parse().unwrap(), "press-3"),
        ..old.clone()
    };
    let first = gateway.register_until(&old, 202).await;
    assert_eq!(gateway.register(&new).await.status, 401);
    plant.set_keys(OTHER_KEY, Some("true")).await;
    gateway.register_until(&new, 202).await;
    assert_eq!(gateway.register(&old).await.status, 401);
    // The operation is the device's, whatever its key is now.
    assert_eq!(gateway.poll(&new, first.operation()).await.status, 202);
    // Without the label nobody may use the Secret, and its devices are asked to come again.
    plant.set_keys(OTHER_KEY, None).await;
    gateway.register_until(&new, 503).await;
}

#[tokio::test]
async fn without_the_right_to_a_secret_the_gateway_is_ready_and_its_devices_wait() {
    let plant = Plant::new().await;
    let roles: kube::Api<k8s_openapi::api::rbac::v1::Role> = plant.namespace.api();
    roles
        .delete("gateway-secrets", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let gateway = plant.gateway().await;
    assert_eq!(
        gateway
            .register_until(&plant.device("press-4"), 503)
            .await
            .status,
        503
    );
}

#[tokio::test]
async fn a_namespaced_gateway_serves_its_namespace_under_the_scope_it_is_given() {
    let plant = Plant::new().await;
    let namespace = format!("--namespace={}", plant.namespace.name());
    let scope = format!("--id-scope={}=0ne000FIXED", plant.namespace.name());
    let gateway = Gateway::spawn(&plant.operator.gateway, &[&namespace, &scope]);
    gateway.until_ready().await;
    let device = Device {
        scope: "0ne000FIXED".into(),
        ..plant.device("press-5")
    };
    assert_eq!(gateway.register_until(&device, 202).await.status, 202);
    assert_eq!(gateway.register(&plant.device("press-5")).await.status, 404);
}

#[tokio::test]
async fn metrics_count_without_naming_anybody() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    gateway.register_until(&plant.device("press-6"), 202).await;
    let text = expect("metrics", PATIENCE, async || {
        let (status, text) = gateway.health("metrics").await;
        (status.0 == 200).then_some(text)
    })
    .await;
    let counted = "rehome_gateway_requests_total{protocol=\"https\",operation=\"register\"";
    assert!(text.contains(counted), "{text}");
    assert!(
        text.contains("rehome_gateway_registration_writes_total{verb=\"create\",result=\"ok\"}")
    );
    assert!(
        !text.contains("press-6") && !text.contains(plant.namespace.name()),
        "{text}"
    );
}
