//! Names of servers that only one run knows: a hosts file in a mount namespace of its own.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::warden::scratch;

const HOSTS: &str = "/etc/hosts";

/// The hosts file of a program that runs in namespaces of its own.
pub(crate) struct Hosts(PathBuf);

impl Hosts {
    /// Puts a file over that of the machine, for this mount namespace.
    pub(crate) fn begin_with(lines: &str) -> Result<Self> {
        let hosts = scratch("hosts")?.join("hosts");
        std::fs::write(&hosts, lines)?;
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(&hosts).arg(HOSTS);
        let output = mount.stdin(Stdio::null()).output();
        let output = output.context("cannot run mount")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "a hosts file of the run's own cannot be mounted: {}",
            said.trim()
        );
        Ok(Self(hosts))
    }

    /// The lines of the machine's.
    pub(crate) fn of_the_machine() -> Result<String> {
        std::fs::read_to_string(HOSTS).with_context(|| format!("cannot read {HOSTS}"))
    }

    /// Gives a server a name.
    pub(crate) fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.0)?;
        writeln!(file, "{address} {name}")?;
        Ok(())
    }
}
