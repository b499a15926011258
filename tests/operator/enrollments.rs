//! What becomes of an `Enrollment`.

use k8s_openapi::api::core::v1::Secret;
use rehome::api::v1alpha1::Enrollment;
use serde_json::json;

use super::world::{PRIMARY, World, group, individual};

#[tokio::test]
async fn an_enrollment_says_what_keeps_devices_out() {
    let world = World::new().await;
    world.apply(group("line", "keys", &json!({}))).await;
    let (_, why) = world.enrollment_is("line", "False", "SecretMissing").await;
    assert!(why.contains("Secret keys does not exist"), "{why}");

    let same = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"primaryKey": PRIMARY, "secondaryKey": PRIMARY}});
    world.apply(same).await;
    let (_, why) = world
        .enrollment_is("line", "False", "SecretNotLabelled")
        .await;
    assert!(why.contains("rehome.dev/attestation=true"), "{why}");

    let label = json!({"metadata": {"labels": {"rehome.dev/attestation": "true"}}});
    world.merge::<Secret>("keys", label).await;
    let (_, why) = world.enrollment_is("line", "False", "SecretInvalid").await;
    assert!(
        why.contains("are the same key") && !why.contains(PRIMARY),
        "{why}"
    );

    world.attestation_secret("keys").await;
    let (ready, _) = world.enrollment_is("line", "True", "Settled").await;
    assert_eq!(ready.status.unwrap().registrations.unwrap().total, 0);

    let spec = json!({"spec": {"allocation": {"hubs": ["nowhere"]}}});
    world.merge::<Enrollment>("line", spec).await;
    let (_, why) = world.enrollment_is("line", "False", "HubNotFound").await;
    assert!(why.contains("IoTHub nowhere"), "{why}");

    let spec = json!({"spec": {"allocation": null,
        "initialTwin": {"tags": {"a.b": 1}}}});
    world.merge::<Enrollment>("line", spec).await;
    let (_, why) = world
        .enrollment_is("line", "False", "InitialTwinInvalid")
        .await;
    assert!(why.contains("\"a.b\""), "{why}");

    let spec = json!({"spec": {"initialTwin": null}});
    world.merge::<Enrollment>("line", spec).await;
    world.enrollment_is("line", "True", "Settled").await;

    world
        .apply(
            json!({"apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub",
        "metadata": {"name": "greedy"}, "spec": {
            "hostName": format!("greedy-{}.test", world.namespace.name()),
            "connection": {"connectionStringSecretRef": {"name": "keys"}}}}),
        )
        .await;
    let (_, why) = world
        .enrollment_is("line", "False", "SecretIsHubCredential")
        .await;
    assert!(why.contains("IoTHub greedy"), "{why}");
    world
        .delete::<rehome::api::v1alpha1::IoTHub>("greedy")
        .await;
    world.enrollment_is("line", "True", "Settled").await;
}

#[tokio::test]
async fn of_two_enrollments_for_one_id_the_older_counts() {
    let world = World::new().await;
    world.attestation_secret("keys").await;
    world.apply(individual("first", "press-7", "keys")).await;
    world.enrollment_is("first", "True", "Settled").await;
    let second = individual("second", "PRESS-7", "keys");
    world.apply_younger::<Enrollment>(second, "first").await;
    let (_, why) = world.enrollment_is("second", "False", "Conflict").await;
    assert!(why.contains("Enrollment first is older"), "{why}");
    world.enrollment_is("first", "True", "Settled").await;
    world.delete::<Enrollment>("first").await;
    world.enrollment_is("second", "True", "Settled").await;
}
