//! kubectl, as the person in the story uses it: each command is shown with what it prints.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rehome_testing::until;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
}

impl Kubectl {
    /// Runs it and shows both the command and its output.
    pub(crate) async fn show(&self, arguments: &[&str]) -> Result<()> {
        let shown: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
        println!("\n  $ kubectl {}", shown.join(" "));
        for line in self.run(arguments).await?.lines() {
            println!("    {line}");
        }
        Ok(())
    }

    /// Runs it and gives what it prints.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {} failed: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies a manifest and shows the command.
    pub(crate) async fn apply(&self, file: &Path) -> Result<()> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        println!("\n  $ kubectl apply -f {name}");
        let output = self
            .run(&["apply", "-f", &file.display().to_string()])
            .await?;
        for line in output.lines() {
            println!("    {line}");
        }
        Ok(())
    }

    /// Waits until the controller has seen an object as it is now.
    pub(crate) async fn wait_until_seen(&self, kind: &str, name: &str) -> Result<()> {
        let path = "jsonpath={.metadata.generation} {.status.observedGeneration}";
        let seen = until(PATIENCE, async || {
            let text = self.run(&["get", kind, name, "-o", path]).await?;
            let (wanted, seen) = text.split_once(' ').unwrap_or_default();
            ensure!(wanted == seen, "generation {wanted}, observed {seen:?}");
            anyhow::Ok(())
        });
        let seen = seen.await;
        seen.map_err(|error| error.unwrap_or_else(|| anyhow::anyhow!("no answer")))
            .with_context(|| format!("the controller has not taken note of {kind}/{name}"))
    }

    /// Waits until a field has that value.
    pub(crate) async fn wait_for(&self, object: &str, path: &str, value: &str) -> Result<()> {
        let condition = format!("--for=jsonpath={path}={value}");
        let arguments = ["wait", &condition, object, "--timeout=60s"];
        self.run(&arguments).await.map(drop)
    }

    async fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command
            .arg("kubectl")
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig);
        command.output().await.context("cannot run kubectl")
    }
}

fn quoted(argument: &str) -> String {
    if argument.contains(['{', ' ', '"']) {
        return format!("'{argument}'");
    }
    argument.to_owned()
}
