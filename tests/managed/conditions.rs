//! What an `IoTHub` says when one of its parts is not well.

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Patch, PatchParams};
use rehome_testing::Authority;
use serde_json::{Value, json};

use super::world::World;

fn ended(words: &str) -> Value {
    json!({ "terminated": { "exitCode": 1, "message": words } })
}

#[tokio::test]
async fn why_a_pod_does_not_start_stands_in_the_hubs_conditions() {
    let world = World::new().await;
    world.hub("west", json!({})).await;
    world.there::<Pod>("iothub-west-0").await;
    world
        .hub_is("west", "Ready", "False", "WorkloadStarting")
        .await;
    world
        .hub_is("west", "Reconciling", "True", "WorkloadStarting")
        .await;

    world.pod_waits("west", "ImagePullBackOff", json!({})).await;
    let message = world
        .hub_is("west", "Ready", "False", "ImageUnavailable")
        .await;
    assert!(message.contains("registry.example/rehome:1"), "{message}");
    assert!(message.contains("as the kubelet says"), "{message}");
    world
        .hub_is("west", "Stalled", "True", "ImageUnavailable")
        .await;
    world
        .hub_is("west", "Reconciling", "False", "Settled")
        .await;

    world
        .pod_waits(
            "west",
            "CrashLoopBackOff",
            ended("Error: the store cannot be used"),
        )
        .await;
    let message = world
        .hub_is("west", "Ready", "False", "WorkloadFailing")
        .await;
    assert!(message.contains("the store cannot be used"), "{message}");

    let full = "could not write: No space left on device (os error 28)";
    world
        .pod_waits("west", "CrashLoopBackOff", ended(full))
        .await;
    let message = world.hub_is("west", "Ready", "False", "VolumeFull").await;
    assert!(
        message.contains("expand PersistentVolumeClaim data-iothub-west-0"),
        "{message}"
    );

    let refused = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available" }]);
    let change = json!({ "status": { "conditions": refused, "containerStatuses": null } });
    let api = world.namespace.api::<Pod>();
    let params = PatchParams::default();
    api.patch_status("iothub-west-0", &params, &Patch::Merge(&change))
        .await
        .unwrap();
    let message = world
        .hub_is("west", "Ready", "False", "Unschedulable")
        .await;
    assert!(message.contains("0/3 nodes are available"), "{message}");
}

#[tokio::test]
async fn a_certificate_of_somebody_elses_is_judged_before_the_hub_has_to() {
    let world = World::new().await;
    world
        .hub(
            "west",
            json!({ "certificate": { "secretRef": { "name": "bought" } } }),
        )
        .await;
    let message = world
        .hub_is("west", "CertificateReady", "False", "SecretMissing")
        .await;
    assert!(message.contains("Secret bought"), "{message}");
    let authority = Authority::new("Plant").unwrap();
    let (good, other) = (
        authority.issue(&[world.host("west")]).unwrap(),
        authority.issue(&["other.test"]).unwrap(),
    );
    let secret = |certificate: &str, key: &str| {
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "bought" },
            "stringData": { "tls.crt": certificate, "tls.key": key } })
    };
    world.apply(secret(&good.cert_pem, &other.key_pem)).await;
    let message = world
        .hub_is("west", "Ready", "False", "CertificateInvalid")
        .await;
    assert!(message.contains("do not go together"), "{message}");
    world.apply(secret(&other.cert_pem, &other.key_pem)).await;
    world
        .until("another message", "west", |hub| {
            let seen = super::world::condition(hub, "CertificateReady")?;
            seen.message.contains("not for the host").then_some(())
        })
        .await;
    world.apply(secret(&good.cert_pem, &good.key_pem)).await;
    world
        .hub_is("west", "CertificateReady", "True", "Settled")
        .await;
    assert!(
        world.find::<Secret>("iothub-ca").await.is_none(),
        "nobody asked for one"
    );
}

#[tokio::test]
async fn another_authority_in_the_secret_signs_the_next_certificate() {
    let world = World::new().await;
    world.hub("west", json!({})).await;
    world
        .hub_is("west", "CertificateReady", "True", "Settled")
        .await;
    let authority = |secret: &Secret| secret.data.as_ref().unwrap()["ca.crt"].0.clone();
    let before: Secret = world.there("iothub-west-tls").await;
    world.delete::<Secret>("iothub-ca").await;
    world
        .until("another authority", "iothub-west-tls", |now: &Secret| {
            (authority(now) != authority(&before)).then_some(())
        })
        .await;
    world
        .apply(
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "iothub-ca" },
        "stringData": { "tls.key": "nonsense" } }),
        )
        .await;
    let message = world
        .hub_is("west", "CertificateReady", "False", "CertificateInvalid")
        .await;
    assert!(message.contains("Secret iothub-ca"), "{message}");
}

#[tokio::test]
async fn a_load_balancer_without_an_address_is_told_and_its_address_too() {
    let world = World::new().await;
    world
        .hub("west", json!({ "service": { "type": "LoadBalancer" } }))
        .await;
    world
        .hub_is("west", "ServiceReady", "False", "AddressPending")
        .await;
    let given = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } } });
    let api = world.namespace.api::<Service>();
    api.patch_status(
        "iothub-west",
        &PatchParams::default(),
        &Patch::Merge(&given),
    )
    .await
    .unwrap();
    let message = world
        .hub_is("west", "ServiceReady", "True", "Settled")
        .await;
    assert!(message.contains("203.0.113.7"), "{message}");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_in_its_words() {
    let world = World::new().await;
    let bad = json!({ "service": { "annotations": { "not a key": "x" } } });
    world.hub("west", bad).await;
    let message = world
        .hub_is("west", "ServiceReady", "False", "PartRefused")
        .await;
    assert!(message.contains("refuses Service iothub-west"), "{message}");
    // The other parts are made all the same.
    world.there::<Pod>("iothub-west-0").await;
}
