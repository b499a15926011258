//! The scenarios of the table: what people do, and how it must end.

use rehome::api::v1alpha1::Substatus;

use crate::device::OWN;
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

/// With nothing on the way.
const fn plain(
    name: &'static str,
    before: &'static [Act],
    acts: &'static [Act],
    end: End,
) -> Scenario {
    Scenario {
        name,
        before,
        acts,
        during: &[],
        after: &[],
        end,
    }
}

const AT_WEST: &[Act] = &[Register("stay-west", WEST)];
const TO_EAST: &[Act] = &[Register("to-east", EAST)];
const MIGRATED: Substatus = Substatus::DeviceDataMigrated;
const RESET: Substatus = Substatus::DeviceDataReset;
const INITIAL: Substatus = Substatus::InitialAssignment;

const STAYED: End = end(WEST, INITIAL, Twin::Everything);
const MOVED: End = end(EAST, MIGRATED, Twin::Everything);
const MOVED_DISABLED: End = End {
    disabled: true,
    ..MOVED
};
const RESET_AT_WEST: End = end(WEST, RESET, Twin::Fresh);
const RESET_AT_EAST: End = end(EAST, RESET, Twin::Fresh);

pub(crate) const ALL: &[Scenario] = &[
    plain("first assignment", &[], AT_WEST, STAYED),
    plain(
        "override of the proposed hub",
        &[Fill(WEST)],
        &[Register("anywhere", WEST)],
        end(EAST, INITIAL, Twin::Everything),
    ),
    plain(
        "adoption",
        &[MadeByHand(WEST)],
        AT_WEST,
        end(
            WEST,
            Substatus::ReprovisionedToInitialAssignment,
            Twin::Everything,
        ),
    ),
    plain("move", AT_WEST, TO_EAST, MOVED),
    plain(
        "move of a disabled device",
        &[Register("stay-west", WEST), DisabledByHand(WEST)],
        TO_EAST,
        MOVED_DISABLED,
    ),
    plain(
        "move with a module",
        &[Register("stay-west", WEST), ModuleMade(WEST)],
        TO_EAST,
        MOVED,
    ),
    plain(
        "move with a module, of a disabled device",
        &[
            Register("stay-west", WEST),
            ModuleMade(WEST),
            DisabledByHand(WEST),
        ],
        TO_EAST,
        MOVED_DISABLED,
    ),
    Scenario {
        during: &[(2, ModuleMade(WEST))],
        ..plain("module made before the fence", AT_WEST, TO_EAST, MOVED)
    },
    plain(
        "reset to another hub",
        AT_WEST,
        &[Register("reset-east", EAST)],
        RESET_AT_EAST,
    ),
    plain(
        "same-hub reset",
        AT_WEST,
        &[Register("reset-west", WEST)],
        RESET_AT_WEST,
    ),
    plain(
        "credential refresh",
        AT_WEST,
        &[Register("rotated", WEST)],
        STAYED,
    ),
    plain("trigger", AT_WEST, &[Trigger(EAST)], MOVED),
    plain(
        "abort: target full at once",
        &[Register("stay-west", WEST), Fill(EAST)],
        TO_EAST,
        STAYED,
    ),
    Scenario {
        during: &[(2, Fill(EAST))],
        ..plain(
            "abort: target full after the fence",
            AT_WEST,
            TO_EAST,
            STAYED,
        )
    },
    Scenario {
        during: &[(2, Unreachable(EAST))],
        ..plain(
            "abort: target unreachable",
            AT_WEST,
            &[Register("to-east", EAST), Reachable(EAST)],
            STAYED,
        )
    },
    Scenario {
        after: &[(3, Unreachable(EAST))],
        ..plain(
            "abort: target lost after the copy",
            AT_WEST,
            &[Register("to-east", EAST), Reachable(EAST)],
            STAYED,
        )
    },
    plain(
        "delete",
        AT_WEST,
        &[Delete],
        End {
            home: None,
            substatus: None,
            twin: Twin::Fresh,
            disabled: false,
        },
    ),
    Scenario {
        during: &[(3, Delete)],
        ..plain(
            "delete mid-move, made again",
            AT_WEST,
            &[Register("to-east", EAST), Register("stay-west", WEST)],
            end(WEST, INITIAL, Twin::Fresh),
        )
    },
    plain(
        "home check: vanished",
        &[Register("stay-west", WEST), Vanish(WEST)],
        &[ComesBack("stay-west")],
        end(WEST, INITIAL, Twin::Fresh),
    ),
    plain(
        "home check: lives elsewhere",
        &[Register("stay-west", WEST), LivesElsewhere(EAST)],
        &[ComesBack("to-east")],
        end(EAST, INITIAL, Twin::Everything),
    ),
    plain(
        "home check: fence left over",
        &[Register("stay-west", WEST), FenceLeftOver(WEST)],
        &[ComesBack("stay-west")],
        STAYED,
    ),
    Scenario {
        during: &[(5, Unreachable(WEST))],
        ..plain(
            "cleanup: source back after Close",
            AT_WEST,
            &[Register("to-east", EAST), Reachable(WEST)],
            MOVED,
        )
    },
    plain(
        "disaster: move without the source",
        &[Register("stay-west", WEST), Unreachable(WEST)],
        &[Register("disaster", EAST), Reachable(WEST)],
        RESET_AT_EAST,
    ),
    // With what a device proves itself is nothing to most steps. Those that put it into a hub see it
    // replaced at the same time.
    plain(
        "x509: first assignment",
        &[],
        &[Register("x509-stay-west", WEST)],
        STAYED,
    ),
    plain(
        "x509: certificate roll",
        &[Register("x509-stay-west", WEST), RollCertificate],
        &[Register("x509-stay-west", WEST)],
        STAYED,
    ),
    plain(
        "x509: move with a roll",
        &[Register("x509-stay-west", WEST), RollCertificate],
        &[Register("x509-to-east", EAST)],
        MOVED,
    ),
    plain(
        "x509: same-hub reset with a roll",
        &[Register("x509-stay-west", WEST), RollCertificate],
        &[Register("x509-reset-west", WEST)],
        RESET_AT_WEST,
    ),
    Scenario {
        during: &[(2, Fill(EAST))],
        ..plain(
            "x509: abort with a roll",
            &[Register("x509-stay-west", WEST), RollCertificate],
            &[Register("x509-to-east", EAST)],
            STAYED,
        )
    },
    plain(
        "tpm: first assignment",
        &[EnrollTpm("stay-west", "seeds")],
        &[Register(OWN, WEST)],
        STAYED,
    ),
    plain(
        "tpm: move to new seeds",
        &[
            EnrollTpm("stay-west", "seeds"),
            Register(OWN, WEST),
            EnrollTpm("to-east", "new-seeds"),
        ],
        &[Register(OWN, EAST)],
        MOVED,
    ),
    plain(
        "tpm: same-hub reset",
        &[
            EnrollTpm("stay-west", "seeds"),
            Register(OWN, WEST),
            EnrollTpm("reset-west", "seeds"),
        ],
        &[Register(OWN, WEST)],
        RESET_AT_WEST,
    ),
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
