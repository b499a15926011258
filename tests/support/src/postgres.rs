//! A real PostgreSQL of a test's own, from Debian's packages or whatever is on the PATH. It asks for a
//! password, and has a certificate.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};

use crate::certificates::Authority;
use crate::network::{free_port, loopback};
use crate::process::{Process, Signal};
use crate::small_disk::SmallDisk;
use crate::wait::expect;
use crate::warden::{Warden, scratch};

/// Longest time to start.
const START: Duration = Duration::from_mins(1);
/// It refuses to run as root; Debian's package makes this user.
const USER: &str = "postgres";
/// Of the user that tests connect as. Whatever a test can read must not have it.
const PASSWORD: &str = "told-to-nobody";

/// A server with an empty database, which dies with this, and with the process at the latest.
pub struct Postgres {
    programs: PathBuf,
    directory: PathBuf,
    data: PathBuf,
    /// What comes before its commands.
    enter: Vec<OsString>,
    port: u16,
    process: Option<Process>,
}

impl Postgres {
    /// Makes a server and waits until it answers.
    pub async fn start() -> Result<Self> {
        let directory = own_directory()?;
        let data = directory.join("data");
        Self::start_with(directory, data, Vec::new()).await
    }

    /// As [`Self::start`], with its data on that disk, which has to have some 60 MiB.
    pub async fn start_on(disk: &SmallDisk) -> Result<Self> {
        let folder = disk.seen().join("postgres");
        std::fs::create_dir(&folder)?;
        let mut enter = disk.enter();
        if is_root() {
            chown(&folder, Some(id("-u")?), Some(id("-g")?))?;
        } else {
            // It refuses to run as root of the namespace, too.
            enter.extend(["unshare", "--user", "--map-user=1000"].map(OsString::from));
        }
        let data = disk.path().join("postgres").join("data");
        Self::start_with(own_directory()?, data, enter).await
    }

