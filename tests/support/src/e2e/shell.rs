//! Commands as a person types them, with kubectl and Helm at hand.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use rehome_testing::{scratch, tools};
use tokio::process::Command;

use crate::checkout;

#[derive(Clone)]
pub(crate) struct Shell {
    programs: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    pub(crate) fn new(kubeconfig: PathBuf) -> Result<Self> {
        let programs = scratch("programs")?;
        symlink(tools::helm()?, programs.join("helm"))?;
        let kubectl = format!(
            "#!/bin/sh\nexec '{}' kubectl \"$@\"\n",
            tools::kube()?.display()
        );
        let file = programs.join("kubectl");
        std::fs::write(&file, kubectl)?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self {
            programs,
            kubeconfig,
        })
    }

    /// Runs lines of a shell, which end at the first error, and gives what they print.
    pub(crate) async fn run(&self, lines: &str) -> Result<String> {
        self.run_with(lines, &[]).await
    }

    /// As [`Self::run`], with more in the environment.
    pub(crate) async fn run_with(
        &self,
        lines: &str,
        environment: &[(&str, &str)],
    ) -> Result<String> {
        let output = self
            .command(lines)
            .envs(environment.iter().copied())
            .output()
            .await;
        let output = output.context("cannot run bash")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "these commands failed ({}):\n{lines}\n{printed}{said}",
                output.status
            );
        }
        Ok(printed)
    }

    fn command(&self, lines: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(checkout())
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.programs)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}
