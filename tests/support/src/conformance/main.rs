//! `conformance`: unmodified official SDKs against the whole of Rehome, in a private network.
//!
//! Outside it fetches the SDKs; inside the network it starts a control plane, the product and the
//! devices, runs every scenario for every kind of device, and compares with what is expected.

mod credentials;
mod enrolling;
mod expectation;
mod floor;
mod life;
mod outcome;
mod report;
mod restart;
mod scenario;
mod scenarios;
mod services;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use futures::future::join_all;
use rehome_testing::sdk::Programs;
use rehome_testing::{PrivateNetwork, keep_files, tools};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use expectation::{Expectation, Variant};
use floor::Floor;
use life::{HUBS, Life};
use outcome::{Cells, Seen};
use restart::Fragile;
use scenario::Scenario;
use services::Services;

/// Devices of an SDK that are at work at the same time: enough to hide the pauses between polls, and
/// few enough for two processors to serve within the SDKs' own limits.
fn at_once(sdk: &str) -> usize {
    match sdk {
        // It sleeps for ten seconds before each poll.
        "java-legacy" => 40,
        _ => 12,
    }
}

/// Run unmodified official SDKs against Rehome and compare with what is expected
#[derive(Parser)]
#[command(name = "conformance", version)]
struct Arguments {
    /// Write docs/conformance.md from this run
    #[arg(long)]
    write: bool,
    /// Run only devices and services that have this in their name: java, node-amqp-key, service-python
    #[arg(long, conflicts_with = "write", value_name = "TEXT")]
    only: Option<String>,
}

/// What happened.
struct Run<'a> {
    cells: Cells<'a>,
    services: Services,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            if let Ok(directory) = keep_files() {
                eprintln!("logs of every process: {}", directory.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut expectation = Expectation::read()?;
    if let Some(text) = &arguments.only {
        expectation.keep_only(text)?;
    }
    // What is missing is fetched outside, where there is a network that leads somewhere.
    tools::kube()?;
    tools::helm()?;
    let programs = Programs::ready()?;
    let rehome = rehome()?;
    if let Some(status) = PrivateNetwork::enter()? {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(1)));
    }
    let network = PrivateNetwork::set_up()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        // The first process of its namespace does not get signals that it does not ask for.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let begin = Instant::now();
        let play = async {
            let (floor, fragile) = Floor::start(&expectation, &programs, &rehome, &network).await?;
            eprintln!("everything is up after {} s", begin.elapsed().as_secs());
            play(&programs, &floor, fragile).await
        };
        let run = tokio::select! {
            run = play => run?,
            _ = interrupt.recv() => return Ok(ExitCode::from(130)),
            _ = terminate.recv() => return Ok(ExitCode::from(143)),
        };
        eprintln!("ended after {} s", begin.elapsed().as_secs());
        conclude(arguments, &expectation, &run)
    })
}

/// Every scenario for every kind of device.
async fn play<'a>(programs: &Programs, floor: &Floor<'a>, fragile: Fragile) -> Result<Run<'a>> {
    let (cells, broken, services) = tokio::join!(
        in_parts(floor),
        restarts(floor, fragile),
        services::play(floor, programs)
    );
    let mut cells = cells?;
    cells.extend(broken);
    Ok(Run { cells, services })
}

/// The scenarios that may need an Enrollment to change.
async fn in_parts<'a>(floor: &Floor<'a>) -> Result<Cells<'a>> {
    let mut cells = Cells::new();
    let begin = Instant::now();
    for (number, part) in [Part::Before, Part::After].into_iter().enumerate() {
        if part == Part::After {
            floor.reallocate(&Life::MOVED, HUBS[1]).await?;
        }
        // The first half of a scenario is in the cell if it failed; that is what counts.
        for (cell, seen) in everybody(floor, part).await {
            cells.entry(cell).or_insert(seen);
        }
        let seconds = begin.elapsed().as_secs();
        eprintln!("part {} ended after {seconds} s", number + 1);
    }
    Ok(cells)
}

/// The scenario in which the gateway restarts, one SDK after the other.
async fn restarts<'a>(floor: &Floor<'a>, mut fragile: Fragile) -> Cells<'a> {
    let mut cells = Cells::new();
    let begin = Instant::now();
    for sdk in &floor.expectation.sdks {
        for (cell, seen) in restart::play(floor, &mut fragile, sdk).await {
            cells.insert(cell, seen.map_err(|error| format!("{error:#}")));
        }
        let seconds = begin.elapsed().as_secs();
        eprintln!("restarts for {} ended after {seconds} s", sdk.name);
    }
    cells
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Before,
    After,
}

type Cell<'a> = ((Variant<'a>, Scenario), Result<Seen, String>);

/// One part of every life of every kind of device.
async fn everybody<'a>(floor: &Floor<'a>, part: Part) -> Vec<Cell<'a>> {
    let sdks = floor.expectation.sdks.iter();
    let turns: BTreeMap<_, _> = sdks
        .map(|sdk| (&*sdk.name, Semaphore::new(at_once(&sdk.name))))
        .collect();
    let cells = Mutex::new(Vec::new());
    let lives = floor
        .expectation
        .variants()
        .flat_map(|variant| Life::ALL.map(|life| (variant, life)));
    join_all(lives.map(async |(variant, life)| {
        // The semaphore is never closed.
        let _turn = turns[variant.sdk].acquire().await;
        let seen = match part {
            Part::Before => scenarios::before(floor, variant, life).await,
            Part::After => scenarios::after(floor, variant, life)
                .await
                .into_iter()
                .collect(),
        };
        let seen = seen.into_iter().map(|(scenario, seen)| {
            let seen = seen.map_err(|error| format!("{error:#}"));
            ((variant, scenario), seen)
        });
        if let Ok(mut cells) = cells.lock() {
            cells.extend(seen);
        }
    }))
    .await;
    cells.into_inner().unwrap_or_default()
}

/// Prints the matrix, and says what is not as expected.
fn conclude(arguments: &Arguments, expectation: &Expectation, run: &Run<'_>) -> Result<ExitCode> {
    let page = report::page(expectation, &run.cells, &run.services);
    println!("{page}");
    let mut differences = outcome::differences(expectation, &run.cells);
    differences.extend(services::differences(&expectation.services, &run.services));
    let cells = run.cells.len();
    for difference in &differences {
        println!("NOT AS EXPECTED: {difference}");
    }
    println!("{cells} cells, {} not as expected", differences.len());
    let file = report::file();
    if arguments.write && differences.is_empty() {
        std::fs::write(&file, &page).with_context(|| file.display().to_string())?;
    }
    let is_whole = arguments.only.is_none();
    let is_written = std::fs::read_to_string(&file).is_ok_and(|written| written == page);
    if is_whole && !is_written {
        println!("docs/conformance.md is not what this run shows");
    }
    let is_fine = differences.is_empty() && (is_written || !is_whole);
    if !is_fine {
        keep_files()?;
    }
    Ok(if is_fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The product, which is built beside this program.
fn rehome() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where am I?")?;
    let rehome = own.with_file_name("rehome");
    if !rehome.is_file() {
        anyhow::bail!(
            "{} is missing: run make conformance, which builds it",
            rehome.display()
        );
    }
    Ok(rehome)
}