    async fn start_with(directory: PathBuf, data: PathBuf, enter: Vec<OsString>) -> Result<Self> {
        let mut server = Self {
            programs: programs()?,
            port: free_port(loopback(1))?,
            process: None,
            directory,
            data,
            enter,
        };
        server.write("password", PASSWORD)?;
        let authority = Authority::new("Test Database Root")?;
        let issued = authority.issue(&[loopback(1).to_string()])?;
        server.write("ca.crt", &authority.cert_pem())?;
        server.write("tls.crt", &issued.cert_pem)?;
        server.write("tls.key", &issued.key_pem)?;
        let mut command = server.command("initdb");
        command.args([
            "--auth=scram-sha-256",
            "--username=rehome",
            "--encoding=UTF8",
        ]);
        command.arg("--pwfile").arg(server.file("password"));
        command.arg("--pgdata").arg(&server.data);
        let made = command.output().context("cannot run initdb")?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
        }
        server.restart().await?;
        Ok(server)
    }

    /// What a client connects with, which verifies the server.
    pub fn url(&self) -> String {
        format!(
            "{}&sslrootcert={}",
            self.url_with_public_roots(),
            self.file("ca.crt").display()
        )
    }

    /// As [`Self::url`], for a client that does not trust the server's certificate.
    pub fn url_with_public_roots(&self) -> String {
        let (address, port) = (loopback(1), self.port);
        format!("postgres://rehome:{PASSWORD}@{address}:{port}/postgres?sslmode=verify-full")
    }

    /// What only those may know who are told [`Self::url`].
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Has every process of it stand still, as one on a machine that is overwhelmed, until
    /// [`Self::resume`].
    pub async fn pause(&mut self) -> Result<()> {
        for child in self.stop_first().await? {
            kill_process(child, Signal::STOP)?;
        }
        Ok(())
    }

    /// Ends what [`Self::pause`] began.
    pub fn resume(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("PostgreSQL does not run")?;
        for child in children(process.pid())? {
            kill_process(child, Signal::CONT)?;
        }
        process.signal(Signal::CONT)
    }

    /// Ends every process of it at once, as a power failure does, and waits until they are gone: a
    /// server that is started while some are left refuses the data.
    pub async fn kill(&mut self) -> Result<()> {
        let has_ended = |process: &mut Process| process.ended().map(|ended| ended.is_some());
        if self.process.as_mut().map_or(Ok(true), has_ended)? {
            self.process = None;
            return Ok(());
        }
        let children = self.stop_first().await?;
        // While their parent stands still, none of their ids becomes that of another process.
        for child in &children {
            kill_process(*child, Signal::KILL)?;
        }
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        let all_are_gone = async || children.iter().copied().all(is_gone).then_some(());
        expect(
            "the end of every process of PostgreSQL",
            START,
            all_are_gone,
        )
        .await;
        Ok(())
    }

    /// Stops the first process, so that it makes no more of them; those that it has made.
    async fn stop_first(&mut self) -> Result<Vec<Pid>> {
        let process = self.process.as_mut().context("PostgreSQL does not run")?;
        process.signal(Signal::STOP)?;
        let id = process.pid();
        // A signal is sent at once, and acts when it does.
        let stands = async || state(id).is_none_or(|state| state == 'T').then_some(());
        expect("a PostgreSQL that stands still", START, stands).await;
        children(id)
    }

    /// Starts it over the data of the one before, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(&self.directory);
        let address = (loopback(1), self.port).into();
        command.args(["-c", &format!("listen_addresses={}", loopback(1))]);
        command.args(["-c", "ssl=on"]);
        for (setting, file) in [("ssl_cert_file", "tls.crt"), ("ssl_key_file", "tls.key")] {
            command.args(["-c", &format!("{setting}={}", self.file(file).display())]);
        }
        let log = self.directory.with_extension("log");
        let mut process = Process::spawn_command("postgres", command, &log)?;
        process.wait_for_port(address, START).await?;
        process
            .wait_for_line("database system is ready to accept connections", START)
            .await?;
        self.process = Some(process);
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file that only its user reads.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.file(name);
        std::fs::write(&file, text)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        if is_root() {
            chown(&file, Some(id("-u")?), Some(id("-g")?))?;
        }
        Ok(())
    }

    /// One of its programs, as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let mut words = self.enter.clone();
        if is_root() {
            let words_of_user = [
                "setpriv",
                "--reuid",
                USER,
                "--regid",
                USER,
                "--clear-groups",
            ];
            words.extend(words_of_user.map(OsString::from));
        }
        words.push(self.programs.join(program).into());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).current_dir(&self.directory);
        command
    }
}

/// A directory that its user owns and reaches.
fn own_directory() -> Result<PathBuf> {
    let directory = scratch("postgres")?;
    if is_root() {
        // What is above may be passed, not read.
        for above in [Warden::get()?.directory(), &directory] {
            std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o711))?;
        }
        chown(&directory, Some(id("-u")?), Some(id("-g")?))?;
    }
    Ok(directory)
}

/// Where its programs are: Debian keeps them off the PATH.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<_> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|programs| programs.join("initdb").is_file())
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).filter(|bin| bin.join("initdb").is_file()));
    found.into_iter().next().context(
        "PostgreSQL is not installed: tests/prepare does it on Debian; elsewhere put initdb and \
         postgres on the PATH",
    )
}

/// The processes that this one has started and not seen the end of.
fn children(parent: u32) -> Result<Vec<Pid>> {
    let list = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(&list).with_context(|| format!("cannot read {list}"))?;
    let ids = text.split_whitespace();
    ids.map(|id| Pid::from_raw(id.parse()?).context("process ids are positive"))
        .collect()
}

/// Whether it has ended, though nobody may have asked how yet.
fn is_gone(process: Pid) -> bool {
    let id = process.as_raw_nonzero().get().unsigned_abs();
    state(id).is_none_or(|state| state == 'Z')
}

/// The letter of a process that is there.
fn state(process: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Its name may have anything in it.
    let (_, behind_name) = text.rsplit_once(") ")?;
    behind_name.chars().next()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn id(which: &str) -> Result<u32> {
    let output = Command::new("id")
        .args([which, USER])
        .output()
        .context("cannot run id")?;
    let text = String::from_utf8(output.stdout)?;
    let number = text.trim().parse();
    number.with_context(|| format!("there is no user {USER}, which Debian's package makes"))
}
