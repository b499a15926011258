//! `rehome`: arguments, wiring, exit codes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rehome::api::crds;
use rehome::clock::SystemClock;
use rehome::random::SystemRandom;
use rehome::telemetry::Telemetry;
use rehome::{controller, gateway, hub, probe};

/// Device provisioning and reprovisioning for Kubernetes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    telemetry: Telemetry,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the three `CustomResourceDefinition`s.
    Crds {
        /// Write one file per kind into this directory instead.
        #[arg(long)]
        output_dir: Option<PathBuf>,
    },
    Controller(Box<controller::Options>),
    Gateway(Box<gateway::Options>),
    Hub(Box<Hub>),
    Probe(Box<probe::Options>),
}

/// Serve a self-hosted IoT hub: a service API over HTTPS, devices over MQTT and HTTPS.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Hub {
    #[command(subcommand)]
    instead: Option<InsteadOfServing>,
    #[command(flatten)]
    serving: Option<hub::Options>,
}

#[derive(Subcommand)]
enum InsteadOfServing {
    Migrate(hub::MigrateOptions),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Crds { .. } => "crds",
            Self::Controller(_) => "controller",
            Self::Gateway(_) => "gateway",
            Self::Hub(_) => "hub",
            Self::Probe(_) => "probe",
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { telemetry, command } = Arguments::parse();
    // The first to install one wins, and nobody else does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let clock = Arc::new(SystemClock::start());
    let telemetry = telemetry.start(command.name())?;
    let ended = run(command, clock).await;
    telemetry.end().await;
    ended
}

async fn run(command: Command, clock: Arc<SystemClock>) -> anyhow::Result<()> {
    match command {
        Command::Crds { output_dir } => print_crds(output_dir.as_deref()),
        Command::Controller(options) => Ok(controller::run(*options, clock).await?),
        Command::Gateway(options) => Ok(gateway::run(*options, clock).await?),
        Command::Hub(hub) => match (hub.instead, hub.serving) {
            (Some(InsteadOfServing::Migrate(options)), _) => Ok(hub::migrate(options).await?),
            (None, Some(options)) => Ok(hub::run(options, clock).await?),
            (None, None) => anyhow::bail!("see rehome hub --help"),
        },
        Command::Probe(options) => Ok(probe::run(*options, &*clock, &SystemRandom).await?),
    }
}

fn print_crds(directory: Option<&Path>) -> anyhow::Result<()> {
    for file in crds::files()? {
        match directory.map(|directory| directory.join(&file.name)) {
            None => print!("{}", file.text),
            Some(path) => std::fs::write(&path, file.text)
                .with_context(|| format!("{} cannot be written", path.display()))?,
        }
    }
    Ok(())
}
