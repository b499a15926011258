//! Commands as a person types them, with kubectl and Helm at hand.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use kube::config::Kubeconfig;
use tokio::process::Command;

use crate::tools;
use crate::warden::scratch;

/// A person's shell.
#[derive(Clone)]
pub struct Shell {
    programs: PathBuf,
    kubeconfig: PathBuf,
    directory: PathBuf,
}

impl Shell {
    /// A shell at the root of the checkout, whose kubectl and Helm use that kubeconfig.
    pub fn new(kubeconfig: PathBuf) -> Result<Self> {
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
            directory: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        })
    }

    /// The same in another directory, where kubectl means that namespace when it is told none.
    pub fn at(&self, directory: &Path, namespace: &str) -> Result<Self> {
        let mut config = Kubeconfig::read_from(&self.kubeconfig)?;
        let current = config.current_context.clone();
        let context = config
            .contexts
            .iter_mut()
            .find(|context| Some(&context.name) == current.as_ref())
            .and_then(|named| named.context.as_mut());
        context
            .context("the kubeconfig's current context is missing")?
            .namespace = Some(namespace.to_owned());
        let kubeconfig = directory.join("kubeconfig");
        std::fs::write(&kubeconfig, serde_json::to_vec(&config)?)?;
        Ok(Self {
            programs: self.programs.clone(),
            kubeconfig,
            directory: directory.to_owned(),
        })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs lines of a shell, which end at the first error, and gives what they print.
    pub async fn run(&self, lines: &str) -> Result<String> {
        self.run_with(lines, &[]).await
    }

    /// As [`Self::run`], with more in the environment.
    pub async fn run_with(&self, lines: &str, environment: &[(&str, &str)]) -> Result<String> {
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
            .current_dir(&self.directory)
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.programs)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}
