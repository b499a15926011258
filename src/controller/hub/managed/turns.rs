//! Whose turn it is to restart: hubs restart one at a time.
//!
//! A new image changes every hub at once, and devices of a hub that restarts have to reconnect. So
//! a pod is changed only when no other hub is on its way, and every other hub of the namespace is
//! well. Hubs of other namespaces that are down do not count: their owners could hold up everybody.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Namespace and name.
type Name = (String, String);

/// How a hub's pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// As wanted, and ready.
    Well,
    /// Ready, and to be changed.
    Behind,
    /// Being changed, and not ready again yet.
    Rolling,
    /// Not ready for another reason.
    Down,
}

/// What every hub's last pass said.
#[derive(Default)]
pub(in crate::controller) struct Turns(Mutex<BTreeMap<Name, Stage>>);

impl Turns {
    /// Notes a hub's stage. True if another hub may wait for exactly this.
    pub(super) fn note(&self, name: &Name, stage: Stage) -> bool {
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = stages.insert(name.clone(), stage);
        before != Some(stage)
    }

    /// Whether the hub, which is [`Stage::Behind`], may restart now; else whom it waits for. `all`:
    /// every managed hub, since one that was not looked at yet may be anything.
    pub(super) fn take(&self, name: &Name, all: &[Name]) -> Result<(), Name> {
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = waits_for(name, all, &stages) {
            return Err(other);
        }
        stages.insert(name.clone(), Stage::Rolling);
        Ok(())
    }

    /// Forgets a hub that is gone.
    pub(in crate::controller) fn forget(&self, name: &Name) {
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stages.remove(name);
    }

    /// Hubs that wait for their turn.
    pub(super) fn waiting(&self) -> Vec<Name> {
        let stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = stages.iter().filter(|(_, stage)| **stage == Stage::Behind);
        behind.map(|(name, _)| name.clone()).collect()
    }
}

/// The hub for which this one waits: one that is on its way, one of the namespace that is down, or
/// the first of those that wait.
fn waits_for(name: &Name, all: &[Name], stages: &BTreeMap<Name, Stage>) -> Option<Name> {
    let others = all.iter().filter(|other| *other != name);
    let in_the_way = |other: &&Name| match stages.get(*other) {
        Some(Stage::Well) => false,
        Some(Stage::Behind) => *other < name,
        Some(Stage::Down) => other.0 == name.0,
        Some(Stage::Rolling) | None => true,
    };
    others.filter(in_the_way).min().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        let (namespace, name) = text.split_once('/').unwrap();
        (namespace.to_owned(), name.to_owned())
    }

    #[test]
    fn a_hub_waits_for_whoever_is_in_its_way() {
        use Stage::{Behind, Down, Rolling, Well};
        for (others, waits) in [
            (vec![], None),
            (vec![("a/one", Well), ("b/one", Well)], None),
            (vec![("a/one", Behind)], Some("a/one")),
            (vec![("a/two", Behind)], None),
            (vec![("a/two", Down)], Some("a/two")),
            (vec![("b/two", Down)], None),
            (vec![("b/two", Rolling)], Some("b/two")),
            (vec![("a/one", Well), ("b/two", Behind)], None),
        ] {
            let stages = others
                .iter()
                .map(|(other, stage)| (name(other), *stage))
                .collect();
            let all: Vec<_> = others.iter().map(|(other, _)| name(other)).collect();
            let found = waits_for(&name("a/so"), &all, &stages);
            assert_eq!(found, waits.map(name), "{others:?}");
        }
        let unknown = [name("c/unseen")];
        assert_eq!(
            waits_for(&name("a/so"), &unknown, &BTreeMap::new()),
            Some(name("c/unseen"))
        );
    }

    #[test]
    fn of_many_that_are_behind_one_rolls_at_a_time_until_all_are_well() {
        let turns = Turns::default();
        let all: Vec<_> = ["b/x", "a/y", "a/x", "c/z"].map(name).into();
        for hub in &all {
            turns.note(hub, Stage::Behind);
        }
        let mut order = Vec::new();
        while !turns.waiting().is_empty() {
            let may: Vec<_> = turns
                .waiting()
                .into_iter()
                .filter(|hub| turns.take(hub, &all).is_ok())
                .collect();
            assert_eq!(may.len(), 1, "{may:?}");
            for hub in turns.waiting() {
                assert_eq!(turns.take(&hub, &all), Err(may[0].clone()));
            }
            turns.note(&may[0], Stage::Well);
            order.extend(may);
        }
        assert_eq!(order, ["a/x", "a/y", "b/x", "c/z"].map(name));
    }
}
