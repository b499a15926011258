//! `bench`: what one gateway and one controller carry, as ratios against raw loops that are measured
//! in the same run, on the same machine and API server; and what registrations take. Figures, no gates.

mod arena;
mod echo;
mod figures;
mod load;
mod raw;
mod rounds;
mod scale;
mod talks;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use rehome_testing::keep_files;

/// Measure registrations, moves and polls against raw loops
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(flatten)]
    size: Size,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How much is measured.
#[derive(Args, Clone, Copy)]
struct Size {
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Devices that register first and then move, in each round
    #[arg(long, default_value_t = 400)]
    devices: usize,
    /// Seconds for each of the loops that write nothing
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections to the gateway, each with one request on its way
    #[arg(long, default_value_t = 128)]
    connections: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Measure what registrations take of etcd, of the API server and of Rehome's processes
    Scale(scale::Options),
    /// Answer every HTTPS request with its own body: what the gateway is compared with
    #[command(hide = true)]
    Echo(echo::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench failed: {error:#}");
            if let Ok(directory) = keep_files() {
                eprintln!("logs of every process: {}", directory.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.command {
        Some(Command::Echo(options)) => runtime.block_on(echo::serve(&options)),
        Some(Command::Scale(options)) => runtime.block_on(scale::run(&rehome()?, &options)),
        None => {
            ensure!(
                arguments.size.rounds > 0 && arguments.size.connections > 0,
                "nothing to do"
            );
            runtime.block_on(rounds::run(&rehome()?, arguments.size))
        }
    }
}

/// The program under test, built beside this one.
fn rehome() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where am I?")?;
    let rehome = own.with_file_name("rehome");
    if !rehome.is_file() {
        bail!(
            "{} is missing: run make bench, which builds it",
            rehome.display()
        );
    }
    Ok(rehome)
}
