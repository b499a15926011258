//! What a run could leave on a machine, looked at before and after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// Kernel settings of the whole machine that kubelet or this harness change where they can.
const KERNEL: [&str; 5] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
];
/// Where Kubernetes, containerd and network plugins would put their files.
const FILES: [&str; 9] = [
    "/run/netns",
    "/run/containerd",
    "/run/runc",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/opt/cni",
];

/// One line for each thing.
pub(super) struct Census(BTreeSet<String>);

impl Census {
    /// Looks at mounts, addresses, routes, packet filters, kernel settings and files of the whole
    /// machine, and at processes and control groups of the run with that name: others come and go.
    pub(super) fn take(run: &str) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut see = |what: &str, lines: &str| {
            seen.extend(lines.lines().map(|line| format!("{what}: {}", line.trim())));
        };
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        see("mount", &mounts);
        see("link", &printed("ip", &["-oneline", "-brief", "link"])?);
        see("route", &printed("ip", &["route", "show", "table", "all"])?);
        see("rule", &printed("ip", &["rule"])?);
        see(
            "packet filter",
            &printed("iptables-save", &["--table", "nat"])?,
        );
        see(
            "packet filter",
            &printed("iptables-save", &["--table", "filter"])?,
        );
        for setting in KERNEL {
            let value = std::fs::read_to_string(Path::new("/proc/sys").join(setting))?;
            see(setting, &value);
        }
        for file in FILES {
            for entry in std::fs::read_dir(file).into_iter().flatten().flatten() {
                see("file", &entry.path().display().to_string());
            }
        }
        see(
            "control group",
            &printed("find", &["/sys/fs/cgroup", "-type", "d", "-name", run])?,
        );
        for process in processes(run)? {
            see("process", &process);
        }
        // Comments of iptables-save hold the time.
        seen.retain(|line| !line.starts_with("packet filter: #"));
        Ok(Self(seen))
    }

    /// What was not there before.
    pub(super) fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Processes that belong to the run: by their control group, or because they know its directory. Not
/// this one, nor its warden.
fn processes(run: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let read = |file: &str| {
            let bytes = std::fs::read(path.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let own = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy() == std::process::id().to_string());
        let warden = command.contains("rehome-warden");
        if own || warden || !path.join("cgroup").exists() {
            continue;
        }
        if [read("cgroup"), read("environ"), command.clone()]
            .iter()
            .any(|text| text.contains(run))
        {
            found.push(format!("{} {command}", path.display()));
        }
    }
    Ok(found)
}

fn printed(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
