//! A network of one run's own: every port and every host name is free in it, and nothing outside is
//! touched.
//!
//! Device SDKs know only the ports 443, 8883 and 5671, and a server's name is part of what they
//! check. So a program runs itself again in namespaces of its own (network, mounts, processes),
//! with a hosts file of its own.

use std::net::IpAddr;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::hosts::Hosts;
use crate::namespaces;

/// The network, for the program that runs in it.
pub struct PrivateNetwork {
    hosts: Hosts,
}

impl PrivateNetwork {
    /// Runs this program again, with the same arguments, in a network of its own, and waits for its
    /// end. Gives `None` to the program that runs inside already.
    pub fn enter() -> Result<Option<ExitStatus>> {
        if namespaces::are_entered() {
            return Ok(None);
        }
        namespaces::enter(&flags()?).map(Some)
    }

    /// Makes the network usable: its loopback device is up and its hosts file can be written.
    pub fn set_up() -> Result<Self> {
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        let hosts = Hosts::begin_with("127.0.0.1 localhost\n::1 localhost\n")?;
        Ok(Self { hosts })
    }

    /// Gives a server a name that only this network knows.
    pub fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        self.hosts.name(name, address)
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
