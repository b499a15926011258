//! `e2e`: the chart installed on a real node, the examples run as their READMEs say, and what can
//! happen to an installation in its life. All of it on a machine of namespaces, or on kind; needs root.

mod device_image;
mod ground;
mod hub;
mod load;
mod place;
mod plant;
mod readme;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use rehome_testing::node::kind_image;
use rehome_testing::{keep_files, packages, shell, tools};
use tokio::signal::unix::{SignalKind, signal};

use ground::{Ground, Images};
use place::{Asked, Place};

/// Install Rehome on a node and live through what an installation lives through
#[derive(Parser)]
#[command(name = "e2e", version)]
struct Arguments {
    /// Only scenarios with this in their name; several may be given, with commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where it is played
    #[arg(long, value_enum, default_value_t = Asked::Own)]
    cluster: Asked,
    /// The minor of a kind node, such as 1.36, or its image; the newest minor by default
    #[arg(long)]
    kubernetes: Option<String>,
    /// The image of Rehome; by default the one that make image writes
    #[arg(long)]
    image: Option<PathBuf>,
    /// A folder with an older image and its chart, from which is upgraded; by default the one that
    /// tests/older-image writes
    #[arg(long)]
    older: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Register devices at a rate; run by the scenarios, outside
    #[command(hide = true)]
    Load(load::Load),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            if let Ok(directory) = keep_files() {
                eprintln!("logs of every process: {}", directory.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(Part::Load(load)) = &arguments.part {
        tokio::runtime::Runtime::new()?.block_on(load.run())?;
        return Ok(ExitCode::SUCCESS);
    }
    let kubernetes = arguments.kubernetes.as_deref();
    ensure!(
        kubernetes.is_none() || arguments.cluster == Asked::Kind,
        "KUBERNETES is for CLUSTER=kind: a node of its own runs what tests/cluster/go.mod pins"
    );
    kind_image(kubernetes)?;
    // What is missing is fetched or built outside, where there is a network that leads somewhere.
    tools::kube()?;
    tools::helm()?;
    let python = packages::python(&checkout().join("examples/device/requirements.txt"))?;
    let rehome = built(arguments.image.as_deref(), "rehome.tar")?;
    let older = built(arguments.older.as_deref(), "older")?;
    if let Some(status) = arguments.cluster.enter()? {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if status.success() {
            eprintln!("{}", arguments.cluster.leaves());
        }
        return Ok(ExitCode::from(code.unwrap_or(1)));
    }
    let images = Images {
        rehome,
        older,
        python,
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        // The first process of its namespace does not get signals that it does not ask for.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            run = play(arguments, images) => run.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    })
}

async fn play(arguments: &Arguments, images: Images) -> Result<()> {
    let begin = Instant::now();
    let place = Place::make(arguments.cluster, arguments.kubernetes.as_deref()).await?;
    let mut ground = Ground::prepare(place, images)?;
    println!(
        "node and images are there after {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    let (mut count, mut left_out) = (0, Vec::new());
    for (name, scenario) in scenarios::ALL {
        let mut only = arguments.only.iter();
        let wanted = arguments.only.is_empty() || only.any(|only| name.contains(&**only));
        // Everything stands on what is installed first.
        if !wanted && *name != scenarios::FIRST {
            continue;
        }
        if let Some(why) = arguments.cluster.lacks(name) {
            println!("\n== {name}: not on kind: {why}");
            left_out.push(*name);
            continue;
        }
        let begin = Instant::now();
        println!("\n== {name}");
        if let Err(error) = scenario(&mut ground).await {
            eprintln!("{}", ground.state().await);
            return Err(error.context((*name).to_owned()));
        }
        println!("== {name}: {:.0} s", begin.elapsed().as_secs_f64());
        count += 1;
    }
    println!(
        "\n{count} scenarios passed in {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    if !left_out.is_empty() {
        println!("not played on kind: {}", left_out.join(", "));
    }
    Ok(())
}

/// What was asked for, or else what was built beside this program.
fn built(asked_for: Option<&Path>, name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("where am I?")?;
    let target = own.ancestors().nth(2).context("a program is in a folder")?;
    let path = asked_for.map_or_else(|| target.join("image").join(name), Path::to_owned);
    path.canonicalize().with_context(|| {
        format!(
            "{} is missing: run make e2e, which builds it",
            path.display()
        )
    })
}

/// The root of the repository.
fn checkout() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}
