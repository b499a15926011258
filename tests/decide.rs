//! The ordinary sequence of steps of each scenario, without faults, step by step.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::struct_excessive_bools,
    reason = "a stage for tests"
)]

#[path = "decide/care.rs"]
mod care;
#[path = "decide/first.rs"]
mod first;
#[path = "decide/modules.rs"]
mod modules;
#[path = "decide/moves.rs"]
mod moves;
#[path = "decide/stage.rs"]
mod stage;

use stage::Stage;

#[track_caller]
fn plays(stage: &mut Stage, expected: &[&str]) {
    let log = stage.run();
    assert_eq!(log, expected, "played: {log:#?}");
}

/// A device at `a` that allocation wants at `b`, checking in.
fn wanting_b() -> Stage {
    let mut stage = Stage::settled();
    stage.enroll("b", None);
    stage.request("op2", "b");
    stage
}
