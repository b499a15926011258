//! `CustomResourceDefinitions` of projects that the chart makes objects for. They come with those
//! projects' Go modules.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest;
use serde_json::Value;

use super::{cache, go};

/// A file of a module, and what it must be.
struct Foreign {
    module: &'static str,
    file: &'static str,
    sha256: &'static str,
}

/// What these modules' `go` lines ask for.
const GO: &str = "go 1.26\n";

const FOREIGN: [Foreign; 4] = [
    Foreign {
        module: "sigs.k8s.io/gateway-api@v1.5.0",
        file: "config/crd/standard/gateway.networking.k8s.io_tlsroutes.yaml",
        sha256: "32e2f858418df10f30d7fd919c810138de12734ceca4f83e4e061d9f309a7423",
    },
    Foreign {
        module: "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        file: "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        sha256: "8ce88c52c51209993511cae093089c9525f5552def88119e3f559123ee9d454b",
    },
    Foreign {
        module: "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        file: "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        sha256: "98fd16c9ab79fba8dcd6ef62c957c98cd6546ab74ce0a4ecf09ddf2fda03020e",
    },
    Foreign {
        module: "github.com/cert-manager/cert-manager@v1.21.2",
        file: "deploy/crds/cert-manager.io_certificates.yaml",
        sha256: "7ad91029c00ec959d54215b19d3b1a9b7e0247eaa60f987151c2b70d8661f8af",
    },
];

/// `TLSRoute`, `PodMonitor`, `PrometheusRule` and `Certificate` in YAML, fetched if need be.
pub fn foreign_crds() -> Result<Vec<String>> {
    FOREIGN.iter().map(Foreign::read).collect()
}

impl Foreign {
    fn read(&self) -> Result<String> {
        let kept = cache()?.join(format!("crd-{}.yaml", self.sha256));
        if !kept.is_file() {
            let text = std::fs::read(self.folder()?.join(self.file))?;
            let found = sha256(&text);
            ensure!(
                found == self.sha256,
                "{} of {} has the SHA-256 {found}",
                self.file,
                self.module
            );
            // Whole or not at all: others may read meanwhile.
            let partial = kept.with_extension(format!("{}.partial", std::process::id()));
            std::fs::write(&partial, &text)?;
            std::fs::rename(&partial, &kept)?;
        }
        Ok(std::fs::read_to_string(kept)?)
    }

    fn folder(&self) -> Result<PathBuf> {
        let output = Command::new(go::toolchain(GO, &cache()?)?)
            .args(["mod", "download", "-json", self.module])
            .current_dir(std::env::temp_dir())
            .output()
            .context("cannot run go")?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let folder = answer["Dir"].as_str();
        let folder = folder.with_context(|| format!("{}: {}", self.module, answer["Error"]))?;
        Ok(folder.into())
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
