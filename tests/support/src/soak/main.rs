//! `soak`: a fleet lives on the whole of Rehome for ten minutes, in a private network. Devices of
//! the harness's own client, and processes with official SDKs, register over every protocol, report,
//! come back, and move from hub to hub because their groups are given other hubs; a gateway is killed
//! now and then. In the end no device may be lost, and no process of the product may have grown.
//!
//! ```text
//! people (course) ──▶ Enrollments, triggers          ground: control plane, controller,
//!                          │                          two gateways, three hubs
//! fleet: life × body ──────┴──▶ gateways, hubs ◀──── sampling ──▶ memory
//!          │                                              │
//!          └──▶ tally, faults ◀── verdict ────────────────┴──▶ report
//! ```

mod body;
mod course;
mod faults;
mod fleet;
mod ground;
mod life;
mod memory;
mod report;
mod run;
mod sampling;
mod tally;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rehome_testing::sdk::Programs;
use rehome_testing::{PrivateNetwork, keep_files, tools, until, vitals};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use fleet::Fleet;
use ground::Ground;
use report::Report;
use run::Run;
use sampling::{Incidents, Sampler};

/// Longest time for the product to take up what a person wrote.
const PATIENCE: Duration = Duration::from_mins(1);
/// Open files that this process or a hub may need, beyond one for each device.
const FILES: u64 = 1000;

/// Let a fleet live on Rehome for a while and lose no device
#[derive(Parser, Clone, Debug)]
#[command(name = "soak", version)]
struct Size {
    /// How long, once every device has a home
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Devices in all
    #[arg(long, default_value_t = 2000)]
    devices: usize,
    /// How many of these are processes with an official SDK
    #[arg(long, default_value_t = 25)]
    sdk_processes: usize,
    /// Mean seconds between two deeds of a device
    // With 2,000 devices these are 200 deeds and 13 moves in a second: meant to keep two processors,
    // which run the fleet and the control plane too, about two thirds busy.
    #[arg(long, default_value_t = 10.0)]
    pause: f64,
    /// What chance begins with
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

impl Size {
    /// Devices of the fast client.
    fn fast(&self) -> usize {
        self.devices - self.sdk_processes
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.minutes > 0.0 && self.minutes < 600.0 && self.pause > 0.0 && self.pause <= 30.0,
            "--minutes must be up to 600, and --pause up to 30: every device is to be served each minute"
        );
        ensure!(
            self.sdk_processes <= self.devices,
            "--sdk-processes are some of the --devices"
        );
        Ok(())
    }
}

fn main() -> ExitCode {
    match run(&Size::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("soak: {error:#}");
            keep();
            ExitCode::FAILURE
        }
    }
}

fn run(size: &Size) -> Result<ExitCode> {
    size.check()?;
    allow_files(size)?;
    // What is missing is fetched outside, where there is a network that leads somewhere.
    tools::kube()?;
    tools::helm()?;
    let programs = (size.sdk_processes > 0).then(Programs::ready).transpose()?;
    let rehome = rehome()?;
    if let Some(status) = PrivateNetwork::enter()? {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(1)));
    }
    let network = PrivateNetwork::set_up()?;
    ensure!(
        vitals::are_visible(),
        "/proc does not show the processes of the private network: this container does not let it \
         be mounted anew; run where it may be"
    );
    tokio::runtime::Runtime::new()?.block_on(async {
        // The first process of its namespace does not get signals that it does not ask for.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            report = soak(size, programs.as_ref(), &rehome, &network) => Ok(conclude(&report?)),
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    })
}

