//! What registrations take of a cluster: they are registered step by step, and everything that grows
//! with them is looked at after each step.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use http::Request;
use rehome_testing::fleet::Group;
use rehome_testing::vitals::rss;
use serde_json::Value;

use crate::arena::{Arena, WEST};
use crate::load::Load;
use crate::rounds::{requests, settle};

/// Connections to the gateway.
const CONNECTIONS: usize = 32;
/// Registrations of which the size is looked at.
const SAMPLE: usize = 500;
/// What is looked at, in the order of the columns: of etcd the database, of the API server the heap,
/// of Rehome's processes the memory that they occupy.
const COLUMNS: [&str; 6] = [
    "as JSON",
    "etcd",
    "API server",
    "controller",
    "gateway",
    "hub",
];

#[derive(Args)]
pub(crate) struct Options {
    /// Devices that register in each step
    #[arg(long, default_value_t = 2500)]
    devices: usize,
    /// How often that many register
    #[arg(long, default_value_t = 4)]
    steps: usize,
}

/// KiB of everything in [`COLUMNS`]; of JSON, what one registration has.
type Row = [f64; COLUMNS.len()];

/// Measures, and prints the table.
pub(crate) async fn run(rehome: &Path, options: &Options) -> Result<()> {
    ensure!(
        options.devices > 0 && options.steps > 1,
        "nothing to compare"
    );
    eprintln!("starting a control plane, the operator and two hubs");
    let arena = Arena::start(rehome).await?;
    let registrar = arena.registrar();
    let mut load = Load::connect(
        CONNECTIONS,
        &registrar.host,
        registrar.https,
        &registrar.trust,
    )
    .await?;
    print!("{:>13}", "registrations");
    for column in COLUMNS {
        print!(" {column:>10}");
    }
    println!();
    let mut rows = Vec::new();
    for step in 1..=options.steps {
        let group = Group::new(&format!("step{step}"), Some("MigrateData"), &[WEST])?;
        arena.tenant.enroll(&group, &arena.installation).await?;
        let fleet: Vec<_> = (0..options.devices)
            .map(|number| arena.tenant.device(&group, number))
            .collect();
        settle(&arena, &mut load, &group, WEST, &requests(&fleet)?).await?;
        let row = look(&arena).await?;
        print(&format!("{} KiB", step * options.devices), &row, 1);
        rows.push(row);
    }
    if let [first, .., last] = &rows[..] {
        let further = f64::from(u32::try_from((options.steps - 1) * options.devices)?);
        let mut each: Row = std::array::from_fn(|at| (last[at] - first[at]) / further);
        each[0] = last[0];
        print("each, KiB", &each, 2);
    }
    arena.installation.stop().await
}

async fn look(arena: &Arena) -> Result<Row> {
    let json = json_of_one(arena).await?;
    let taken = arena.cluster.footprint().await?;
    let installation = &arena.installation;
    let occupied = |pid| Ok::<_, anyhow::Error>(kib(rss(pid)? * 1024));
    Ok([
        json,
        kib(taken.database),
        kib(taken.heap),
        occupied(installation.controller.pid())?,
        occupied(installation.gateway.pid())?,
        occupied(installation.hubs[0].process.pid())?,
    ])
}

/// What one registration has as JSON, on average.
async fn json_of_one(arena: &Arena) -> Result<f64> {
    let namespace = arena.tenant.namespace.name();
    let path = format!(
        "/apis/rehome.dev/v1alpha1/namespaces/{namespace}/deviceregistrations?limit={SAMPLE}"
    );
    let request = Request::get(path).body(Vec::new())?;
    let text = arena.cluster.client().request_text(request).await?;
    let list: Value = serde_json::from_str(&text)?;
    let count = list["items"].as_array().context("no items")?.len();
    Ok(kib(u64::try_from(text.len() / count.max(1))?))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of this machine are few")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn print(name: &str, row: &Row, digits: usize) {
    print!("{name:>13}");
    for value in row {
        print!(" {value:>10.digits$}");
    }
    println!();
}
