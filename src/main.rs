//! `rehome`: arguments, wiring, exit codes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use rehome::api::crds;

/// Device provisioning and reprovisioning for Kubernetes.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Print the three `CustomResourceDefinition`s.
    Crds {
        /// Write one file per kind into this directory instead.
        #[arg(long)]
        output_dir: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Crds { output_dir } => print_crds(output_dir.as_deref()),
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
