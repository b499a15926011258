//! Proof that the table notices: with each of nine rules of the protocol taken away, some plan
//! must violate an invariant.

use std::sync::Arc;

use rehome::domain::transfer::Mutant;
use rehome_testing::show;

use crate::ground::Ground;
use crate::scenario::{ALL, Scenario};
use crate::table::Table;

const MUTANTS: [Mutant; 9] = [
    Mutant::NoFence,
    Mutant::DeleteBeforeCommit,
    Mutant::CreateEnabled,
    Mutant::UnfenceWithoutAbort,
    Mutant::AbortLeavesSource,
    Mutant::NoReadAgain,
    Mutant::NoIfMatch,
    Mutant::NoLiveRead,
    Mutant::LeavesModules,
];

/// Where broken rules show soonest; the others follow.
const FIRST: [&str; 5] = [
    "move",
    "move with a module",
    "move of a disabled device",
    "abort: target full after the fence",
    "abort: target unreachable",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_mutant_is_caught() {
    let ground = Ground::lay().await.unwrap();
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        match caught(&ground, mutant).await {
            (plans, Some(how)) => show(format_args!("{mutant:?}: caught by plan {plans}: {how}")),
            (plans, None) => {
                show(format_args!("{mutant:?}: survived {plans} plans"));
                survivors.push(mutant);
            }
        }
    }
    assert!(
        survivors.is_empty(),
        "the table does not notice {survivors:?}"
    );
}

/// Runs the table until something is violated: how many plans that took, and what it was.
async fn caught(ground: &Arc<Ground>, mutant: Mutant) -> (usize, Option<String>) {
    let is_first = |scenario: &&'static Scenario| FIRST.contains(&scenario.name);
    let (first, rest): (Vec<_>, Vec<_>) = ALL.iter().partition(is_first);
    let mut table = Table::default();
    for scenario in first.into_iter().chain(rest) {
        table.fill(ground, scenario, Some(mutant)).await;
        if let Some(failed) = table.violations().first() {
            return (table.plans(), Some(failed.line()));
        }
    }
    (table.plans(), None)
}
