//! The objects of a managed hub: made, repaired, left alone.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use rehome::api::v1alpha1::IoTHub;
use rehome_testing::expect;
use serde_json::json;

use super::world::{IMAGE, PATIENCE, World, image};

fn data(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

#[tokio::test]
async fn a_hub_is_made_of_restricted_parts_that_belong_to_it() {
    let world = World::new().await;
    world.hub("west", json!({})).await;
    // The StatefulSet controller makes it only if the namespace admits it.
    let pod: Pod = world.there("iothub-west-0").await;
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.containers[0].image.as_deref(), Some(IMAGE));
    let hub: IoTHub = world.there("west").await;
    let owner =
        |references: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
            references
                .iter()
                .map(|owner| owner.uid.clone())
                .collect::<Vec<_>>()
        };
    let owned = [hub.metadata.uid.clone().unwrap()];
    let base = "iothub-west";
    assert_eq!(
        owner(world.there::<StatefulSet>(base).await.owner_references()),
        owned
    );
    assert_eq!(
        owner(world.there::<NetworkPolicy>(base).await.owner_references()),
        owned
    );
    assert_eq!(
        owner(
            world
                .there::<PodDisruptionBudget>(base)
                .await
                .owner_references()
        ),
        owned
    );
    let service: Service = world.there(base).await;
    assert_eq!(owner(service.owner_references()), owned);
    let ports = service.spec.unwrap().ports.unwrap();
    assert_eq!(
        ports.iter().map(|port| port.port).collect::<Vec<_>>(),
        [443, 8883]
    );
    let key: Secret = world.there("iothub-west-key").await;
    assert_eq!(owner(key.owner_references()), owned);
    let certificate: Secret = world.there("iothub-west-tls").await;
    assert_eq!(owner(certificate.owner_references()), owned);
    let authority: Secret = world.there("iothub-ca").await;
    assert!(
        authority.owner_references().is_empty(),
        "it outlives its hubs"
    );
    assert_eq!(data(&certificate, "ca.crt"), data(&authority, "tls.crt"));

    let secret = data(&key, "connectionString");
    let (_, secret) = secret.rsplit_once("SharedAccessKey=").unwrap();
    let status = serde_json::to_string(&hub.status).unwrap();
    let log = world.controller.output().unwrap();
    assert!(
        !status.contains(secret) && !log.contains(secret),
        "the service key is told"
    );
}

#[tokio::test]
async fn what_somebody_edits_or_deletes_is_repaired_and_what_is_well_is_left_alone() {
    let world = World::new().await;
    world.hub("west", json!({})).await;
    let base = "iothub-west";
    world.there::<Pod>("iothub-west-0").await;
    let key: Secret = world.there("iothub-west-key").await;
    world
        .hub_is("west", "CertificateReady", "True", "Settled")
        .await;

    world.delete::<NetworkPolicy>(base).await;
    world.delete::<PodDisruptionBudget>(base).await;
    world.delete::<Service>(base).await;
    world.there::<NetworkPolicy>(base).await;
    world.there::<PodDisruptionBudget>(base).await;
    world.there::<Service>(base).await;
    let ours = world.there::<NetworkPolicy>(base).await.spec;
    world
        .merge::<NetworkPolicy>(base, json!({ "spec": { "egress": [{}] } }))
        .await;
    world
        .until("the policy as it was", base, |now: &NetworkPolicy| {
            (now.spec == ours).then_some(())
        })
        .await;
    world
        .merge::<Service>(base, json!({ "spec": { "selector": { "app": "evil" } } }))
        .await;
    world
        .until("the selector as it was", base, |service: &Service| {
            let selector = service.spec.as_ref()?.selector.as_ref()?;
            (selector.get("app.kubernetes.io/instance")? == base).then_some(())
        })
        .await;
    world
        .merge::<StatefulSet>(base, json!({ "spec": { "replicas": 0 } }))
        .await;
    world
        .until("a replica", base, |set: &StatefulSet| {
            (set.spec.as_ref()?.replicas == Some(1)).then_some(())
        })
        .await;
    // An object that lost its label is not shown any more, and still ours.
    let unlabelled = json!({ "metadata": { "labels": { "rehome.dev/component": null } } });
    world.merge::<PodDisruptionBudget>(base, unlabelled).await;
    world
        .until("the label", base, |budget: &PodDisruptionBudget| {
            budget.labels().get("rehome.dev/component").map(|_| ())
        })
        .await;
    world.delete::<Secret>("iothub-west-tls").await;
    world.there::<Secret>("iothub-west-tls").await;
    let same: Secret = world.there("iothub-west-key").await;
    assert_eq!(
        key.metadata.resource_version, same.metadata.resource_version,
        "the key was touched"
    );
}

