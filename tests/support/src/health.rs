//! How tools that deploy judge objects: Argo CD and Flux by the checks in `packaging`, kstatus by what it
//! knows of every kind.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools;

/// What is thought of one object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Judgement {
    pub argocd: Health,
    /// `Current`, `InProgress` or `Failed`.
    pub flux: String,
    /// As `flux`, or `Terminating`.
    pub kstatus: String,
}

/// What Argo CD shows of an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Health {
    /// `Healthy`, `Progressing` or `Degraded`.
    pub status: String,
    pub message: String,
}

impl Judgement {
    /// Whether all of them wait for nothing more.
    pub fn is_well(&self) -> bool {
        (&*self.argocd.status, &*self.flux, &*self.kstatus) == ("Healthy", "Current", "Current")
    }
}

/// Has every object judged, which must be of a kind of Rehome.
pub fn judge(objects: &[Value]) -> Result<Vec<Judgement>> {
    let question = json!({
        "argocd": packaged("argocd/argocd-cm.yaml")?["data"],
        "flux": packaged("flux/kustomization.yaml")?["spec"]["healthCheckExprs"],
        "objects": objects,
    });
    let mut judge = Command::new(tools::health()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = judge.stdin.take().context("a pipe")?;
    // It reads all before it says anything.
    input.write_all(question.to_string().as_bytes())?;
    drop(input);
    let output = judge.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "objects cannot be judged: {said}");
    serde_json::from_slice(&output.stdout).context("what was said of the objects")
}

/// A file of `packaging`.
fn packaged(file: &str) -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let path = path.join(file);
    let text = std::fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))
}
