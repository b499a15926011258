//! `demo`: the whole in one run. A real control plane, the operator and two hubs as processes, and a
//! device that runs the official SDK; every sentence with a tick was checked.

mod kubectl;
mod narration;
mod python;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rehome_testing::{keep_files, tools};
use tokio::signal::unix::{SignalKind, signal};

/// Show Rehome at work: a device is provisioned, then moved between hubs with its twin
#[derive(Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// Leave everything running until Ctrl-C, and print how to talk to it
    #[arg(long)]
    keep: bool,
}

/// What must be there before the story begins.
struct Programs {
    rehome: PathBuf,
    kube: PathBuf,
    python: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\ndemo failed: {error:#}");
            if let Ok(directory) = keep_files() {
                eprintln!("logs of every process: {}", directory.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    // Before anything listens to signals: a build that is interrupted ends at once.
    let programs = Programs::ready()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut stop = async || {
            tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            }
        };
        // Dropping the story, told or not, ends what it started.
        let told = tokio::select! {
            told = story::tell(&programs) => told?,
            number = stop() => {
                eprintln!("\ninterrupted; ending every process");
                return Ok(ExitCode::from(128 + number));
            }
        };
        if arguments.keep {
            told.explain(&programs);
            stop().await;
            eprintln!("\nending every process");
        }
        told.end().await?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Programs {
    fn ready() -> Result<Self> {
        let own = std::env::current_exe().context("where am I?")?;
        let rehome = own.with_file_name("rehome");
        if !rehome.is_file() {
            anyhow::bail!(
                "{} is missing: run make demo, which builds it",
                rehome.display()
            );
        }
        let kube = tools::kube()?;
        // The chart is rendered by it.
        tools::helm()?;
        let python = python::environment()?;
        Ok(Self {
            rehome,
            kube,
            python,
        })
    }
}
