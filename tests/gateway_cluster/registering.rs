//! From the first registration to the last.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use rehome::api::v1alpha1::{DeviceRegistration, FINALIZER, RegistrationState};
use rehome_testing::expect;
use serde_json::json;

use crate::plant::{PATIENCE, Plant};

#[tokio::test]
async fn a_first_registration_is_one_create_and_every_replica_knows_the_operation() {
    let plant = Plant::new().await;
    let (one, two) = tokio::join!(plant.gateway(), plant.gateway());
    let device = plant.device("Press-7");
    let mark = plant.mark();
    let first = one.register_until(&device, 202).await;
    assert_eq!(first.body["status"], "assigning");

    let record = plant.record("press-7").await.unwrap();
    assert_eq!(record.finalizers(), [FINALIZER]);
    assert_eq!(
        record.managed_fields()[0].manager.as_deref(),
        Some("rehome-gateway")
    );
    assert_eq!(record.spec.registration_id, "Press-7");
    let request = record.spec.request.unwrap();
    assert_eq!(request.operation_id, first.operation());
    assert_eq!(
        (request.proposed_hub.as_deref(), request.reason.as_str()),
        (Some("west"), "InitialAssignment")
    );
    assert_eq!(
        (
            request.enrollment.name.as_str(),
            request.api_version.as_str()
        ),
        ("line-3", "2019-03-31")
    );
    assert!(!request.verify_home);

    // Another replica, also at once.
    assert_eq!(two.poll(&device, first.operation()).await.status, 202);
    assert_eq!(two.register(&device).await.operation(), first.operation());
    plant.finish("press-7", RegistrationState::Assigned).await;
    for gateway in [&one, &two] {
        let body = gateway
            .poll_until(&device, first.operation(), "assigned")
            .await;
        let registration = &body["registrationState"];
        assert_eq!(registration["assignedHub"], "west.example.com");
        assert_eq!(registration["symmetricKey"]["enrollmentGroupId"], "line-3");
    }
    let asked = plant.asked_since(mark);
    assert_eq!(asked.count("create", "deviceregistrations"), 1, "{asked}");
    assert!(asked.count("get", "deviceregistrations") <= 1, "{asked}");
    assert!(asked.len() <= 2, "{asked}");

    // And one that knows nothing but what is in the cluster.
    let three = plant.gateway().await;
    assert_eq!(three.poll(&device, first.operation()).await.status, 200);
}

#[tokio::test]
async fn an_unchanged_device_costs_nothing_and_a_changed_one_a_patch() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    let device = plant.device("press-8");
    let first = gateway.register_until(&device, 202).await;
    plant.finish("press-8", RegistrationState::Assigned).await;
    gateway
        .poll_until(&device, first.operation(), "assigned")
        .await;

    let mark = plant.mark();
    for _ in 0..3 {
        let again = gateway.register(&device).await;
        assert_eq!(
            (again.status, &again.body["status"]),
            (202, &json!("assigned"))
        );
        assert_eq!(again.operation(), first.operation());
    }
    let asked = plant.asked_since(mark);
    assert!(asked.is_empty(), "{asked}");

    let mark = plant.mark();
    plant
        .change_enrollment(json!({ "reprovisionPolicy": "MigrateData" }))
        .await;
    let changed = expect("a new operation", PATIENCE, async || {
        let reply = gateway.register(&device).await;
        (reply.status == 202 && reply.operation() != first.operation()).then_some(reply)
    })
    .await;
    let asked = plant.asked_since(mark);
    assert_eq!(
        (asked.len(), asked.count("patch", "deviceregistrations")),
        (1, 1),
        "{asked}"
    );
    let request = plant.record("press-8").await.unwrap().spec.request.unwrap();
    assert_eq!(
        (request.operation_id.as_str(), request.reason.as_str()),
        (changed.operation(), "MigrateData")
    );
    assert_eq!(
        request.proposed_hub, None,
        "the request before leaves nothing behind"
    );
    // The first operation has an answer of its own.
    let past = gateway.poll(&device, first.operation()).await;
    assert_eq!(
        (past.status, &past.body["status"]),
        (200, &json!("assigned"))
    );
}

