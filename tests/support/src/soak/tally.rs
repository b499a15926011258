//! What the devices did, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::body::{Home, Kind};

/// How a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    First,
    Unchanged,
    Moved,
}

impl Outcome {
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Unchanged, Self::Moved];

    pub(crate) fn of(before: Option<&Home>, now: &Home) -> Self {
        match before {
            None => Self::First,
            Some(before) if before.hub == now.hub => Self::Unchanged,
            Some(_) => Self::Moved,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::First => "first",
            Self::Unchanged => "unchanged",
            Self::Moved => "moved",
        })
    }
}

/// The counts of all devices. Its `Display` is the tables of the report.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// How long each registration took.
    registered: BTreeMap<(Kind, Outcome), Vec<Duration>>,
    interrupted: BTreeMap<Kind, usize>,
    reports: usize,
    reconnects: usize,
    sent_away: usize,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Every change below is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_registered(&self, kind: Kind, outcome: Outcome, took: Duration) {
        let mut counts = self.counts();
        let times = counts.registered.entry((kind, outcome)).or_default();
        times.push(took);
    }

    /// A registration broke off because the run had killed the gateway.
    pub(crate) fn was_interrupted(&self, kind: Kind) {
        *self.counts().interrupted.entry(kind).or_default() += 1;
    }

    pub(crate) fn has_reported(&self) {
        self.counts().reports += 1;
    }

    /// Of its own will.
    pub(crate) fn has_connected_again(&self) {
        self.counts().reconnects += 1;
    }

    /// A hub ended a device's connection, or refused it.
    pub(crate) fn was_sent_away(&self) {
        self.counts().sent_away += 1;
    }

    /// Registrations that ended so.
    pub(crate) fn registrations(&self, outcome: Outcome) -> usize {
        let counts = self.counts();
        let of = counts
            .registered
            .iter()
            .filter(|((_, it), _)| *it == outcome);
        of.map(|(_, times)| times.len()).sum()
    }

    pub(crate) fn reports(&self) -> usize {
        self.counts().reports
    }

    pub(crate) fn reconnects(&self) -> usize {
        self.counts().reconnects
    }

    pub(crate) fn sent_away(&self) -> usize {
        self.counts().sent_away
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        writeln!(
            f,
            "{:<24}{:>8}{:>11}{:>8}{:>13}",
            "registrations", "first", "unchanged", "moved", "interrupted"
        )?;
        let mut kinds: Vec<_> = counts.registered.keys().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        for kind in kinds {
            let of = |outcome| counts.registered.get(&(kind, outcome)).map_or(0, Vec::len);
            let [first, unchanged, moved] = Outcome::ALL.map(of);
            let interrupted = counts.interrupted.get(&kind).copied().unwrap_or_default();
            writeln!(
                f,
                "{kind:<24}{first:>8}{unchanged:>11}{moved:>8}{interrupted:>13}"
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:<24}{:>8}{:>12}{:>12}",
            "until assigned", "number", "p50", "p99"
        )?;
        for outcome in Outcome::ALL {
            let of = counts
                .registered
                .iter()
                .filter(|((_, it), _)| *it == outcome);
            let mut times: Vec<_> = of.flat_map(|(_, times)| times).copied().collect();
            times.sort_unstable();
            writeln!(
                f,
                "{outcome:<24}{:>8}{:>10.3} s{:>10.3} s",
                times.len(),
                percentile(&times, 50).as_secs_f64(),
                percentile(&times, 99).as_secs_f64()
            )?;
        }
        Ok(())
    }
}

/// What so many of a hundred did not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        client: "fast client",
        protocol: "mqtt",
    };

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_registration_is_told_by_the_hubs_before_and_after() {
        let home = |hub: &str| Home {
            hub: hub.to_owned(),
            device_id: "one".to_owned(),
        };
        let (west, east) = (home("west"), home("east"));
        let outcomes = [None, Some(&west), Some(&east)].map(|before| Outcome::of(before, &west));
        assert_eq!(
            outcomes,
            [Outcome::First, Outcome::Unchanged, Outcome::Moved]
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_kind() {
        let tally = Tally::default();
        for outcome in [Outcome::First, Outcome::Unchanged, Outcome::Unchanged] {
            tally.has_registered(KIND, outcome, Duration::from_millis(20));
        }
        tally.was_interrupted(KIND);
        let table = tally.to_string();
        let row = table
            .lines()
            .find(|line| line.starts_with("fast client, mqtt"));
        let cells: Vec<_> = row.unwrap().split_whitespace().skip(3).collect();
        assert_eq!(cells, ["1", "2", "0", "1"], "{table}");
        assert_eq!(tally.registrations(Outcome::Unchanged), 2);
    }
}
