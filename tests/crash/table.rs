//! Scenario × effect × fault: runs the plans and counts them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use rehome::domain::transfer::Mutant;

use crate::AT_ONCE;
use crate::fault::{Fault, Kind};
use crate::ground::Ground;
use crate::run::{Outcome, run};
use crate::scenario::Scenario;

/// Failed plans that are told in full.
const TOLD: usize = 5;

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    failed: Vec<Failed>,
}

struct Row {
    scenario: &'static str,
    effects: usize,
    plans: BTreeMap<&'static str, usize>,
    leftovers: usize,
}

/// A plan in which something was violated.
pub(crate) struct Failed {
    scenario: &'static str,
    fault: Option<Fault>,
    outcome: Outcome,
}

/// Every plan has names of its own.
fn fresh_name() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("plan-{:05}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Table {
    /// Runs a scenario cleanly, then with every fault at every effect.
    pub(crate) async fn fill(
        &mut self,
        ground: &Arc<Ground>,
        scenario: &'static Scenario,
        mutant: Option<Mutant>,
    ) {
        let clean = run(ground, scenario, None, &fresh_name(), mutant).await;
        let mut row = Row {
            scenario: scenario.name,
            effects: clean.effects.len(),
            plans: BTreeMap::from([("clean", 1)]),
            leftovers: clean.leftovers,
        };
        let faults = faults(&clean);
        self.take(scenario, None, clean, mutant);
        if self.is_over(mutant) {
            self.rows.push(row);
            return;
        }
        let plans = faults.into_iter().map(|fault| async move {
            (
                fault,
                run(ground, scenario, Some(fault), &fresh_name(), mutant).await,
            )
        });
        let mut outcomes = stream::iter(plans).buffer_unordered(AT_ONCE);
        while let Some((fault, outcome)) = outcomes.next().await {
            *row.plans.entry(fault.kind.column()).or_default() += 1;
            row.leftovers += outcome.leftovers;
            self.take(scenario, Some(fault), outcome, mutant);
            if self.is_over(mutant) {
                break;
            }
        }
        drop(outcomes);
        eprintln!(
            "{}: {} effects, {} plans",
            row.scenario,
            row.effects,
            row.plans()
        );
        self.rows.push(row);
    }

    /// One violation is enough to catch a mutant.
    fn is_over(&self, mutant: Option<Mutant>) -> bool {
        mutant.is_some() && !self.failed.is_empty()
    }

    fn take(
        &mut self,
        scenario: &'static Scenario,
        fault: Option<Fault>,
        outcome: Outcome,
        mutant: Option<Mutant>,
    ) {
        if !outcome.violations.is_empty() {
            let failed = Failed {
                scenario: scenario.name,
                fault,
                outcome,
            };
            if mutant.is_none() {
                eprintln!("{}", failed.line());
            }
            self.failed.push(failed);
        }
    }

    pub(crate) fn violations(&self) -> &[Failed] {
        &self.failed
    }

    pub(crate) fn plans(&self) -> usize {
        self.rows.iter().map(Row::plans).sum()
    }

    pub(crate) fn print(&self, took: Duration) {
        let mut text = String::new();
        let columns = Kind::COLUMNS
            .map(|column| format!("{column:>8}"))
            .join(" | ");
        let _ = writeln!(
            text,
            "{:<36} | effects | {columns} | plans | leftovers",
            "scenario"
        );
        for row in &self.rows {
            let counts = Kind::COLUMNS.map(|column| {
                let count = row.plans.get(column).copied().unwrap_or_default();
                format!("{count:>width$}", width = column.len().max(8))
            });
            let _ = writeln!(
                text,
                "{:<36} | {:>7} | {} | {:>5} | {:>9}",
                row.scenario,
                row.effects,
                counts.join(" | "),
                row.plans(),
                row.leftovers
            );
        }
        let _ = writeln!(
            text,
            "{} plans, {} with a violation, {} s",
            self.plans(),
            self.failed.len(),
            took.as_secs()
        );
        rehome_testing::show(text);
    }

    /// What went wrong: all plans in a line each, the first of each kind in full.
    pub(crate) fn report(&self) -> String {
        let mut text = String::from("invariants were violated:\n");
        for failed in &self.failed {
            let _ = writeln!(text, "{}", failed.line());
        }
        let mut kinds = BTreeSet::new();
        let first = |failed: &&Failed| kinds.insert(failed.outcome.violations.first().cloned());
        for failed in self.failed.iter().filter(first).take(TOLD) {
            let _ = writeln!(
                text,
                "\n{}\n{}",
                failed.line(),
                failed.outcome.log.join("\n")
            );
        }
        text
    }
}

impl Row {
    fn plans(&self) -> usize {
        self.plans.values().sum()
    }
}

impl Failed {
    pub(crate) fn line(&self) -> String {
        let fault = self
            .fault
            .map_or_else(|| "clean run".into(), |fault| fault.to_string());
        let first = self.outcome.violations.first().cloned().unwrap_or_default();
        format!("{}, {fault}: {first}", self.scenario)
    }
}

/// Every fault at every effect, and a second controller when everything is over.
fn faults(clean: &Outcome) -> Vec<Fault> {
    let mut all = Vec::new();
    for (at, (_, versions)) in clean.effects.iter().enumerate() {
        let kinds = Kind::all(*versions);
        all.extend(kinds.into_iter().map(|kind| Fault { at: at + 1, kind }));
    }
    let versions = clean.effects.last().map_or(0, |(_, versions)| versions + 1);
    let over = clean.effects.len() + 1;
    all.extend((0..versions).map(|back| Fault {
        at: over,
        kind: Kind::Second { back, held: None },
    }));
    all
}
