//! A network of one run's own: every port and every host name is free in it, and nothing outside is
//! touched.
//!
//! Device SDKs know only the ports 443, 8883 and 5671, and a server's name is part of what they
//! check. So a program runs itself again in namespaces of its own (network, mounts, processes),
//! with a hosts file of its own. When it ends, however it ends, everything in there ends with it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::warden::{Warden, scratch};

const HOSTS: &str = "/etc/hosts";
/// What the program is told when it runs inside.
const INSIDE: &str = "REHOME_PRIVATE_NETWORK";

/// The network, for the program that runs in it.
pub struct PrivateNetwork {
    hosts: PathBuf,
}

impl PrivateNetwork {
    /// Runs this program again, with the same arguments, in a network of its own, and waits for its
    /// end. Gives `None` to the program that runs inside already.
    pub fn enter() -> Result<Option<ExitStatus>> {
        if Self::is_entered() {
            return Ok(None);
        }
        let flags = flags()?;
        let warden = Warden::get()?;
        let program = std::env::current_exe().context("where am I?")?;
        let mut child = Command::new("unshare")
            .args(flags)
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "yes")
            // Its files go with the directory of this process.
            .env("TMPDIR", warden.directory())
            .spawn()
            .context("cannot run unshare")?;
        warden.watch(child.id());
        let status = child.wait()?;
        warden.release(child.id());
        if !status.success() {
            warden.keep();
            let kept = warden.directory().display();
            eprintln!("the logs of every process are kept in {kept}");
        }
        Ok(Some(status))
    }

    /// Whether this program runs inside already.
    pub(crate) fn is_entered() -> bool {
        std::env::var_os(INSIDE).is_some()
    }

    /// Makes the network usable: its loopback device is up and its hosts file can be written.
    pub fn set_up() -> Result<Self> {
        let hosts = scratch("network")?.join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost\n::1 localhost\n")?;
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        run(Command::new("mount").arg("--bind").arg(&hosts).arg(HOSTS))?;
        Ok(Self { hosts })
    }

    /// Gives a server a name that only this network knows.
    pub fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.hosts)?;
        writeln!(file, "{address} {name}")?;
        Ok(())
    }
}

/// How `unshare` is told to make the namespaces: as root directly, else in a user namespace, where
/// this user is root of what is in there and of nothing else.
fn flags() -> Result<Vec<&'static str>> {
    let namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child"];
    let as_user = ["--user", "--map-root-user"];
    // Some containers do not let a new /proc be mounted; only those who look at processes need it.
    let proc = ["--mount-proc"];
    for flags in [
        [&namespaces[..], &proc].concat(),
        [&as_user[..], &namespaces, &proc].concat(),
        namespaces.to_vec(),
        [&as_user[..], &namespaces].concat(),
    ] {
        let tried = Command::new("unshare")
            .args(&flags)
            .arg("true")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if tried.is_ok_and(|status| status.success()) {
            return Ok(flags);
        }
    }
    bail!(
        "a network of its own is needed, for the ports 443, 8883 and 5671: run as root, or allow \
         unprivileged user namespaces (util-linux's unshare must be installed)"
    )
}

fn run(command: &mut Command) -> Result<()> {
    let shown = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed in the private network: {}", said.trim());
    }
    Ok(())
}
