//! `cluster kubectl` and `cluster helm`: this process becomes the program.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::detached::Place;
use crate::cluster::{CLUSTER_VARIABLE, uses_existing_cluster};
use crate::tools;

pub(super) fn kubectl(arguments: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(tools::kube()?);
    command.arg("kubectl");
    if !point_at_cluster(&mut command)? {
        bail!("no control plane is up: start one with make cluster-up");
    }
    become_it(command.args(arguments))
}

pub(super) fn helm(arguments: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(tools::helm()?);
    // Much of Helm needs no cluster, and what does says so.
    point_at_cluster(&mut command)?;
    become_it(command.args(arguments))
}

/// Sets KUBECONFIG as the tests would; false if there is no cluster.
fn point_at_cluster(command: &mut Command) -> Result<bool> {
    if uses_existing_cluster() {
        return Ok(true);
    }
    if let Some(directory) = std::env::var_os(CLUSTER_VARIABLE) {
        let directory = std::path::PathBuf::from(directory);
        command.env("KUBECONFIG", directory.join("admin.kubeconfig"));
        return Ok(true);
    }
    let place = Place::find()?;
    command.env("KUBECONFIG", place.kubeconfig());
    place.is_up()
}

fn become_it(command: &mut Command) -> Result<ExitCode> {
    Err(command.exec()).with_context(|| format!("cannot run {}", command.get_program().display()))
}
