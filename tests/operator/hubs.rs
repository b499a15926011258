//! What becomes of an `IoTHub`.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use rehome::api::v1alpha1::{FINALIZER, IoTHub};
use serde_json::json;

use super::world::{Hub, POLICY_KEY, SECONDARY, World};

fn message(hub: &IoTHub, type_: &str) -> String {
    let conditions = &hub.status.as_ref().unwrap().conditions;
    let condition = conditions.iter().find(|known| known.type_ == type_);
    condition.unwrap().message.clone()
}

#[tokio::test]
async fn a_hub_becomes_ready_and_says_what_it_lacks_until_then() {
    let world = World::new().await;
    let host = format!("west-{}.test", world.namespace.name());
    let mut hub = Hub::start(&host).await;
    world.apply(hub.object("west", "west")).await;
    let seen = world.hub_is("west", "False", "SecretMissing").await;
    assert!(message(&seen, "Ready").contains("Secret west does not exist"));
    assert!(seen.finalizers().is_empty());

    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "west"},
        "stringData": {"connectionString":
            "HostName=other.test;SharedAccessKeyName=operator;SharedAccessKey=cHJpbWFyeS1rZXktMDEyMw=="}});
    world.apply(other).await;
    let seen = world.hub_is("west", "False", "SecretInvalid").await;
    assert!(message(&seen, "Ready").contains("is for other.test, not for"));

    world.apply(hub.secret("west", SECONDARY)).await;
    let seen = world.hub_is("west", "False", "HubUnauthorized").await;
    assert!(message(&seen, "CredentialsValid").contains("RegistryRead"));

    world.apply(hub.secret("west", POLICY_KEY)).await;
    let seen = world.hub_is("west", "True", "Settled").await;
    let status = seen.status.as_ref().unwrap();
    assert_eq!(seen.finalizers(), [FINALIZER]);
    assert!(status.guarantees.contains(&"fence".to_owned()));
    assert_eq!(status.assigned_devices, Some(0));
    let generations = status
        .conditions
        .iter()
        .map(|known| known.observed_generation);
    assert!(
        generations
            .into_iter()
            .all(|known| known == seen.metadata.generation)
    );

    hub.kill();
    let touch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    world.merge::<Secret>("west", touch).await;
    let seen = world.hub_is("west", "False", "HubUnreachable").await;
    assert!(message(&seen, "Reachable").contains("was not reached"));
    hub.restart().await;
    world.hub_is("west", "True", "Settled").await;

    world.delete::<IoTHub>("west").await;
    world.gone::<IoTHub>("west").await;
    assert!(world.stop().await);
}

#[tokio::test]
async fn of_two_names_for_one_hub_the_older_serves() {
    let world = World::new().await;
    let hub = world.hub("first").await;
    world.hub_is("first", "True", "Settled").await;
    let second = hub.object("second", "first");
    world.apply_younger::<IoTHub>(second, "first").await;
    let seen = world.hub_is("second", "False", "HostTaken").await;
    assert!(message(&seen, "Ready").contains("IoTHub first is older"));
    world.delete::<IoTHub>("first").await;
    world.hub_is("second", "True", "Settled").await;
}