async fn soak(
    size: &Size,
    programs: Option<&Programs>,
    rehome: &Path,
    network: &PrivateNetwork,
) -> Result<Report> {
    let begin = Instant::now();
    let ground = Ground::start(rehome, network).await?;
    let after = begin.elapsed().as_secs();
    eprintln!(
        "everything is up after {after} s; {} devices come",
        size.devices
    );
    let registrars = [
        ground.installation.registrar.clone(),
        ground.replica.lock().await.registrar.clone(),
    ];
    let run = Arc::new(Run::new(registrars, Duration::from_secs_f64(size.pause)));
    let fleet = arrive(&ground, programs, &run, size).await?;
    let after = begin.elapsed().as_secs();
    eprintln!("every device has a home after {after} s; the soak begins");

    let mark = ground.cluster.audit()?.mark()?;
    let sampler = Mutex::new(Sampler::start()?);
    let fast = fleet.fast.clone();
    let (begin, time) = (Instant::now(), size.time());
    let course = async {
        let waves = course::waves(&ground, &fast, time);
        let outages = course::outages(&ground, &run, time);
        let (done, dead) = tokio::try_join!(waves, outages)?;
        tokio::time::sleep(time.saturating_sub(begin.elapsed())).await;
        anyhow::Ok((done, dead))
    };
    let (done, dead) = tokio::select! {
        done = course => done?,
        never = sampling::sample(&sampler, &ground) => match never? {},
        never = report::progress(&run, &sampler, begin) => match never {},
    };
    let end = Instant::now();
    let sampler = sampler.into_inner().unwrap_or_else(PoisonError::into_inner);
    let used = sampler.used()?;
    run.end();
    let accounts = fleet.join().await?;
    let verdict = verdict::judge(&ground, &accounts, end, &run.faults).await?;
    let tenant = ground.tenant.namespace.name();
    let writes = ground.cluster.audit()?.since(mark)?.writes();
    let report = Report {
        size: size.clone(),
        done,
        used,
        verdict,
        memory: sampler.memory(),
        writes: writes.in_namespace(tenant),
        gateways: of_gateways(&ground, dead).await?,
        hubs: of_hubs(&ground).await?,
        run,
    };
    report.judge();
    ground.stop().await?;
    Ok(report)
}

/// Has every device come, and waits until each has a home.
async fn arrive(
    ground: &Ground,
    programs: Option<&Programs>,
    run: &Arc<Run>,
    size: &Size,
) -> Result<Fleet> {
    let patience = PATIENCE * 3 + Duration::from_secs(u64::try_from(size.devices)? / 10);
    let coming = async {
        let fleet = Fleet::start(ground, programs, run, size).await?;
        let all = until(patience, async || {
            let arrived = run.arrived();
            ensure!(
                arrived == size.devices,
                "only {arrived} of {} devices have a home",
                size.devices
            );
            Ok(())
        });
        all.await.map_err(|last| {
            let last = last.unwrap_or_else(|| anyhow::anyhow!("no answer"));
            last.context(format!("waited {patience:?}, and saw\n{}", run.faults))
        })?;
        Ok(fleet)
    };
    // Only to see that all processes live.
    let sampler = Mutex::new(Sampler::start()?);
    tokio::select! {
        fleet = coming => fleet,
        never = sampling::sample(&sampler, ground) => match never? {},
    }
}

/// What both gateways counted, in all their lives.
async fn of_gateways(ground: &Ground, dead: Incidents) -> Result<Incidents> {
    let mut incidents = dead;
    let replica = ground.replica.lock().await.health;
    for health in [ground.installation.gateway_health, replica] {
        incidents.add(&Incidents::read(health).await?);
    }
    Ok(incidents)
}

async fn of_hubs(ground: &Ground) -> Result<Incidents> {
    let mut incidents = Incidents::default();
    for hub in &ground.installation.hubs {
        incidents.add(&Incidents::read(hub.health).await?);
    }
    Ok(incidents)
}

/// Prints the report; the exit code says whether anything is in it that must not be.
fn conclude(report: &Report) -> ExitCode {
    println!("{report}");
    if report.run.faults.count() == 0 {
        return ExitCode::SUCCESS;
    }
    keep();
    ExitCode::FAILURE
}

fn keep() {
    if let Ok(directory) = keep_files() {
        eprintln!("logs of every process: {}", directory.display());
    }
}

/// Every device has a connection to its hub, and may have one to a gateway.
fn allow_files(size: &Size) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = 2 * u64::try_from(size.devices)? + FILES;
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "{needed} open files are needed, and {maximum:?} are allowed (ulimit -Hn): take fewer --devices"
    );
    let raised = Rlimit {
        current: Some(needed),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("the limit of open files cannot be raised")
}

/// The program under test, built beside this one.
fn rehome() -> Result<PathBuf> {
    let rehome = std::env::current_exe()?.with_file_name("rehome");
    ensure!(
        rehome.is_file(),
        "{} is missing: run make soak, which builds it",
        rehome.display()
    );
    Ok(rehome)
}
