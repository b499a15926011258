//! Requests and triggers of a device that has a home: it stays, moves or is reset.

use rehome::api::v1alpha1::{ReprovisionMode, ReprovisionPolicy, Substatus};
use rehome::domain::attestation::DeviceCredential;
use rehome::domain::transfer::TroubleKind;

use crate::stage::{Stage, keys, reported};
use crate::{plays, wanting_b};

#[test]
fn a_move_is_three_records() {
    let mut stage = wanting_b();
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "look at the twin at b",
            "look at the twin at a",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "enable at b with \"rehome u t1\", live",
            "look at the identity at a",
            "delete at a",
            "record Assigned Moved",
            "settled",
        ],
    );
    assert_eq!(stage.hub("b").content, reported(7));
    assert_eq!(stage.status.substatus, Some(Substatus::DeviceDataMigrated));
}

#[test]
fn a_disabled_device_moves_with_its_reason() {
    let mut stage = wanting_b();
    stage.hub("a").identity = None;
    stage.put("a", false, "in repair");
    let there = stage.hub("a").identity.clone().unwrap();
    stage.status.generation_id = Some(there.generation_id);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "look at the twin at b",
            "look at the twin at a",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "disable at b with \"in repair\", live",
            "look at the identity at a",
            "delete at a",
            "record Assigned Moved",
            "settled",
        ],
    );
}

#[test]
fn a_write_between_read_and_fence_is_copied() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((4, |stage| stage.hub("a").content = reported(8)));
    stage.run();
    assert_eq!(stage.hub("b").content, reported(8));
}

#[test]
fn a_reset_in_place_is_two_records() {
    let mut stage = Stage::settled();
    stage.enroll("a", Some(ReprovisionPolicy::ResetData));
    stage.request("op2", "a");
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open ResetData",
            "look at the identity at a",
            "disable at a with \"rehome u t1\", live",
            "delete at a, live",
            "create at a disabled for t1",
            "enable at a with \"rehome u t1\", live",
            "record Assigned Reset",
            "settled",
        ],
    );
    assert!(stage.hub("a").content.reported.is_empty());
    assert_eq!(stage.status.substatus, Some(Substatus::DeviceDataReset));
}

#[test]
fn a_reset_to_another_hub_leaves_the_data_behind() {
    let mut stage = wanting_b();
    stage.enrolled().policy = Some(ReprovisionPolicy::ResetData);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open ResetData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "create at b disabled for t1",
            "look at the twin at b",
            "record Assigning Committed ResetData",
            "look at the identity at b",
            "enable at b with \"rehome u t1\", live",
            "look at the identity at a",
            "delete at a",
            "record Assigned Moved",
            "settled",
        ],
    );
    assert!(stage.hub("b").content.reported.is_empty());
    assert_eq!(stage.status.substatus, Some(Substatus::DeviceDataReset));
}

#[test]
fn never_stays() {
    let mut stage = wanting_b();
    stage.enrolled().policy = Some(ReprovisionPolicy::Never);
    plays(&mut stage, &["record Assigned PolicyNever", "settled"]);
}

#[test]
fn an_old_api_version_stays_while_no_policy_is_set() {
    let mut stage = wanting_b();
    stage.enrolled().sticky_api = true;
    plays(&mut stage, &["record Assigned StickyApiVersion", "settled"]);
}

#[test]
fn a_request_for_the_same_hub_is_one_record() {
    let mut stage = Stage::settled();
    stage.request("op2", "a");
    plays(&mut stage, &["record Assigned SameHub", "settled"]);
}

#[test]
fn new_keys_are_given_to_the_hub() {
    let mut stage = Stage::settled();
    stage.enrolled().credential = DeviceCredential::Keys(keys('Q'));
    stage.enrolled().fingerprint = "Q".into();
    stage.request("op2", "a");
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "enable at a with \"rehome u op1\", new keys, live",
            "record Assigned CredentialRefreshed",
            "settled",
        ],
    );
}

#[test]
fn a_policy_trigger_does_what_the_policy_says() {
    let mut stage = Stage::settled();
    stage.enroll("b", Some(ReprovisionPolicy::Never));
    stage.trigger(ReprovisionMode::Policy, None);
    plays(&mut stage, &["record Assigned PolicyNever", "settled"]);
    assert_eq!(stage.status.reprovision_id.as_deref(), Some("r1"));
}

#[test]
fn a_migrate_trigger_overrides_never() {
    let mut stage = Stage::settled();
    stage.enroll("a", Some(ReprovisionPolicy::Never));
    stage.trigger(ReprovisionMode::MigrateData, Some("b"));
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "look at the twin at b",
            "look at the twin at a",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "enable at b with \"rehome u t1\", live",
            "look at the identity at a",
            "delete at a",
            "record Assigned Moved",
            "settled",
        ],
    );
}

#[test]
fn a_reset_trigger_resets_in_place() {
    let mut stage = Stage::settled();
    stage.trigger(ReprovisionMode::ResetData, None);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open ResetData",
            "look at the identity at a",
            "disable at a with \"rehome u t1\", live",
            "delete at a, live",
            "create at a disabled for t1",
            "enable at a with \"rehome u t1\", live",
            "record Assigned Reset",
            "settled",
        ],
    );
}

