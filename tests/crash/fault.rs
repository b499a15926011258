//! What can go wrong with one effect.

use std::fmt;

/// Something that goes wrong at one effect of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Number of the effect, from 1.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

/// When something held back goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// After so many more effects.
    After(usize),
    /// When everything else is over, but within the time that a call can take.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The controller dies before the request leaves.
    KilledBefore,
    /// The controller dies when the effect has taken place.
    KilledAfter,
    /// The controller dies, and its request arrives later.
    KilledUnderWay(Due),
    /// The request never arrives; the sender sees a timeout.
    RequestLost,
    /// The request arrives later; the sender sees a timeout now.
    RequestLate(Due),
    /// The effect takes place; the sender sees a timeout.
    ReplyLost,
    /// The effect takes place; the sender sees a 500.
    Failed,
    /// The request is answered, and arrives once more later.
    Again(Due),
    /// A second controller makes a pass, beginning before the effect. It starts from the object
    /// as it was `back` versions ago; at its own first effect it is held until `held`.
    Second { back: usize, held: Option<Due> },
}

impl Kind {
    /// Everything that can go wrong at an effect before which the object had `versions`.
    pub(crate) fn all(versions: usize) -> Vec<Self> {
        let mut all = vec![
            Self::KilledBefore,
            Self::KilledAfter,
            Self::RequestLost,
            Self::ReplyLost,
            Self::Failed,
        ];
        for due in [Due::After(1), Due::End] {
            all.extend([Self::KilledUnderWay(due), Self::RequestLate(due)]);
        }
        let again = [Due::After(1), Due::After(2), Due::After(3), Due::End];
        all.extend(again.map(Self::Again));
        for back in 0..versions.min(3) {
            let holds = [None, Some(Due::After(1)), Some(Due::End)];
            all.extend(holds.map(|held| Self::Second { back, held }));
        }
        all
    }

    /// The column of the table.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::KilledBefore => "killed before",
            Self::KilledAfter => "killed after",
            Self::KilledUnderWay(_) => "killed, arrives late",
            Self::RequestLost => "request lost",
            Self::RequestLate(_) => "late after timeout",
            Self::ReplyLost => "reply lost",
            Self::Failed => "500 after effect",
            Self::Again(_) => "arrives again late",
            Self::Second { .. } => "second controller",
        }
    }

    pub(crate) const COLUMNS: [&str; 9] = [
        "killed before",
        "killed after",
        "killed, arrives late",
        "request lost",
        "late after timeout",
        "reply lost",
        "500 after effect",
        "arrives again late",
        "second controller",
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at effect {}", self.kind, self.at)
    }
}