#[tokio::test]
async fn two_gateways_at_once_begin_one_operation() {
    let plant = Plant::new().await;
    let (one, two) = tokio::join!(plant.gateway(), plant.gateway());
    one.register_until(&plant.device("warm-up"), 202).await;
    two.register_until(&plant.device("warm-up"), 202).await;
    for number in 0..10 {
        let device = plant.device(&format!("twin-{number}"));
        let (first, second) = tokio::join!(one.register(&device), two.register(&device));
        assert_eq!((first.status, second.status), (202, 202));
        assert_eq!(first.operation(), second.operation());
        let record = plant.record(&device.id).await.unwrap();
        assert_eq!(record.spec.request.unwrap().operation_id, first.operation());
    }
}

#[tokio::test]
async fn a_deleted_registration_is_made_again_once_it_is_gone() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    let device = plant.device("press-9");
    let first = gateway.register_until(&device, 202).await;
    plant.finish("press-9", RegistrationState::Assigned).await;
    gateway
        .poll_until(&device, first.operation(), "assigned")
        .await;
    let before = plant.record("press-9").await.unwrap().uid();
    let records = plant.namespace.api::<DeviceRegistration>();
    records
        .delete("press-9", &DeleteParams::default())
        .await
        .unwrap();
    expect("the gateway to see it go", PATIENCE, async || {
        let reply = gateway.poll(&device, first.operation()).await;
        (reply.status == 404).then_some(())
    })
    .await;
    // The device does not wait for ever, and is not told a lie.
    assert_eq!(gateway.register(&device).await.status, 503);
    let (again, ()) = tokio::join!(gateway.register(&device), plant.let_go("press-9"));
    assert_eq!(again.status, 202, "{again:?}");
    assert_ne!(again.operation(), first.operation());
    let record = plant.record("press-9").await.unwrap();
    assert_ne!(record.uid(), before);
    assert_eq!(record.finalizers(), [FINALIZER]);
}

#[tokio::test]
async fn a_disabled_enrollment_is_recorded_once() {
    let plant = Plant::new().await;
    plant
        .change_enrollment(json!({ "provisioningStatus": "Disabled" }))
        .await;
    let gateway = plant.gateway().await;
    let device = plant.device("press-10");
    let reply = gateway.register_until(&device, 202).await;
    let request = plant
        .record("press-10")
        .await
        .unwrap()
        .spec
        .request
        .unwrap();
    assert_eq!(
        (request.reason.as_str(), request.proposed_hub),
        ("EnrollmentDisabled", None)
    );
    plant.finish("press-10", RegistrationState::Disabled).await;
    gateway
        .poll_until(&device, reply.operation(), "disabled")
        .await;
    let mark = plant.mark();
    for _ in 0..3 {
        assert_eq!(gateway.register(&device).await.body["status"], "disabled");
    }
    let asked = plant.asked_since(mark);
    assert!(asked.is_empty(), "{asked}");
}

#[tokio::test]
async fn a_group_has_no_more_registrations_than_it_may() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    gateway.register_until(&plant.device("one"), 202).await;
    plant
        .change_enrollment(json!({ "maxRegistrations": 1 }))
        .await;
    // A device that was let in before the gateway knew of the limit stays; the next one is not.
    let mut strangers = (2..).map(|number| plant.device(&format!("number-{number}")));
    let refused = expect("the limit to be known", PATIENCE, async || {
        let reply = gateway.register(&strangers.next()?).await;
        (reply.status == 403).then_some(reply)
    })
    .await;
    assert_eq!(refused.body["errorCode"], 403_001);
    assert_eq!(gateway.register(&plant.device("one")).await.status, 202);
}

#[tokio::test]
async fn ids_that_are_no_kubernetes_names_have_records_of_their_own() {
    let plant = Plant::new().await;
    let gateway = plant.gateway().await;
    gateway.register_until(&plant.device("sn-aa"), 202).await;
    for id in ["sn:aa", "sn_aa", "SN.aa", "sn-aa-"] {
        assert_eq!(
            gateway.register(&plant.device(id)).await.status,
            202,
            "{id}"
        );
    }
    let records = plant.namespace.api::<DeviceRegistration>();
    let all = records.list(&ListParams::default()).await.unwrap();
    let mut ids: Vec<_> = all
        .into_iter()
        .map(|record| record.spec.registration_id)
        .collect();
    ids.sort();
    assert_eq!(ids, ["SN.aa", "sn-aa", "sn-aa-", "sn:aa", "sn_aa"]);
}