#[test]
fn a_full_target_is_noticed_before_the_fence() {
    let mut stage = wanting_b();
    stage.hub("b").limit = Some(1);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "record Assigning Aborting TargetRefused",
            "look at the identity at b",
            "look at the identity at a",
            "enable at a with \"rehome u op1\"",
            "record Assigned TargetRefused, cleanup b",
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
    stage.request("op3", "b");
    plays(&mut stage, &["record Assigned RefusedBefore", "settled"]);
}

#[test]
fn a_target_that_refuses_leaves_the_device_at_home() {
    let mut stage = wanting_b();
    stage.hub("b").refuses = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "record Assigning Aborting TargetRefused",
            "look at the identity at b",
            "look at the identity at a",
            "enable at a with \"rehome u t1\"",
            "record Assigned TargetRefused, cleanup b",
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
    assert!(
        stage
            .hub("a")
            .identity
            .as_ref()
            .is_some_and(|identity| identity.enabled)
    );
}

#[test]
fn new_keys_reach_the_home_that_a_refused_move_leaves() {
    let mut stage = wanting_b();
    stage.enrolled().credential = DeviceCredential::Keys(keys('Q'));
    stage.enrolled().fingerprint = "Q".into();
    stage.hub("b").refuses = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "record Assigning Aborting TargetRefused",
            "look at the identity at b",
            "look at the identity at a",
            "enable at a with \"rehome u t1\", new keys, live",
            "record Assigned TargetRefused, cleanup b",
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
    assert_eq!(stage.status.credential.as_deref(), Some("Q"));
}

#[test]
fn an_occupied_target_is_left_alone() {
    let mut stage = wanting_b();
    stage.put("b", true, "");
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "record Assigning Aborting TargetOccupied",
            "look at the identity at b",
            "look at the identity at a",
            "enable at a with \"rehome u op1\"",
            "record Assigned TargetOccupied, cleanup b",
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
    assert!(stage.hub("b").identity.is_some());
}

#[test]
fn one_hub_under_two_names_keeps_its_device() {
    let mut stage = wanting_b();
    let same = stage.hub("a").identity.clone();
    stage.hub("b").identity = same;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "record Assigning Aborting SameHubTwoNames",
            "look at the identity at b",
            "look at the identity at a",
            "enable at a with \"rehome u op1\"",
            "record Assigned SameHubTwoNames, cleanup b",
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
    assert!(stage.hub("b").identity.is_some(), "the only copy");
}

#[test]
fn an_unreachable_target_is_given_up_after_a_while() {
    let mut stage = wanting_b();
    stage.hub("b").trouble = Some(TroubleKind::Unreachable);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "wait: HubUnreachable",
        ],
    );
    stage.now += jiff::SignedDuration::from_mins(6);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "look at the identity at b",
            "record Assigning Aborting TargetUnreachable",
            "look at the identity at b",
            "look at the identity at a",
            "enable at a with \"rehome u op1\"",
            "record Assigned TargetUnreachable, cleanup b",
            "look at the identity at b",
            "wait: HubUnreachable",
        ],
    );
}

#[test]
fn a_source_that_vanishes_before_the_copy_is_mourned() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((2, |stage| stage.hub("a").identity = None));
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "record Assigning Aborting HomeLost",
            "look at the identity at b",
            "look at the identity at a",
            "record Assigned HomeLost, cleanup b",
            "look at the identity at a",
            "record Assigning HomeLost, cleanup b",
            "create at a disabled for t2",
            "enable at a with \"rehome u t2\", live",
            "record Assigned InitialAssignment, cleanup b",
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
}

#[test]
fn a_source_that_vanishes_after_the_copy_is_not_needed() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((8, |stage| stage.hub("a").identity = None));
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "look at the twin at b",
            "look at the twin at a",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "enable at b with \"rehome u t1\", live",
            "look at the identity at a",
            "record Assigned Moved",
            "settled",
        ],
    );
    assert_eq!(stage.hub("b").content, reported(7));
}

#[test]
fn a_target_that_vanishes_after_commit_is_made_anew() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((10, |stage| stage.hub("b").identity = None));
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "look for room at b",
            "disable at a with \"rehome u t1\", live",
            "look at the twin at a",
            "create at b disabled for t1",
            "look at the twin at b",
            "look at the twin at a",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "record Assigned Moved, cleanup a",
            "look at the identity at b",
            "record Assigning HomeLost, cleanup a",
            "create at b disabled for t2",
            "enable at b with \"rehome u t2\", live",
            "record Assigned InitialAssignment, cleanup a",
            "look at the identity at a",
            "delete at a, live",
            "record Assigned Settled",
            "settled",
        ],
    );
}

#[test]
fn an_unreachable_source_stops_the_move() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((2, |stage| {
        stage.hub("a").trouble = Some(TroubleKind::Unreachable);
    }));
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "wait: SourceUnreachable",
        ],
    );
}

#[test]
fn a_disaster_move_goes_on_without_its_source() {
    let mut stage = wanting_b();
    stage.enrolled().proceed_without_source = true;
    stage.hub("a").trouble = Some(TroubleKind::Unreachable);
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning Open MigrateData",
            "look at the identity at a",
            "look at the identity at b",
            "create at b disabled for t1",
            "look at the twin at b",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "enable at b with \"rehome u t1\", live",
            "look at the identity at a",
            "record Assigned Moved, cleanup a",
            "look at the identity at a",
            "wait: HubUnreachable",
        ],
    );
    stage.hub("a").trouble = None;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "delete at a, live",
            "record Assigned Settled",
            "settled",
        ],
    );
}
