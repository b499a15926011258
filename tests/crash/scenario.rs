//! The scenarios of the table: what people do, and how it must end.

use rehome::api::v1alpha1::Substatus;

use crate::ground::{EAST, WEST};
use crate::people::Act::{self, *};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Done before effects are counted.
    pub(crate) before: &'static [Act],
    /// Done one after the other, each when the controller has nothing to do or waits.
    pub(crate) acts: &'static [Act],
    /// Done at the effect of that number, before it takes place, whoever has it.
    pub(crate) during: &'static [(usize, Act)],
    /// Done after the effect of that number.
    pub(crate) after: &'static [(usize, Act)],
    pub(crate) end: End,
}

/// How it must end.
pub(crate) struct End {
    /// Where the device lives; nowhere when the registration is deleted.
    pub(crate) home: Option<usize>,
    pub(crate) substatus: Option<Substatus>,
    pub(crate) twin: Twin,
    /// The home is disabled by somebody else, and stays so.
    pub(crate) disabled: bool,
}

/// What the twin at the end must hold. Writes that the home itself acknowledged are always there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twin {
    /// Everything that any hub acknowledged.
    Everything,
    /// The initial twin, and nothing from before.
    Fresh,
}

const fn end(home: usize, substatus: Substatus, twin: Twin) -> End {
    End {
        home: Some(home),
        substatus: Some(substatus),
        twin,
        disabled: false,
    }
}

const AT_WEST: &[Act] = &[Register("stay-west", WEST)];
const MIGRATED: Substatus = Substatus::DeviceDataMigrated;
const RESET: Substatus = Substatus::DeviceDataReset;
const INITIAL: Substatus = Substatus::InitialAssignment;

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "first assignment",
        before: &[],
        acts: AT_WEST,
        during: &[],
        after: &[],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "override of the proposed hub",
        before: &[Fill(WEST)],
        acts: &[Register("anywhere", WEST)],
        during: &[],
        after: &[],
        end: end(EAST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "adoption",
        before: &[MadeByHand(WEST)],
        acts: AT_WEST,
        during: &[],
        after: &[],
        end: end(
            WEST,
            Substatus::ReprovisionedToInitialAssignment,
            Twin::Everything,
        ),
    },
    Scenario {
        name: "move",
        before: AT_WEST,
        acts: &[Register("to-east", EAST)],
        during: &[],
        after: &[],
        end: end(EAST, MIGRATED, Twin::Everything),
    },
    Scenario {
        name: "move of a disabled device",
        before: &[Register("stay-west", WEST), DisabledByHand(WEST)],
        acts: &[Register("to-east", EAST)],
        during: &[],
        after: &[],
        end: End {
            home: Some(EAST),
            substatus: Some(MIGRATED),
            twin: Twin::Everything,
            disabled: true,
        },
    },
    Scenario {
        name: "move with a module",
        before: &[Register("stay-west", WEST), ModuleMade(WEST)],
        acts: &[Register("to-east", EAST)],
        during: &[],
        after: &[],
        end: end(EAST, MIGRATED, Twin::Everything),
    },
    Scenario {
        name: "move with a module, of a disabled device",
        before: &[
            Register("stay-west", WEST),
            ModuleMade(WEST),
            DisabledByHand(WEST),
        ],
        acts: &[Register("to-east", EAST)],
        during: &[],
        after: &[],
        end: End {
            home: Some(EAST),
            substatus: Some(MIGRATED),
            twin: Twin::Everything,
            disabled: true,
        },
    },
    Scenario {
        name: "module made before the fence",
        before: AT_WEST,
        acts: &[Register("to-east", EAST)],
        during: &[(2, ModuleMade(WEST))],
        after: &[],
        end: end(EAST, MIGRATED, Twin::Everything),
    },
    Scenario {
        name: "reset to another hub",
        before: AT_WEST,
        acts: &[Register("reset-east", EAST)],
        during: &[],
        after: &[],
        end: end(EAST, RESET, Twin::Fresh),
    },
    Scenario {
        name: "same-hub reset",
        before: AT_WEST,
        acts: &[Register("reset-west", WEST)],
        during: &[],
        after: &[],
        end: end(WEST, RESET, Twin::Fresh),
    },
    Scenario {
        name: "credential refresh",
        before: AT_WEST,
        acts: &[Register("rotated", WEST)],
        during: &[],
        after: &[],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "trigger",
        before: AT_WEST,
        acts: &[Trigger(EAST)],
        during: &[],
        after: &[],
        end: end(EAST, MIGRATED, Twin::Everything),
    },
    Scenario {
        name: "abort: target full at once",
        before: &[Register("stay-west", WEST), Fill(EAST)],
        acts: &[Register("to-east", EAST)],
        during: &[],
        after: &[],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "abort: target full after the fence",
        before: AT_WEST,
        acts: &[Register("to-east", EAST)],
        during: &[(2, Fill(EAST))],
        after: &[],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "abort: target unreachable",
        before: AT_WEST,
        acts: &[Register("to-east", EAST), Reachable(EAST)],
        during: &[(2, Unreachable(EAST))],
        after: &[],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "abort: target lost after the copy",
        before: AT_WEST,
        acts: &[Register("to-east", EAST), Reachable(EAST)],
        during: &[],
        after: &[(3, Unreachable(EAST))],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "delete",
        before: AT_WEST,
        acts: &[Delete],
        during: &[],
        after: &[],
        end: End {
            home: None,
            substatus: None,
            twin: Twin::Fresh,
            disabled: false,
        },
    },
    Scenario {
        name: "delete mid-move, made again",
        before: AT_WEST,
        acts: &[Register("to-east", EAST), Register("stay-west", WEST)],
        during: &[(3, Delete)],
        after: &[],
        end: end(WEST, INITIAL, Twin::Fresh),
    },
    Scenario {
        name: "home check: vanished",
        before: &[Register("stay-west", WEST), Vanish(WEST)],
        acts: &[ComesBack("stay-west")],
        during: &[],
        after: &[],
        end: end(WEST, INITIAL, Twin::Fresh),
    },
    Scenario {
        name: "home check: lives elsewhere",
        before: &[Register("stay-west", WEST), LivesElsewhere(EAST)],
        acts: &[ComesBack("to-east")],
        during: &[],
        after: &[],
        end: end(EAST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "home check: fence left over",
        before: &[Register("stay-west", WEST), FenceLeftOver(WEST)],
        acts: &[ComesBack("stay-west")],
        during: &[],
        after: &[],
        end: end(WEST, INITIAL, Twin::Everything),
    },
    Scenario {
        name: "cleanup: source back after Close",
        before: AT_WEST,
        acts: &[Register("to-east", EAST), Reachable(WEST)],
        during: &[(5, Unreachable(WEST))],
        after: &[],
        end: end(EAST, MIGRATED, Twin::Everything),
    },
    Scenario {
        name: "disaster: move without the source",
        before: &[Register("stay-west", WEST), Unreachable(WEST)],
        acts: &[Register("disaster", EAST), Reachable(WEST)],
        during: &[],
        after: &[],
        end: end(EAST, RESET, Twin::Fresh),
    },
];

/// The scenarios to run: all, or those whose name contains `CRASH_SCENARIO`.
pub(crate) fn chosen() -> impl Iterator<Item = &'static Scenario> {
    let part = std::env::var("CRASH_SCENARIO").unwrap_or_default();
    ALL.iter()
        .filter(move |scenario| scenario.name.contains(&part))
}

/// Whether only some were chosen.
pub(crate) fn is_filtered() -> bool {
    std::env::var_os("CRASH_SCENARIO").is_some()
}
