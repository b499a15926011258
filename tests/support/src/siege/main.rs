//! `attack`: every attack in earnest, on a release build, by attackers in processes of their own. What
//! each costs the gateway and honest devices is measured and judged.

mod burner;
mod honest;
mod siege;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use rehome_testing::attack::{ATTACKS, Prey, hold};
use rehome_testing::keep_files;

use burner::Profile;

#[derive(Parser)]
#[command(name = "attack", version)]
struct Arguments {
    #[command(flatten)]
    size: Size,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How hard it is attacked.
#[derive(Args, Clone)]
struct Size {
    /// Seconds for each attack, and for each time that it is compared with
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Only attacks in whose names this occurs
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Subcommand)]
enum Command {
    /// Attack the gateway that standard input describes
    #[command(hide = true)]
    Strike {
        name: String,
        attackers: usize,
        seconds: u64,
    },
    /// Hold idle connections to the gateway that standard input describes, until it ends
    #[command(hide = true)]
    Hold { count: usize },
    /// Use the CPU as attackers did, which standard input tells
    #[command(hide = true)]
    Burn,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nattack failed: {error:#}");
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
        Some(Command::Strike {
            name,
            attackers,
            seconds,
        }) => {
            let attack = ATTACKS.iter().find(|attack| attack.name == name);
            let attack = attack.context("no such attack")?;
            let (prey, time) = (prey()?, Duration::from_secs(seconds));
            let strike = attack.strike(&prey, attackers, time);
            println!("cpu {}", runtime.block_on(Profile::of(strike))?);
            Ok(())
        }
        Some(Command::Hold { count }) => {
            let held = runtime.block_on(hold(&prey()?, count))?;
            println!("held {}", held.len());
            // Until the one who started this says that it is enough.
            std::io::stdin().read_line(&mut String::new())?;
            Ok(())
        }
        Some(Command::Burn) => {
            line()?.parse::<Profile>()?.burn();
            Ok(())
        }
        None => runtime.block_on(siege::run(&rehome()?, &arguments.size)),
    }
}

fn prey() -> Result<Prey> {
    Prey::from_json(&serde_json::from_str(&line()?)?)
}

fn line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line)
}

/// The program under test, built beside this one.
fn rehome() -> Result<PathBuf> {
    let rehome = std::env::current_exe()?.with_file_name("rehome");
    ensure!(
        rehome.is_file(),
        "{} is missing: run make attack, which builds it",
        rehome.display()
    );
    Ok(rehome)
}
