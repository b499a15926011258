//! Home check, cleanup and deletion.

use rehome::api::v1alpha1::RegistrationDeletionPolicy;

use crate::stage::Stage;
use crate::{plays, wanting_b};

#[test]
fn a_fence_that_outlived_its_move_is_lifted() {
    let mut stage = Stage::settled();
    stage.put("a", false, "rehome u t9");
    let fenced = stage.hub("a").identity.clone().unwrap();
    stage.status.generation_id = Some(fenced.generation_id);
    stage.check_home = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "enable at a with \"rehome u t9\", live",
            "record Assigned Settled",
            "settled",
        ],
    );
}

#[test]
fn a_device_that_is_found_elsewhere_lives_there() {
    let mut stage = Stage::settled();
    let identity = stage.hub("a").identity.take();
    stage.hub("b").identity = identity;
    stage.check_home = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "look at the identity at b",
            "record Assigned HomeFound",
            "settled",
        ],
    );
}

#[test]
fn a_device_that_is_found_nowhere_is_made_anew() {
    let mut stage = Stage::settled();
    stage.hub("a").identity = None;
    stage.check_home = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "look at the identity at b",
            "record Assigning HomeLost",
            "create at a disabled for t1",
            "enable at a with \"rehome u t1\", live",
            "record Assigned InitialAssignment",
            "settled",
        ],
    );
}

#[test]
fn a_strange_device_at_home_is_adopted() {
    let mut stage = Stage::settled();
    stage.put("a", true, "");
    stage.check_home = true;
    plays(
        &mut stage,
        &[
            "look at the identity at a",
            "record Assigning HomeLost",
            "create at a disabled for t1",
            "look at the identity at a",
            "enable at a with \"rehome u t1 adopted\", new keys, live",
            "record Assigned Adopted",
            "settled",
        ],
    );
}

#[test]
fn cleanup_waits_until_no_call_can_act() {
    let mut stage = wanting_b();
    stage.hub("b").refuses = true;
    stage.hub("b").busy = true;
    stage.run();
    plays(
        &mut stage,
        &["look at the identity at b", "wait: CleaningUp"],
    );
    stage.hub("b").busy = false;
    plays(
        &mut stage,
        &[
            "look at the identity at b",
            "record Assigned Settled",
            "settled",
        ],
    );
}

#[test]
fn a_deletion_removes_the_device() {
    let mut stage = Stage::settled();
    stage.deleting = true;
    plays(
        &mut stage,
        &["look at the identity at a", "delete at a, live", "release"],
    );
}

#[test]
fn a_deletion_may_retain_the_device() {
    let mut stage = Stage::settled();
    stage.deleting = true;
    stage.spec.deletion_policy = Some(RegistrationDeletionPolicy::Retain);
    plays(&mut stage, &["release"]);
    assert!(stage.hub("a").identity.is_some());
}

#[test]
fn a_deletion_waits_for_the_move() {
    let mut stage = wanting_b();
    stage.meanwhile = Some((3, |stage| stage.deleting = true));
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
            "look at the identity at b",
            "delete at b, live",
            "release",
        ],
    );
    assert!(stage.hubs.values().all(|hub| hub.identity.is_none()));
}

#[test]
fn a_namespace_that_goes_lets_go() {
    let mut stage = Stage::settled();
    (stage.deleting, stage.letting_go) = (true, true);
    plays(&mut stage, &["release with a warning"]);
}
