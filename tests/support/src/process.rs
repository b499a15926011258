//! A child process with a log file, ended by its id and never left behind.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::wait::until;
use crate::warden::Warden;

/// A running child. Dropping it kills it; so does the end of this process, even by SIGKILL.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Open for a process that is told things.
    input: Option<ChildStdin>,
    /// Where in the log this process began: a log may be continued after a restart.
    log_start: u64,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `binary`; `env` is added to the environment, output is appended to `log`.
    pub fn spawn<A, E, K, V>(
        name: &str,
        binary: impl AsRef<OsStr>,
        args: A,
        env: E,
        log: impl AsRef<Path>,
    ) -> Result<Self>
    where
        A: IntoIterator<Item: AsRef<OsStr>>,
        E: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let mut command = Command::new(binary.as_ref());
        command.args(args).envs(env);
        Self::spawn_command(name, command, log.as_ref())
    }

    /// Starts `binary`, which reads from its standard input what [`Self::tell`] says.
    pub fn spawn_listening<A>(
        name: &str,
        binary: impl AsRef<OsStr>,
        args: A,
        log: impl AsRef<Path>,
    ) -> Result<Self>
    where
        A: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = Command::new(binary.as_ref());
        command.args(args);
        Self::spawn_command_listening(name, command, log.as_ref())
    }

    pub(crate) fn spawn_command_listening(
        name: &str,
        command: Command,
        log: &Path,
    ) -> Result<Self> {
        Self::start(name, command, Stdio::piped(), log)
    }

    pub(crate) fn spawn_command(name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start(name, command, Stdio::null(), log)
    }

    fn start(name: &str, mut command: Command, input: Stdio, log: &Path) -> Result<Self> {
        let warden = Warden::get()?;
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = output.metadata()?.len();
        let mut child = command
            .stdin(input)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| {
                format!("cannot start {name} ({})", command.get_program().display())
            })?;
        warden.watch(child.id());
        Ok(Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            log: log.to_owned(),
            log_start,
            ended: None,
        })
    }

    /// Writes a line to the standard input of a process that listens.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut();
        let input = input.with_context(|| format!("{} does not listen", self.name))?;
        writeln!(input, "{line}").with_context(|| format!("{} cannot be told anything", self.name))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written since it was started.
    pub fn output(&self) -> Result<String> {
        let mut file = std::fs::File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            self.has_ended(status);
        }
        Ok(self.ended)
    }

    /// Sends a signal, such as `Signal::STOP` and `Signal::CONT` to pause and resume.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "{} cannot be sent a signal: it has ended ({status})",
                self.name
            );
        }
        // Not waited for yet, so the id still belongs to this child.
        let pid = Pid::from_raw(self.pid().try_into()?).context("process ids are positive")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it (SIGKILL) and waits until it is gone. Nothing happens if it has ended already.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        let status = self.child.wait()?;
        self.has_ended(status);
        Ok(status)
    }

    /// Asks it to end (SIGTERM) and waits; it is an error, and the end, if it does not do so
    /// `within` the time.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(within).await.inspect_err(|_| {
            let _ = self.kill();
        })
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = until(within, async || self.ended().ok().flatten().ok_or(())).await;
        ended.map_err(|_| anyhow!("{} has not ended within {within:?}", self.name))
    }

    /// Waits until a line of its output contains `text`, and gives that line.
    pub async fn wait_for_line(&mut self, text: &str, within: Duration) -> Result<String> {
        self.wait_until(&format!("a line with {text:?}"), within, async |process| {
            let output = process.output()?;
            Ok(output
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned))
        })
        .await
    }

    /// Waits until it accepts connections there.
    pub async fn wait_for_port(&mut self, address: SocketAddr, within: Duration) -> Result<()> {
        self.wait_until(&format!("{address} to listen"), within, async |_| {
            Ok(tokio::net::TcpStream::connect(address)
                .await
                .is_ok()
                .then_some(()))
        })
        .await
    }

    /// Asks `probe` until it has an answer; an error at once when the process ends before.
    pub async fn wait_until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut probe: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let outcome = until(within, async || {
            if let Some(answer) = probe(self).await.map_err(|_| ())? {
                return Ok(Some(answer));
            }
            // A process that has ended answers no more: stop waiting.
            if self.ended().ok().flatten().is_some() {
                Ok(None)
            } else {
                Err(())
            }
        })
        .await;
        match outcome {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => bail!("{} ended before {what}: {}", self.name, self.last_words()),
            Err(_) => {
                bail!(
                    "{}: waited {within:?} for {what}: {}",
                    self.name,
                    self.last_words()
                )
            }
        }
    }

    fn last_words(&self) -> String {
        let output = self.output().unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        let tail = lines.len().saturating_sub(12);
        format!(
            "see {}, which ends with\n{}",
            self.log.display(),
            lines[tail..].join("\n")
        )
    }

    fn has_ended(&mut self, status: ExitStatus) {
        self.ended = Some(status);
        if let Ok(warden) = Warden::get() {
            warden.release(self.child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
