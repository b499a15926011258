//! A machine of a run's own, made of namespaces: network, mounts and processes. What a node does to a
//! machine it does to this one, and it is gone with the last process in it.
//!
//! Two things of the real machine cannot be had apart: control groups, which have a name of their own
//! and are removed by whoever is outside, and kernel settings that kubelet insists on, for which it is
//! shown files.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::census::Census;
use crate::control_plane::PodNetwork;
use crate::namespaces;
use crate::private_network::PrivateNetwork;
use crate::warden::{Warden, scratch};

/// The machine's end of the line to the outside, and the other.
const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
const PODS: &str = "10.201.0.0/24";
const OUTSIDE_NAMESPACE: &str = "/run/netns/outside";

/// Folders into which containerd, kubelet, network plugins and iptables write whatever they are told.
const FOLDERS: [&str; 3] = ["/run", "/var/log", "/var/lib"];
/// What kubelet sets.
const KERNEL: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The machine, for the program that runs on it.
pub struct Machine {
    network: PrivateNetwork,
    cgroup: String,
}

impl Machine {
    /// Runs this program again, with the same arguments, on a machine of its own, waits for its end
    /// and sees that nothing is left of it. Gives `None` to the program that runs on it already.
    pub fn enter() -> Result<Option<ExitStatus>> {
        if namespaces::are_entered() {
            return Ok(None);
        }
        ensure!(
            rustix::process::geteuid().is_root(),
            "a node with pods needs root: it mounts, and makes control groups"
        );
        let warden = Warden::get()?;
        let cgroup = cgroup(warden.directory())?;
        let before = Census::take(&cgroup)?;
        warden.remove_control_groups(&cgroup);
        for controller in controllers()? {
            std::fs::create_dir_all(controller.join(&cgroup)).with_context(|| {
                format!("cannot make a control group in {}", controller.display())
            })?;
        }
        let status = PrivateNetwork::enter();
        remove_control_groups(&cgroup)?;
        let left = Census::take(&cgroup)?.beyond(&before);
        ensure!(
            left.is_empty(),
            "the run has left on this machine:\n{}",
            left.join("\n")
        );
        status
    }

    /// Makes the machine usable.
    pub fn set_up() -> Result<Self> {
        let directory = scratch("machine")?;
        let parent = directory.parent().and_then(Path::parent);
        let cgroup = cgroup(parent.context("the scratch directory is in that of the run")?)?;
        for folder in FOLDERS {
            run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", folder]))?;
        }
        for setting in KERNEL {
            let (file, shown) = (
                Path::new("/proc/sys").join(setting),
                directory.join(setting.replace('/', ".")),
            );
            std::fs::write(&shown, std::fs::read(&file)?)?;
            run(Command::new("mount").arg("--bind").arg(shown).arg(file))?;
        }
        let machine = Self {
            network: PrivateNetwork::set_up()?,
            cgroup,
        };
        lay_line()?;
        Ok(machine)
    }

    /// Gives a server a name, for whoever is no pod.
    pub fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        self.network.name(name, address)
    }

    /// A command that runs `program` outside, where the machine is reached by its addresses only.
    pub fn outside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={OUTSIDE_NAMESPACE}"))
            .arg(program);
        command
    }

    pub(super) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub(crate) fn pod_network(&self) -> PodNetwork {
        PodNetwork {
            machine: MACHINE,
            pods: PODS,
        }
    }
}

/// The outside, and a line between it and the machine.
fn lay_line() -> Result<()> {
    let (machine, outside) = (MACHINE.to_string(), OUTSIDE.to_string());
    for arguments in [
        "netns add outside".to_owned(),
        "link add machine type veth peer name outside netns outside".into(),
        format!("address add {machine}/24 dev machine"),
        "link set machine up".into(),
        // Addresses of load balancers are nowhere: packets to them only have to set out.
        format!("route add default via {outside}"),
        "-n outside link set lo up".into(),
        format!("-n outside address add {outside}/24 dev outside"),
        "-n outside link set outside up".into(),
        format!("-n outside route add default via {machine}"),
    ] {
        run(Command::new("ip").args(arguments.split(' ')))?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("packets cannot be forwarded")
}

/// The name of the run's control groups: that of its directory, which nobody else has.
fn cgroup(directory: &Path) -> Result<String> {
    let name = directory.file_name().and_then(|name| name.to_str());
    let name = name.context("the run's directory has a name")?;
    ensure!(
        name.starts_with("rehome-"),
        "the run's directory is called {name}"
    );
    Ok(name.to_owned())
}

/// The roots of the control groups: one, or with version 1 one for each controller.
fn controllers() -> Result<Vec<std::path::PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        // Some are links to others.
        if path.join("cgroup.procs").exists() && !path.is_symlink() {
            found.push(path);
        }
    }
    ensure!(
        !found.is_empty(),
        "there are no control groups in {}",
        root.display()
    );
    Ok(found)
}

fn remove_control_groups(name: &str) -> Result<()> {
    for controller in controllers()? {
        remove_group(&controller.join(name))?;
    }
    Ok(())
}

fn remove_group(group: &Path) -> Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
        .with_context(|| format!("cannot remove the control group {}", group.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}", said.trim());
    }
    Ok(())
}
