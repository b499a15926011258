//! `cluster exec`: one control plane around a command.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{CLUSTER_VARIABLE, uses_existing_cluster};
use crate::control_plane::ControlPlane;
use crate::tools;
use crate::warden::Warden;

/// Runs the command and ends with its exit code, after the control plane has ended.
pub(super) fn exec(command: &[String]) -> Result<ExitCode> {
    let reuses = uses_existing_cluster() || std::env::var_os(CLUSTER_VARIABLE).is_some();
    if !reuses {
        // Before anything here listens to signals: a build that is interrupted ends at once.
        tools::kube()?;
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        if reuses {
            return Ok(exit_code(run(command, None, &mut Signals::new()?).await?));
        }
        with_control_plane(command).await
    })
}

async fn with_control_plane(command: &[String]) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let warden = Warden::get()?;
    let directory = warden.directory().join("cluster");
    let begin = Instant::now();
    let started = tokio::select! {
        started = ControlPlane::start(&directory) => started,
        number = signals.next() => return Ok(ExitCode::from(128 + number)),
    };
    let plane = started.inspect_err(|_| keep(warden))?;
    eprintln!(
        "control plane ready after {:.1} s",
        begin.elapsed().as_secs_f32()
    );
    let status = run(command, Some(&directory), &mut signals).await;
    drop(plane);
    if !status.as_ref().is_ok_and(ExitStatus::success) {
        keep(warden);
    }
    Ok(exit_code(status?))
}

fn keep(warden: &Warden) {
    warden.keep();
    eprintln!(
        "the control plane's logs are kept in {}",
        warden.directory().display()
    );
}

/// Runs the command to its end, whatever signals come: they are passed on to it.
async fn run(
    command: &[String],
    directory: Option<&Path>,
    signals: &mut Signals,
) -> Result<ExitStatus> {
    let (program, arguments) = command.split_first().context("no command given")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(directory.map(|directory| (CLUSTER_VARIABLE, directory)))
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let warden = Warden::get()?;
    let id = child.id().context("a child without an id")?;
    warden.watch(id);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            number = signals.next() => pass_on(&child, number)?,
        }
    };
    warden.release(id);
    Ok(status)
}

fn pass_on(child: &Child, number: u8) -> Result<()> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number.into())) {
        kill_process(pid, signal)?;
    }
    Ok(())
}

/// As shells do: the code, or 128 and the number of the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|number| 128 + number));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The signals that ask a process to end.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hangup.recv() => 1,
        }
    }
}
