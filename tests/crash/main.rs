//! The crash table: the production reconciler on a real API server and the real hub's core, with
//! something going wrong at every single effect of every scenario, while a device and a back end
//! keep writing.
//!
//! The effects of a scenario are discovered by recording a clean run. `mutants.rs` proves that the
//! table notices when a rule of the protocol is broken.

#![expect(clippy::unwrap_used, reason = "what a test relies on fails the test")]

mod clock;
mod device;
mod fault;
mod ground;
mod incarnation;
mod invariants;
mod mutants;
mod people;
mod run;
mod scenario;
mod table;
mod wire;
mod world;

use std::time::Instant;

use ground::Ground;
use table::Table;

/// Plans that run at the same time.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_effect_survives_every_fault() {
    let started = Instant::now();
    let ground = Ground::lay().await.unwrap();
    let mut table = Table::default();
    for scenario in scenario::chosen() {
        table.fill(&ground, scenario, None).await;
    }
    table.print(started.elapsed());
    assert!(table.violations().is_empty(), "{}", table.report());
    assert!(
        table.plans() >= 400 || scenario::is_filtered(),
        "only {} plans",
        table.plans()
    );
}