#[tokio::test]
async fn passes_that_find_nothing_to_do_write_nothing() {
    let world = World::new().await;
    let base = "iothub-west";
    let written_otherwise = json!({ "resources": { "requests": { "cpu": "0.5" } } });
    world.hub("west", written_otherwise).await;
    world.there::<Pod>("iothub-west-0").await;
    world
        .hub_is("west", "WorkloadReady", "False", "WorkloadStarting")
        .await;
    world
        .hub_is("west", "ServiceReady", "True", "Settled")
        .await;
    world.pod_runs("west").await;
    world
        .hub_is("west", "WorkloadReady", "True", "Settled")
        .await;
    // Nobody answers there, which is found out once, and then told.
    world
        .hub_is("west", "Ready", "False", "HubUnreachable")
        .await;
    let events = world.namespace.api::<Event>();
    expect("an event of it", PATIENCE, async || {
        let events = events.list(&ListParams::default()).await.ok()?;
        let mut reasons = events.items.iter().filter_map(|one| one.reason.as_deref());
        reasons.find(|reason| *reason == "HubUnreachable").map(drop)
    })
    .await;
    let audit = world.cluster.audit().unwrap();
    let mark = audit.mark().unwrap();
    for pass in 0..5 {
        let label = json!({ "metadata": { "labels": { "pass": pass.to_string() } } });
        world.merge::<IoTHub>("west", label).await;
    }
    world.delete::<PodDisruptionBudget>(base).await;
    world.there::<PodDisruptionBudget>(base).await;
    let user = &world.operator.controller.user;
    let written = audit
        .since(mark)
        .unwrap()
        .by(user)
        .in_namespace(world.namespace.name())
        .writes();
    assert_eq!(
        written.count("patch", "poddisruptionbudgets"),
        1,
        "{written}"
    );
    assert_eq!(written.len(), 1, "{written}");
}

#[tokio::test]
async fn what_is_somebody_elses_is_not_taken() {
    let world = World::new().await;
    world
        .apply(
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "iothub-west" },
            "spec": { "ports": [{ "port": 80 }] } }),
        )
        .await;
    world
        .apply(
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "iothub-west-key" },
            "stringData": { "mine": "yes" } }),
        )
        .await;
    world.hub("west", json!({})).await;
    let message = world
        .hub_is("west", "ServiceReady", "False", "NameTaken")
        .await;
    assert!(
        message.contains("Service iothub-west is there and not this IoTHub's"),
        "{message}"
    );
    let message = world
        .hub_is("west", "WorkloadReady", "False", "NameTaken")
        .await;
    assert!(message.contains("Secret iothub-west-key"), "{message}");
    world.hub_is("west", "Stalled", "True", "NameTaken").await;
    let service: Service = world.there("iothub-west").await;
    assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 80);
    let secret: Secret = world.there("iothub-west-key").await;
    assert_eq!(data(&secret, "mine"), "yes");

    world.delete::<Secret>("iothub-west-key").await;
    world
        .hub_is("west", "WorkloadReady", "False", "WorkloadStarting")
        .await;
    world.delete::<Service>("iothub-west").await;
    world
        .hub_is("west", "ServiceReady", "True", "Settled")
        .await;
}

#[tokio::test]
async fn a_changed_spec_changes_the_parts_and_a_field_that_goes_goes_from_them() {
    let world = World::new().await;
    let annotated = json!({ "service": { "annotations": { "example.com/a": "b" } } });
    world.hub("west", annotated).await;
    let annotation = |service: &Service| service.annotations().get("example.com/a").cloned();
    world
        .until("an annotation", "iothub-west", annotation)
        .await;
    world
        .merge::<IoTHub>(
            "west",
            json!({ "spec": { "managed": { "service": null } } }),
        )
        .await;
    let none = |service: &Service| annotation(service).is_none().then_some(());
    world.until("no annotation", "iothub-west", none).await;
    let limits =
        json!({ "spec": { "managed": { "resources": { "limits": { "memory": "1Gi" } } } } });
    world.merge::<IoTHub>("west", limits).await;
    let memory = |set: &StatefulSet| {
        let pod = set.spec.as_ref()?.template.spec.as_ref()?;
        let limits = pod.containers[0].resources.as_ref()?.limits.as_ref()?;
        limits.get("memory").map(|amount| amount.0.clone())
    };
    let is_1g = |set: &StatefulSet| (memory(set)? == "1Gi").then(|| image(set));
    assert_eq!(
        world.until("more memory", "iothub-west", is_1g).await,
        IMAGE
    );
}

#[tokio::test]
async fn whoever_steals_the_controllers_token_gets_no_further() {
    let world = World::new().await;
    world.hub("west", json!({})).await;
    let set: StatefulSet = world.there("iothub-west").await;
    let client = world.operator.controller.client.clone();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), world.namespace.name());
    let secret = |name: &str| -> Secret {
        serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
    };
    secrets
        .create(&dry_run, &secret("iothub-other-key"))
        .await
        .unwrap();
    let error = secrets
        .create(&dry_run, &secret("other"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("objects named iothub-* only"), "{error}");

    let sets: Api<StatefulSet> = Api::namespaced(client, world.namespace.name());
    let with = |change: &dyn Fn(&mut serde_json::Value)| -> StatefulSet {
        let mut pod = serde_json::to_value(&set).unwrap();
        pod["metadata"] = json!({ "name": "iothub-other" });
        pod.as_object_mut().unwrap().remove("status");
        change(&mut pod["spec"]["template"]["spec"]);
        serde_json::from_value(pod).unwrap()
    };
    sets.create(&dry_run, &with(&|_| {})).await.unwrap();
    for change in [
        &|pod: &mut serde_json::Value| pod["serviceAccountName"] = "admin".into(),
        &|pod| pod["automountServiceAccountToken"] = true.into(),
        &|pod| pod["hostNetwork"] = true.into(),
        &|pod| pod["securityContext"]["runAsNonRoot"] = false.into(),
        &|pod| pod["containers"][0]["args"] = json!(["gateway"]),
        &|pod| pod["volumes"][0] = json!({ "name": "tls", "hostPath": { "path": "/" } }),
        &|pod| pod["volumes"][0] = json!({ "name": "tls", "configMap": { "name": "others" } }),
    ] as [&dyn Fn(&mut serde_json::Value); 7]
    {
        let error = sets
            .create(&dry_run, &with(change))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is a hub's, without rights of its own"),
            "{error}"
        );
    }
}
