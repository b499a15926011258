//! The real `decide` in small worlds, every order of events: calls that are lost or arrive late,
//! two controllers, stale caches, old reads, people who change their minds.
//!
//! Worlds are explored nearest states first, up to a number of states; `REHOME_MODEL=deep` goes on.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::struct_excessive_bools,
    clippy::large_types_passed_by_value,
    reason = "a model: worlds are small values that are copied, and a broken one may panic"
)]

#[path = "model/bridge.rs"]
mod bridge;
#[path = "model/explore.rs"]
mod explore;
#[path = "model/hub.rs"]
mod hub;
#[path = "model/invariants.rs"]
mod invariants;
#[path = "model/scope.rs"]
mod scope;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/world.rs"]
mod world;

use explore::{Explorer, Outcome};
use scope::Scope;

/// States of a world that an ordinary test run visits at most, nearest first.
const MOST: usize = 15_000;
/// The same for a deep one, which allows one more call in flight.
const DEEP: usize = 2_000_000;

fn explore(scope: Scope) -> Outcome {
    let deep = std::env::var("REHOME_MODEL").is_ok_and(|depth| depth == "deep");
    let (calls, most) = if deep {
        (scope.calls + 1, DEEP)
    } else {
        (scope.calls, MOST)
    };
    let scope = Scope { calls, ..scope };
    let started = std::time::Instant::now();
    let outcome = Explorer::new(scope).explore(most);
    println!(
        "{}: {} states{}, {} at rest, depth {}, {:.1} s",
        scope.name,
        outcome.states,
        if outcome.closed {
            ", all there are"
        } else {
            ""
        },
        outcome.at_rest,
        outcome.depth,
        started.elapsed().as_secs_f32()
    );
    outcome
}

fn holds(scope: Scope) {
    if let Some(trace) = explore(scope).trace {
        panic!("{}: {trace}", scope.name);
    }
}

#[test]
fn moves_hold() {
    holds(Scope {
        refuses: true,
        outages: 3,
        verify: true,
        ..Scope::new("moves")
    });
}

#[test]
fn moves_between_three_hubs_hold() {
    holds(Scope {
        hubs: 3,
        refuses: true,
        verify: true,
        ..Scope::new("three hubs")
    });
}

#[test]
fn twin_writes_survive() {
    holds(Scope {
        writes: 2,
        refuses: true,
        verify: true,
        ..Scope::new("twin writes")
    });
}

#[test]
fn old_reads_do_no_harm() {
    holds(Scope {
        split_reads: true,
        writes: 1,
        verify: true,
        ..Scope::new("old reads")
    });
}

#[test]
fn first_assignments_hold() {
    holds(Scope {
        first: true,
        deletes: true,
        refuses: true,
        outages: 1,
        verify: true,
        ..Scope::new("first")
    });
}

#[test]
fn a_disabled_or_deleted_enrollment_holds() {
    holds(Scope {
        first: true,
        enrollment: 2,
        verify: true,
        ..Scope::new("enrollment")
    });
}

#[test]
fn resets_hold() {
    holds(Scope {
        policy: 2,
        refuses: true,
        verify: true,
        ..Scope::new("resets")
    });
}

#[test]
fn triggers_hold_under_never() {
    holds(Scope {
        policy: 3,
        triggers: 3,
        ..Scope::new("triggers")
    });
}

#[test]
fn deletions_hold() {
    holds(Scope {
        deletes: true,
        triggers: 3,
        ..Scope::new("deletions")
    });
}

#[test]
fn stale_caches_do_no_harm() {
    holds(Scope {
        stale: true,
        refuses: true,
        ..Scope::new("stale")
    });
}

#[test]
fn stale_caches_do_no_harm_to_first_assignments() {
    holds(Scope {
        stale: true,
        first: true,
        deletes: true,
        ..Scope::new("stale first")
    });
}

#[test]
fn vanished_identities_come_back() {
    holds(Scope {
        vanishes: true,
        verify: true,
        ..Scope::new("vanish")
    });
}

#[test]
fn devices_that_an_operator_disabled_stay_disabled() {
    holds(Scope {
        disables: true,
        refuses: true,
        verify: true,
        ..Scope::new("disabled")
    });
}

#[test]
fn foreign_devices_are_adopted_or_left_alone() {
    holds(Scope {
        foreign: true,
        first: true,
        deletes: true,
        refuses: true,
        verify: true,
        ..Scope::new("foreign")
    });
}

#[test]
fn disaster_moves_hold() {
    holds(Scope {
        proceed: true,
        outages: 1,
        verify: true,
        ..Scope::new("proceed")
    });
}

#[test]
fn retained_identities_are_adopted_again() {
    holds(Scope {
        retain: true,
        deletes: true,
        first: true,
        verify: true,
        ..Scope::new("retain")
    });
}

#[cfg(feature = "mutants")]
mod mutants {
    //! Each rule of the protocol that is broken on purpose brings a violation.

    use rehome::domain::transfer::Mutant;

    use super::{Scope, explore};

    fn is_caught(mutant: Mutant, mut scope: Scope) {
        scope.mutant = Some(mutant);
        let trace = explore(scope).trace;
        println!(
            "{}",
            trace.unwrap_or_else(|| panic!("{mutant:?} is not noticed"))
        );
    }

    #[test]
    fn no_fence() {
        is_caught(
            Mutant::NoFence,
            Scope {
                writes: 1,
                ..Scope::new("no fence")
            },
        );
    }

    #[test]
    fn delete_before_commit() {
        is_caught(
            Mutant::DeleteBeforeCommit,
            Scope::new("delete before commit"),
        );
    }

    #[test]
    fn create_enabled() {
        is_caught(Mutant::CreateEnabled, Scope::new("create enabled"));
    }

    #[test]
    fn unfence_without_abort() {
        let scope = Scope {
            outages: 2,
            calls: 1,
            ..Scope::new("unfence without abort")
        };
        is_caught(Mutant::UnfenceWithoutAbort, scope);
    }

    #[test]
    fn abort_leaves_source() {
        let scope = Scope {
            refuses: true,
            outages: 2,
            calls: 1,
            ..Scope::new("abort leaves source")
        };
        is_caught(Mutant::AbortLeavesSource, scope);
    }

    #[test]
    fn no_read_again() {
        let scope = Scope {
            split_reads: true,
            writes: 1,
            calls: 0,
            ..Scope::new("no read again")
        };
        is_caught(Mutant::NoReadAgain, scope);
    }

    #[test]
    fn no_if_match() {
        is_caught(
            Mutant::NoIfMatch,
            Scope {
                calls: 1,
                ..Scope::new("no If-Match")
            },
        );
    }

    #[test]
    fn no_live_read() {
        is_caught(
            Mutant::NoLiveRead,
            Scope {
                stale: true,
                calls: 1,
                ..Scope::new("no live read")
            },
        );
    }
}
