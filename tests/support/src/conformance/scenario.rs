//! What devices go through, and how it may end.

use std::fmt;

use serde::Deserialize;

/// What a device goes through.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    First,
    Unchanged,
    Move,
    Reset,
    Never,
    Compatibility,
    Disabled,
    WrongCredential,
    Throttled,
    Restarted,
}

/// How it ends.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Ok,
    Moves,
    Stays,
    Refused,
    GivesUp,
}

impl Scenario {
    pub(crate) const ALL: [Self; 10] = [
        Self::First,
        Self::Unchanged,
        Self::Move,
        Self::Reset,
        Self::Never,
        Self::Compatibility,
        Self::Disabled,
        Self::WrongCredential,
        Self::Throttled,
        Self::Restarted,
    ];

    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Unchanged => "unchanged",
            Self::Move => "move",
            Self::Reset => "reset",
            Self::Never => "never",
            Self::Compatibility => "no policy",
            Self::Disabled => "disabled",
            Self::WrongCredential => "wrong credential",
            Self::Throttled => "throttled",
            Self::Restarted => "gateway restarted",
        }
    }

    /// What happens in it, and what has to be so.
    pub(crate) fn story(self) -> &'static str {
        match self {
            Self::First => {
                "a new device registers, connects to the hub that it is told, finds its initial \
                 twin there and reports; the hub shows what it reported"
            }
            Self::Unchanged => {
                "it registers again although nothing changed: the same hub, the same operation, no \
                 write to the cluster"
            }
            Self::Move => {
                "its Enrollment (`MigrateData`) is given another hub and it registers again: it is \
                 told that hub, its old connection ends, and on the new hub it finds what it \
                 reported on the old one"
            }
            Self::Reset => {
                "it registers again under `ResetData`: the same hub, with the initial twin and \
                 nothing that it reported"
            }
            Self::Never => "its Enrollment (`Never`) is given another hub: it stays",
            Self::Compatibility => {
                "its Enrollment, which has no `reprovisionPolicy`, is given another hub: devices \
                 that speak an api-version up to 2018-04-01 stay, newer ones move"
            }
            Self::Disabled => "its Enrollment is disabled: the SDK reports that it is refused",
            Self::WrongCredential => "it has another's credential: the SDK reports the refusal",
            Self::Throttled => {
                "it has used up what it may ask (`--max-registers-per-device`) when it registers"
            }
            Self::Restarted => {
                "the gateway is killed between two polls of an operation that is still open, and \
                 starts again in the same place before the next poll"
            }
        }
    }
}

impl Outcome {
    /// What stands in the cell.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Moves => "moves",
            Self::Stays => "stays",
            Self::Refused => "refused",
            Self::GivesUp => "gives up",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}
