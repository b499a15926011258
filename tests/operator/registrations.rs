//! What surrounds registrations: counters, the hub that is in use, Enrollments that take their
//! registrations with them.

use rehome::api::v1alpha1::{
    DeviceRegistration, Enrollment, FINALIZER, IoTHub, RegistrationState, is_true,
};
use rehome::domain::attestation::{KeyPair, fingerprint};
use rehome::domain::ids::RegistrationId;
use rehome_testing::expect_ok;
use serde_json::json;

use super::world::{PATIENCE, PRIMARY, SECONDARY, World, group};

impl World {
    /// A registration as the gateway creates it after an attestation.
    async fn register(&self, id: &str, enrollment: &str, hub: &str) {
        let parsed: RegistrationId = id.parse().unwrap();
        let found = self.get::<Enrollment>(enrollment).await.unwrap();
        let group = KeyPair {
            primary: PRIMARY.parse().unwrap(),
            secondary: SECONDARY.parse().unwrap(),
        };
        let keys = rehome::domain::attestation::SharedKeys::Group(group).keys_for(&parsed);
        let _: DeviceRegistration = self
            .create_as_gateway(json!({
                "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
                "metadata": {"name": id, "finalizers": [FINALIZER]},
                "spec": {"registrationId": id, "request": {
                    "operationId": format!("5.{id}"), "apiVersion": "2021-06-01",
                    "enrollment": {"name": enrollment, "uid": found.metadata.uid},
                    "credential": fingerprint(&parsed, &keys),
                    "proposedHub": hub, "reason": "InitialAssignment",
                    "requestedAt": "2026-11-23T06:20:33.000000Z"}},
            }))
            .await;
    }

    async fn assigned(&self, name: &str) -> DeviceRegistration {
        expect_ok("an assignment", PATIENCE, async || {
            let found = self.get::<DeviceRegistration>(name).await.unwrap();
            let status = found.status.clone().unwrap_or_default();
            let settled = status.state == Some(RegistrationState::Assigned);
            if settled { Ok(found) } else { Err(status) }
        })
        .await
    }
}

#[tokio::test]
async fn a_hub_that_is_in_use_waits_until_nothing_refers_to_it() {
    let world = World::new().await;
    let hub = world.hub("west").await;
    world.hub_is("west", "True", "Settled").await;
    world.attestation_secret("keys").await;
    world.apply(group("line", "keys", &json!({}))).await;
    world.enrollment_is("line", "True", "Settled").await;
    world.register("press-7", "line", "west").await;
    let assigned = world.assigned("press-7").await;
    assert_eq!(
        assigned.status.unwrap().assigned_hub,
        Some(hub.host.clone())
    );
    expect_ok("counters", PATIENCE, async || {
        let hub = world.get::<IoTHub>("west").await.unwrap().status.unwrap();
        let line = world
            .get::<Enrollment>("line")
            .await
            .unwrap()
            .status
            .unwrap();
        let counts = line.registrations.unwrap();
        let seen = (
            hub.assigned_devices,
            counts.total,
            counts.assigned,
            counts.would_move,
        );
        if seen == (Some(1), 1, 1, 0) {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;

    world.delete::<IoTHub>("west").await;
    let kept = world.hub_is("west", "False", "InUse").await;
    let status = kept.status.unwrap();
    let why = status
        .conditions
        .iter()
        .find(|known| known.type_ == "Ready")
        .unwrap();
    assert!(
        why.message
            .contains("1 registrations refer to this hub, for example press-7")
    );
    assert!(is_true(
        &status.conditions,
        rehome::api::v1alpha1::ConditionType::Reachable
    ));
    world.delete::<DeviceRegistration>("press-7").await;
    world.gone::<DeviceRegistration>("press-7").await;
    world.gone::<IoTHub>("west").await;
}

#[tokio::test]
async fn an_enrollment_that_says_so_takes_its_registrations_with_it() {
    let world = World::new().await;
    let _hub = world.hub("west").await;
    world.hub_is("west", "True", "Settled").await;
    world.attestation_secret("keys").await;
    for (name, policy) in [("keeps", "Retain"), ("takes", "Delete")] {
        world
            .apply(group(name, "keys", &json!({"deletionPolicy": policy})))
            .await;
        world.enrollment_is(name, "True", "Settled").await;
        world.register(&format!("{name}-1"), name, "west").await;
        world.assigned(&format!("{name}-1")).await;
    }
    for name in ["keeps", "takes"] {
        world.delete::<Enrollment>(name).await;
        world.gone::<Enrollment>(name).await;
    }
    world.gone::<DeviceRegistration>("takes-1").await;
    let kept = world.get::<DeviceRegistration>("keeps-1").await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn a_settled_namespace_is_left_alone() {
    let world = World::new().await;
    let _hub = world.hub("west").await;
    world.hub_is("west", "True", "Settled").await;
    world.attestation_secret("keys").await;
    world.apply(group("line", "keys", &json!({}))).await;
    world.enrollment_is("line", "True", "Settled").await;
    world.register("press-7", "line", "west").await;
    world.assigned("press-7").await;
    let line = |enrollment: Enrollment| enrollment.status.unwrap().registrations.unwrap();
    expect_ok("counters", PATIENCE, async || {
        let counts = line(world.get::<Enrollment>("line").await.unwrap());
        let hub = world.get::<IoTHub>("west").await.unwrap().status.unwrap();
        let done = counts.assigned == 1 && hub.assigned_devices == Some(1);
        if done { Ok(()) } else { Err(counts) }
    })
    .await;
    let audit = world.cluster.audit().unwrap();
    let mark = audit.mark().unwrap();
    let writes = || {
        let requests = audit.since(mark).unwrap();
        let user = &world.operator.controller.user;
        requests
            .by(user)
            .in_namespace(world.namespace.name())
            .writes()
    };
    // Longer than counters are held back, and than any pause between passes that are not settled.
    let quiet = std::time::Duration::from_secs(15);
    let disturbed = tokio::time::timeout(
        quiet,
        rehome_testing::expect("a write", PATIENCE, async || {
            (!writes().is_empty()).then(&writes)
        }),
    )
    .await;
    assert!(disturbed.is_err(), "{}", disturbed.unwrap());
}
