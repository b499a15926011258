//! What must not happen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How many of a kind are told; all are counted.
const TOLD: usize = 10;

/// A kind of fault. What a device is in, it says; what is expected of the whole, the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The gateway refused a device that is enrolled.
    Refused,
    /// A registration broke off, and the run had not killed the gateway.
    Broken,
    /// A hub sent a device away that has not been moved.
    SentAway,
    /// A device was told another hub, and its old hub did not end its connection.
    NotCutOff,
    /// A hub does not know what was acknowledged to a device.
    LostWrite,
    /// A device was not served for a minute, or never.
    Forgotten,
    /// A registration that is not settled.
    Unsettled,
    /// A device with no home, with two, or with one that its registration does not name.
    Homeless,
    /// An identity that no registration explains.
    Orphan,
    /// Clients were turned away by limits that are far above what this fleet does.
    TurnedAway,
    /// A process that takes more and more memory.
    Growing,
}

impl Fault {
    const ALL: [Self; 11] = [
        Self::Refused,
        Self::Broken,
        Self::SentAway,
        Self::NotCutOff,
        Self::LostWrite,
        Self::Forgotten,
        Self::Unsettled,
        Self::Homeless,
        Self::Orphan,
        Self::TurnedAway,
        Self::Growing,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused by the gateway",
            Self::Broken => "registration broke off",
            Self::SentAway => "sent away by its own hub",
            Self::NotCutOff => "connection to the old hub lives",
            Self::LostWrite => "acknowledged write is lost",
            Self::Forgotten => "not served in the last minute",
            Self::Unsettled => "registration not Assigned",
            Self::Homeless => "not exactly one enabled home",
            Self::Orphan => "identity without a registration",
            Self::TurnedAway => "turned away by a limit",
            Self::Growing => "memory grows",
        })
    }
}

/// Every fault of a run, told as they happen. Its `Display` counts each kind.
pub(crate) struct Faults {
    begin: Instant,
    seen: Mutex<BTreeMap<Fault, Vec<String>>>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, fault: Fault, what: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(fault).or_default();
        let after = self.begin.elapsed().as_secs();
        if seen.len() < TOLD {
            eprintln!("FAULT after {after} s: {fault}: {what}");
        }
        seen.push(format!("after {after} s: {what}"));
    }

    pub(crate) fn count(&self) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().map(Vec::len).sum()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in Fault::ALL {
            let what = seen.get(&fault).map(Vec::as_slice).unwrap_or_default();
            writeln!(f, "{fault:<40}{:>8}", what.len())?;
            for one in what.iter().take(TOLD) {
                writeln!(f, "        {one}")?;
            }
            if what.len() > TOLD {
                writeln!(f, "        and {} more", what.len() - TOLD)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_shown_and_the_first_faults_of_each() {
        let faults = Faults::new();
        for number in 0..12 {
            faults.add(Fault::Orphan, &format!("number {number}"));
        }
        let shown = faults.to_string();
        assert_eq!(faults.count(), 12);
        assert!(
            shown.contains("number 9") && shown.contains("and 2 more"),
            "{shown}"
        );
        assert!(!shown.contains("number 10"), "{shown}");
        for fault in Fault::ALL {
            assert!(shown.contains(&fault.to_string()), "{fault}: {shown}");
        }
    }
}
