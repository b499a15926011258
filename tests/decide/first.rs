//! First assignments: a device that has no home gets one.

use rehome::api::v1alpha1::Substatus;

use crate::plays;
use crate::stage::{Stage, reported};

#[test]
fn a_first_assignment_is_two_calls_and_one_record() {
    plays(
        &mut Stage::new(),
        &[
            "create at a disabled for op1",
            "enable at a with \"rehome u op1\", live",
            "record Assigned InitialAssignment",
            "settled",
        ],
    );
}

#[test]
fn an_existing_device_is_adopted_with_its_twin() {
    let mut stage = Stage::new();
    stage.put("a", true, "");
    stage.hub("a").content = reported(1);
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "look at the identity at a",
            "enable at a with \"rehome u op1 adopted\", new keys, live",
            "record Assigned Adopted",
            "settled",
        ],
    );
    assert_eq!(stage.hub("a").content, reported(1));
    assert_eq!(
        stage.status.substatus,
        Some(Substatus::ReprovisionedToInitialAssignment)
    );
}

#[test]
fn a_device_that_its_operator_disabled_is_adopted_disabled() {
    let mut stage = Stage::new();
    stage.put("a", false, "in repair");
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "look at the identity at a",
            "disable at a with \"in repair\", new keys, live",
            "record Assigned Adopted",
            "settled",
        ],
    );
}

#[test]
fn existing_devices_are_refused_where_the_hub_says_so() {
    let mut stage = Stage::new();
    stage.put("a", true, "");
    stage.hub("a").refuses_existing = true;
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "look at the identity at a",
            "record Failed ExistingDeviceRefused",
            "settled",
        ],
    );
}

#[test]
fn a_device_id_of_another_registration_is_taken() {
    let mut stage = Stage::new();
    stage.put("a", true, "rehome other t9");
    stage.others = vec!["other"];
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "look at the identity at a",
            "record Failed DeviceIdTaken",
            "settled",
        ],
    );
}

#[test]
fn a_leftover_of_a_registration_that_is_gone_makes_room() {
    let mut stage = Stage::new();
    stage.put("a", false, "rehome gone t9");
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "look at the identity at a",
            "delete at a, live",
            "create at a disabled for op1",
            "enable at a with \"rehome u op1\", live",
            "record Assigned InitialAssignment",
            "settled",
        ],
    );
}

#[test]
fn a_first_assignment_goes_elsewhere_when_the_hub_refuses() {
    let mut stage = Stage::new();
    stage.hub("a").refuses = true;
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "record Assigning InitialAssignment, cleanup a",
            "create at b disabled for t1",
            "enable at b with \"rehome u t1\", live",
            "record Assigned InitialAssignment, cleanup a",
            "look at the identity at a",
            "record Assigned Settled",
            "settled",
        ],
    );
}

#[test]
fn a_disabled_enrollment_ends_the_request_and_leaves_nothing() {
    let mut stage = Stage::new();
    stage.meanwhile = Some((2, |stage| stage.enrolled().disabled = true));
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "enable at a with \"rehome u op1\", live",
            "record Disabled EnrollmentDisabled, cleanup a",
            "look at the identity at a",
            "delete at a, live",
            "record Disabled CleaningUp",
            "settled",
        ],
    );
    assert!(stage.hub("a").identity.is_none());
}

#[test]
fn a_deletion_in_the_middle_of_a_first_assignment_removes_what_was_made() {
    let mut stage = Stage::new();
    stage.meanwhile = Some((1, |stage| stage.deleting = true));
    plays(
        &mut stage,
        &[
            "create at a disabled for op1",
            "delete at a, live",
            "release",
        ],
    );
}

#[test]
fn after_a_restore_a_device_is_looked_for_everywhere_first() {
    let mut stage = Stage::new();
    stage.put("b", true, "rehome gone t9");
    stage.look_everywhere = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "look at the identity at b",
            "record Assigning InitialAssignment, cleanup a",
            "look at the identity at a",
            "look at the identity at b",
            "enable at b with \"rehome u t1 adopted\", new keys, live",
            "record Assigned Adopted, cleanup a",
            "look at the identity at a",
            "record Assigned Settled",
            "settled",
        ],
    );
}
