//! `cluster`: a real Kubernetes control plane for tests and for people, without containers.

use std::process::ExitCode;

use clap::Parser;
use rehome_testing::commands::Action;

/// A real Kubernetes control plane for tests and for people, without containers and without root.
#[derive(Parser)]
#[command(name = "cluster", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

fn main() -> ExitCode {
    Arguments::parse().action.run().unwrap_or_else(|error| {
        eprintln!("cluster: {error:#}");
        ExitCode::FAILURE
    })
}
