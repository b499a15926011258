//! `cluster up` and `cluster down`: a control plane for people, one for each user of the machine.
//!
//! The process that serves it holds a lock for as long as it lives; all that others know of it is
//! whether the lock is free, its id, and a file that says that the control plane is ready.

use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::exec::Signals;
use crate::control_plane::ControlPlane;
use crate::tools;
use crate::warden::Warden;

const PATIENCE: Duration = Duration::from_mins(3);

/// Where the control plane of `up` keeps its state.
pub(super) struct Place {
    pub(super) directory: PathBuf,
    lock: PathBuf,
    log: PathBuf,
}

impl Place {
    pub(super) fn find() -> Result<Self> {
        let cache = tools::cache()?;
        let [directory, lock, log] =
            ["cluster", "cluster.lock", "cluster.log"].map(|name| cache.join(name));
        Ok(Self {
            directory,
            lock,
            log,
        })
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    fn ready(&self) -> PathBuf {
        self.directory.join("ready")
    }

    fn pid(&self) -> PathBuf {
        self.directory.join("pid")
    }

    /// The lock, if no process serves the control plane.
    fn try_lock(&self) -> Result<Option<File>> {
        let file = File::create(&self.lock)
            .with_context(|| format!("cannot write {}", self.lock.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    pub(super) fn is_up(&self) -> Result<bool> {
        Ok(self.try_lock()?.is_none() && self.ready().is_file())
    }
}

pub(super) fn up() -> Result<ExitCode> {
    let place = Place::find()?;
    if place.is_up()? {
        eprintln!("the control plane is up already");
    } else {
        // With its progress here, not in the log of a process that nobody sees.
        tools::kube()?;
        start(&place)?;
    }
    println!("KUBECONFIG={}", place.kubeconfig().display());
    Ok(ExitCode::SUCCESS)
}

fn start(place: &Place) -> Result<()> {
    let log = File::create(&place.log)?;
    // A process group of its own, so that Ctrl-C in this terminal does not reach it.
    let mut server = Command::new(std::env::current_exe()?)
        .arg("serve")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the control plane's process")?;
    let begin = Instant::now();
    wait_for("the control plane", || {
        if place.is_up()? {
            return Ok(true);
        }
        if let Some(status) = server.try_wait()?
            // Another `up` may have been first; then its server is the one to wait for.
            && place.try_lock()?.is_some()
        {
            let log = std::fs::read_to_string(&place.log).unwrap_or_default();
            bail!("the control plane did not start ({status}): {}", log.trim());
        }
        Ok(false)
    })?;
    eprintln!(
        "control plane ready after {:.1} s",
        begin.elapsed().as_secs_f32()
    );
    Ok(())
}

pub(super) fn down() -> Result<ExitCode> {
    let place = Place::find()?;
    if place.try_lock()?.is_some() {
        eprintln!("no control plane is up");
        return Ok(ExitCode::SUCCESS);
    }
    let mut asked = false;
    wait_for("the control plane's end", || {
        if !asked && let Some(pid) = read_pid(&place.pid()) {
            // The lock is held, so the id is that of the process that wrote it.
            kill_process(pid, Signal::TERM).context("cannot end the control plane")?;
            asked = true;
        }
        Ok(place.try_lock()?.is_some() && !place.directory.exists())
    })?;
    eprintln!("the control plane has ended");
    Ok(ExitCode::SUCCESS)
}

fn read_pid(file: &Path) -> Option<Pid> {
    Pid::from_raw(std::fs::read_to_string(file).ok()?.trim().parse().ok()?)
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        if begin.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[tokio::main]
pub(super) async fn serve() -> Result<ExitCode> {
    let place = Place::find()?;
    let Some(_lock) = place.try_lock()? else {
        bail!("another process serves the control plane already");
    };
    if place.directory.exists() {
        std::fs::remove_dir_all(&place.directory)?;
    }
    // The keys in it are an administrator's.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&place.directory)?;
    Warden::over(&place.directory)?;
    std::fs::write(place.pid(), std::process::id().to_string())?;
    let mut signals = Signals::new()?;
    let running = tokio::select! {
        started = ControlPlane::start(&place.directory) => started?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    std::fs::write(place.ready(), "")?;
    signals.next().await;
    drop(running);
    Ok(ExitCode::SUCCESS)
}
