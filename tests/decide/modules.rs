//! Moves of devices with modules.

use rehome::api::v1alpha1::{ReprovisionPolicy, Substatus};

use crate::stage::{Stage, reported};
use crate::{plays, wanting_b};

/// Up to the Commit, between hubs of ours.
const TO_COMMIT: [&str; 11] = [
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
];

fn with_modules() -> Stage {
    let mut stage = wanting_b();
    stage.hub("a").put_module("gauge", 5);
    stage.hub("a").put_module("valve", 6);
    stage
}

/// What is played after the Commit.
#[track_caller]
fn after_commit(stage: &mut Stage, expected: &[&str]) {
    let whole: Vec<&str> = TO_COMMIT.iter().chain(expected).copied().collect();
    plays(stage, &whole);
}

#[test]
fn modules_are_there_before_the_target_is_enabled() {
    let mut stage = with_modules();
    after_commit(
        &mut stage,
        &[
            "look at the identity at b",
            "look at the identity at a",
            "look at module gauge at a",
            "create module gauge at b",
            "look at module valve at a",
            "create module valve at b",
            "enable at b with \"rehome u t1\", live",
            "delete at a",
            "record Assigned Moved",
            "settled",
        ],
    );
    assert_eq!(stage.hub("b").modules["gauge"], reported(5));
    assert_eq!(stage.hub("b").modules["valve"], reported(6));
}

#[test]
fn a_disabled_device_keeps_its_modules_too() {
    let mut stage = with_modules();
    stage.hub("a").identity = None;
    stage.put("a", false, "in repair");
    let there = stage.hub("a").identity.clone().unwrap();
    stage.status.generation_id = Some(there.generation_id);
    stage.hub("a").put_module("gauge", 5);
    stage.run();
    assert_eq!(stage.hub("b").modules["gauge"], reported(5));
    let there = stage.hub("b").identity.clone().unwrap();
    assert_eq!(
        (there.enabled, there.reason.as_deref()),
        (false, Some("in repair"))
    );
}

#[test]
fn a_module_that_is_made_before_the_fence_is_carried() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((2, |stage| stage.hub("a").put_module("late", 9)));
    stage.run();
    assert_eq!(stage.hub("b").modules["late"], reported(9));
}

#[test]
fn a_module_that_the_target_refuses_does_not_hold_up_the_device() {
    let mut stage = with_modules();
    stage.hub("b").refuses_module = Some("gauge");
    after_commit(
        &mut stage,
        &[
            "look at the identity at b",
            "look at the identity at a",
            "look at module gauge at a",
            "create module gauge at b",
            "record Assigning Committed MigrateData",
            "look at the identity at b",
            "look at the identity at a",
            "look at module valve at a",
            "create module valve at b",
            "enable at b with \"rehome u t1\", live",
            "delete at a",
            "record Assigned Moved",
            "settled",
        ],
    );
    assert!(!stage.hub("b").modules.contains_key("gauge"));
    let told = stage.message.as_deref().unwrap();
    assert!(
        told.ends_with("; module gauge stayed behind: full"),
        "{told}"
    );
}

#[test]
fn between_hubs_that_are_not_ours_modules_follow_once_the_device_is_enabled() {
    let mut stage = wanting_b();
    for hub in ["a", "b"] {
        stage.hub(hub).is_foreign = true;
    }
    stage.hub("a").put_module("gauge", 5);
    let mut to_commit: Vec<&str> = TO_COMMIT.to_vec();
    to_commit.insert(1, "list the modules at a");
    let rest = [
        "look at the identity at b",
        "enable at b with \"rehome u t1\", live",
        "look at the identity at a",
        "list the modules at b",
        "look at module gauge at a",
        // The source shows no keys of a disabled device: that is written down first.
        "record Assigning Committed MigrateData",
        "look at the identity at b",
        "look at the identity at a",
        "list the modules at b",
        "look at module gauge at a",
        "create module gauge at b with new keys, live",
        "list the modules at b",
        "delete at a",
        "record Assigned Moved",
        "settled",
    ];
    to_commit.extend(rest);
    plays(&mut stage, &to_commit);
    assert_eq!(stage.hub("b").modules["gauge"], reported(5));
    let told = stage.message.as_deref().unwrap();
    assert!(told.contains("module gauge moved: with new keys"), "{told}");
}

#[test]
fn a_disabled_device_leaves_its_modules_where_the_target_takes_none() {
    let mut stage = wanting_b();
    stage.hub("a").identity = None;
    stage.put("a", false, "in repair");
    let there = stage.hub("a").identity.clone().unwrap();
    stage.status.generation_id = Some(there.generation_id);
    stage.hub("b").is_foreign = true;
    stage.hub("a").put_module("gauge", 5);
    stage.run();
    assert!(stage.hub("b").modules.is_empty());
    let told = stage.message.as_deref().unwrap();
    assert!(told.contains("module gauge stayed behind"), "{told}");
    assert_eq!(stage.status.substatus, Some(Substatus::DeviceDataMigrated));
}

#[test]
fn modules_that_the_source_does_not_list_are_told_of() {
    let mut stage = wanting_b();
    stage.hub("a").identity = None;
    stage.put("a", false, "in repair");
    let there = stage.hub("a").identity.clone().unwrap();
    stage.status.generation_id = Some(there.generation_id);
    stage.hub("a").is_foreign = true;
    let log = stage.run();
    assert!(
        !log.contains(&"list the modules at a".to_owned()),
        "{log:#?}"
    );
    let told = stage.message.as_deref().unwrap();
    assert!(told.contains("; any modules stayed behind: "), "{told}");
}

#[test]
fn a_reset_starts_without_modules() {
    let mut stage = wanting_b();
    stage.enroll("b", Some(ReprovisionPolicy::ResetData));
    stage.hub("a").put_module("gauge", 5);
    stage.run();
    assert!(stage.hub("b").modules.is_empty());
    assert_eq!(stage.status.substatus, Some(Substatus::DeviceDataReset));
}
