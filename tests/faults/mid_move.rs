//! What happens to a move while it is open. The target does not answer meanwhile, so that the move
//! is held where nothing is decided yet.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use rehome::api::v1alpha1::{ConditionType, DeviceRegistration, Enrollment, IoTHub, is_true};
use rehome_testing::fleet::Group;
use rehome_testing::{Signal, expect, expect_ok};
use serde_json::json;

use crate::floor::{Device, EAST, Floor, PATIENCE, WEST};

type Answer = tokio::task::JoinHandle<anyhow::Result<rehome_testing::device::Told>>;

/// A device in the middle of a move to the east, which does not answer.
async fn held(floor: &mut Floor, name: &str) -> (Group, Device, Answer) {
    let group = floor.group(name).await;
    let device = floor.newcomer(&group, "one").await;
    floor.retarget(&group, EAST).await;
    floor.signal(EAST, Signal::STOP);
    let answer = floor.registering(&device);
    floor.is_moving(&device).await;
    (group, device, answer)
}

pub(crate) async fn an_edit_applies_after_the_move(floor: &mut Floor) {
    let (group, device, answer) = held(floor, "edited").await;
    floor
        .edit(&group, &json!({ "allocation": { "hubs": [WEST] } }))
        .await;
    floor.signal(EAST, Signal::CONT);
    let told = answer.await.unwrap().unwrap();
    assert_eq!(told.hub, floor.hub(EAST).host(), "the move was fixed");
    floor.lives_at(&device, EAST).await;
    let told = expect_ok("the way back", PATIENCE, async || {
        let told = floor.register(&device.applicant).await.unwrap();
        if told.hub == floor.hub(WEST).host() {
            Ok(told)
        } else {
            Err(told)
        }
    });
    assert_eq!(told.await.substatus, "deviceDataMigrated");
    floor.lives_at(&device, WEST).await;
}

pub(crate) async fn a_disabled_enrollment_applies_after_the_move(floor: &mut Floor) {
    let (group, device, answer) = held(floor, "disabled").await;
    floor
        .edit(&group, &json!({ "provisioningStatus": "Disabled" }))
        .await;
    floor.signal(EAST, Signal::CONT);
    // Disabled or not by now, the device is told one thing or the other, and its data is safe.
    let _ = answer.await.unwrap();
    floor.lives_at(&device, EAST).await;
    let told = expect_ok("the refusal", PATIENCE, async || {
        let told = floor.register(&device.applicant).await.unwrap();
        if told.status == "disabled" {
            Ok(told)
        } else {
            Err(told)
        }
    });
    assert_eq!(told.await.hub, "");
}

pub(crate) async fn a_deleted_enrollment_does_not_stop_the_move(floor: &mut Floor) {
    let (group, device, answer) = held(floor, "deleted").await;
    let enrollments: Api<Enrollment> = floor.tenant.namespace.api();
    let deletion = DeleteParams::default();
    enrollments.delete(&group.name, &deletion).await.unwrap();
    floor.signal(EAST, Signal::CONT);
    // Nobody vouches for the device any more, so it may be refused before the move is over.
    let _ = answer.await.unwrap();
    floor.lives_at(&device, EAST).await;
    let refused = expect_ok("the refusal", PATIENCE, async || {
        match floor.register(&device.applicant).await {
            Err(error) => Ok(format!("{error:#}")),
            Ok(told) => Err(told),
        }
    });
    let refused = refused.await;
    assert!(refused.contains("answered 40"), "{refused}");
}

pub(crate) async fn a_registration_deleted_and_made_again_starts_afresh(floor: &mut Floor) {
    let (_, device, answer) = held(floor, "remade").await;
    let name = &device.applicant.registration_id;
    let registrations = floor.registrations();
    let before = registrations.get(name).await.unwrap().metadata.uid;
    let deletion = DeleteParams::default();
    registrations.delete(name, &deletion).await.unwrap();
    floor.signal(EAST, Signal::CONT);
    // The answer to the old operation, or none.
    let _ = answer.await.unwrap();
    let told = expect_ok("a new registration", PATIENCE, async || {
        match floor.register(&device.applicant).await {
            Ok(told) if told.substatus == "initialAssignment" => {
                let record = registrations.get(name).await.unwrap();
                if record.metadata.uid == before {
                    Err(format!("{told:?}"))
                } else {
                    Ok(told)
                }
            }
            other => Err(format!("{other:?}")),
        }
    });
    let (told, east) = (told.await, floor.hub(EAST));
    assert_eq!(told.hub, east.host());
    let record: DeviceRegistration = floor.rests(&device).await;
    let identity = east.identity(name).await.unwrap().unwrap();
    let generation = record.status.unwrap().generation_id;
    assert_eq!(identity["generationId"].as_str(), generation.as_deref());
    assert_eq!(east.twin(name).await.unwrap().unwrap().reported, json!({}));
    assert_eq!(floor.hub(WEST).identity(name).await.unwrap(), None);
}

pub(crate) async fn a_hub_that_loses_its_secret_is_not_moved_to(floor: &mut Floor) {
    let (_, device, answer) = held(floor, "keyless").await;
    let secrets: Api<Secret> = floor.tenant.namespace.api();
    let name = format!("{EAST}-credentials");
    secrets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    let hubs: Api<IoTHub> = floor.tenant.namespace.api();
    expect("the hub to miss its Secret", PATIENCE, async || {
        let status = hubs.get_status(EAST).await.unwrap().status?;
        let mut conditions = status.conditions.iter();
        conditions
            .any(|one| one.type_ == ConditionType::Ready.as_str() && one.reason == "SecretMissing")
            .then_some(())
    })
    .await;
    floor.signal(EAST, Signal::CONT);
    let told = answer.await.unwrap().unwrap();
    assert_eq!(told.hub, floor.hub(WEST).host(), "the move is given up");
    floor.tenant.add_hub(floor.hub(EAST)).await.unwrap();
    let status = hubs.get_status(EAST).await.unwrap().status.unwrap();
    assert!(is_true(&status.conditions, ConditionType::Ready));
    floor.lives_at(&device, WEST).await;
}
