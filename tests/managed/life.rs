//! A hub from its manifest to its end.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment, FINALIZER, IoTHub, RegistrationState};
use rehome::domain::attestation::{KeyPair, SharedKeys, fingerprint};
use rehome::domain::ids::RegistrationId;
use rehome_testing::Postgres;
use serde_json::{Value, json};

use super::world::{World, condition};

const KEY: &str = "cHJpbWFyeS1wcmltYXJ5IQ==";

impl World {
    /// A registration as the gateway creates it after an attestation.
    async fn register(&self, id: &str, hub: &str) {
        self.apply(json!({ "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "keys", "labels": { "rehome.dev/attestation": "true" } },
            "stringData": { "primaryKey": KEY, "secondaryKey": KEY } }))
            .await;
        let spec = json!({ "group": {},
            "attestation": { "symmetricKey": { "secretRef": { "name": "keys" } } } });
        self.apply(
            json!({ "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": "line" }, "spec": spec }),
        )
        .await;
        let enrollment: Enrollment = self.there("line").await;
        let parsed: RegistrationId = id.parse().unwrap();
        let group = KeyPair {
            primary: KEY.parse().unwrap(),
            secondary: KEY.parse().unwrap(),
        };
        let keys = SharedKeys::Group(group).keys_for(&parsed);
        let request = json!({ "operationId": format!("5.{id}"), "apiVersion": "2021-06-01",
            "enrollment": { "name": "line", "uid": enrollment.metadata.uid },
            "credential": fingerprint(&parsed, &keys), "proposedHub": hub,
            "reason": "InitialAssignment", "requestedAt": "2026-11-23T06:20:33.000000Z" });
        let object: Value = json!({ "apiVersion": "rehome.dev/v1alpha1",
            "kind": "DeviceRegistration",
            "metadata": { "name": id, "finalizers": [FINALIZER] },
            "spec": { "registrationId": id, "request": request } });
        let gateway = self.operator.gateway.client.clone();
        let api: Api<DeviceRegistration> = Api::namespaced(gateway, self.namespace.name());
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
        self.until("an assignment", id, |seen: &DeviceRegistration| {
            (seen.status.as_ref()?.state == Some(RegistrationState::Assigned)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_hub_runs_from_its_pod_takes_a_device_and_stays_until_the_device_has_gone() {
    let world = World::new().await;
    world
        .hub("west", json!({ "deletionPolicy": "Delete" }))
        .await;
    let mut process = world.run_west().await;
    world
        .hub_is("west", "Ready", "False", "WorkloadStarting")
        .await;
    world.pod_runs("west").await;
    world.hub_is("west", "Ready", "True", "Settled").await;
    let hub: IoTHub = world.there("west").await;
    assert_eq!(hub.finalizers(), [FINALIZER]);
    assert!(
        hub.status
            .as_ref()
            .unwrap()
            .guarantees
            .contains(&"fence".to_owned())
    );
    for (type_, status) in [
        ("Reachable", "True"),
        ("CredentialsValid", "True"),
        ("WorkloadReady", "True"),
        ("CertificateReady", "True"),
        ("ServiceReady", "True"),
        ("Stalled", "False"),
        ("Reconciling", "False"),
    ] {
        assert_eq!(condition(&hub, type_).unwrap().status, status, "{type_}");
    }
    world.register("press-7", "west").await;

    // A hub at rest costs nothing: passes write and read what is missing, and nothing else.
    let audit = world.cluster.audit().unwrap();
    world
        .until("the count", "west", |hub: &IoTHub| {
            (hub.status.as_ref()?.assigned_devices == Some(1)).then_some(())
        })
        .await;
    let mark = audit.mark().unwrap();
    for pass in 0..5 {
        let label = json!({ "metadata": { "labels": { "pass": pass.to_string() } } });
        world.merge::<IoTHub>("west", label).await;
    }
    world.delete::<PodDisruptionBudget>("iothub-west").await;
    world.there::<PodDisruptionBudget>("iothub-west").await;
    let user = &world.operator.controller.user;
    let seen = audit.since(mark).unwrap();
    let seen = seen.by(user).in_namespace(world.namespace.name());
    let seen = seen.only(|request| request.verb != "watch");
    assert_eq!(seen.count("get", "poddisruptionbudgets"), 1, "{seen}");
    assert_eq!(seen.count("patch", "poddisruptionbudgets"), 1, "{seen}");
    assert_eq!(seen.len(), 2, "{seen}");

    world.delete::<IoTHub>("west").await;
    let message = world.hub_is("west", "Ready", "False", "InUse").await;
    assert!(message.contains("press-7"), "{message}");
    world.delete::<StatefulSet>("iothub-west").await;
    world.there::<StatefulSet>("iothub-west").await;

    // The new pod is the old one's successor: the process goes on in its place.
    world.pod_runs("west").await;
    world
        .there::<PersistentVolumeClaim>("data-iothub-west-0")
        .await;
    world.delete::<DeviceRegistration>("press-7").await;
    world.gone::<IoTHub>("west").await;
    world.gone::<StatefulSet>("iothub-west").await;
    world.gone::<Secret>("iothub-west-key").await;
    world.there::<Secret>("iothub-ca").await;
    world
        .gone::<PersistentVolumeClaim>("data-iothub-west-0")
        .await;
    process.kill().unwrap();
}

#[tokio::test]
async fn the_volume_stays_unless_the_policy_lets_it_go() {
    let world = World::new().await;
    let claim = "data-iothub-east-0";
    world.hub("east", json!({})).await;
    let before: PersistentVolumeClaim = world.there(claim).await;
    world.delete::<IoTHub>("east").await;
    world.gone::<StatefulSet>("iothub-east").await;
    // A hub of the same name finds it again.
    world
        .hub("east", json!({ "deletionPolicy": "Delete" }))
        .await;
    world.there::<StatefulSet>("iothub-east").await;
    let kept: PersistentVolumeClaim = world.there(claim).await;
    assert_eq!(before.metadata.uid, kept.metadata.uid);
    assert_eq!(kept.metadata.deletion_timestamp, None);
    // The set would make the claim anew as long as it is there itself.
    let of_set = |claim: &PersistentVolumeClaim| {
        let owners = claim.metadata.owner_references.iter().flatten();
        owners
            .into_iter()
            .find(|owner| owner.kind == "StatefulSet")
            .map(drop)
    };
    world
        .until("the claim to go with its StatefulSet", claim, of_set)
        .await;
    world.delete::<IoTHub>("east").await;
    world.gone::<IoTHub>("east").await;
    world.gone::<PersistentVolumeClaim>(claim).await;
}

#[tokio::test]
async fn a_hub_in_postgresql_serves_without_a_volume() {
    let mut server = Postgres::start().await.unwrap();
    let world = World::new().await;
    let storage = json!({ "postgres": { "secretRef": { "name": "database" } } });
    world.hub("west", json!({ "storage": storage })).await;
    let workload_is = async |reason| world.hub_is("west", "WorkloadReady", "False", reason).await;
    let message = workload_is("SecretMissing").await;
    assert!(message.contains("Secret database"), "{message}");
    let secret = |key: &str, url: &str| {
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "database" },
            "stringData": { key: url } })
    };
    world.apply(secret("uri", &server.url())).await;
    let message = workload_is("SecretInvalid").await;
    assert!(message.contains("has no key url"), "{message}");
    world.apply(secret("url", &server.url())).await;
    workload_is("WorkloadStarting").await;
    let digest = |set: &StatefulSet| {
        let template = &set.spec.as_ref()?.template;
        let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
        annotations.get("rehome.dev/database").cloned()
    };
    let before = world.until("a digest", "iothub-west", digest).await;
    world
        .until("a pod of that template", "iothub-west-0", |pod: &Pod| {
            (pod.annotations().get("rehome.dev/database") == Some(&before)).then_some(())
        })
        .await;

    let mut process = world.run_west().await;
    world.pod_runs("west").await;
    world.hub_is("west", "Ready", "True", "Settled").await;
    world.register("press-7", "west").await;
    let claim = world.find::<PersistentVolumeClaim>("data-iothub-west-0");
    assert!(claim.await.is_none());

    // Where its database is away, the hub's conditions say so and where to read more.
    server.kill().await.unwrap();
    let running = json!({ "state": { "running": {} } });
    world.pod_is("west", false, running).await;
    let ready_is = async |status, reason| world.hub_is("west", "Ready", status, reason).await;
    let message = ready_is("False", "WorkloadStarting").await;
    assert!(
        message.contains("as while its PostgreSQL is away"),
        "{message}"
    );
    assert!(
        message.contains("`kubectl logs iothub-west-0`"),
        "{message}"
    );
    server.restart().await.unwrap();
    world.pod_runs("west").await;
    ready_is("True", "Settled").await;

    // The hub reads its URL when it starts.
    let other = format!("{}&application_name=other", server.url());
    world.apply(secret("url", &other)).await;
    let is_another = |set: &StatefulSet| digest(set).filter(|now| *now != before);
    world
        .until("another digest", "iothub-west", is_another)
        .await;
    tells_nobody(&world, &server).await;
    process.kill().unwrap();
}

/// Nothing that anybody can read of the hub without its Secret has the password of its database.
async fn tells_nobody(world: &World, server: &Postgres) {
    let events = world.namespace.api::<Event>();
    let events = events.list(&ListParams::default()).await.unwrap();
    let told = [
        world.controller.output().unwrap(),
        serde_json::to_string(&world.there::<IoTHub>("west").await).unwrap(),
        serde_json::to_string(&world.there::<StatefulSet>("iothub-west").await).unwrap(),
        serde_json::to_string(&world.there::<Pod>("iothub-west-0").await).unwrap(),
        serde_json::to_string(&events.items).unwrap(),
    ];
    for text in told {
        assert!(!text.contains(server.password()), "{text}");
    }
}
