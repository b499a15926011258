//! The programs that run devices and back ends with each SDK.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;

use crate::packages;

/// Where the programs are, with what pins the SDKs.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance")
}

/// Everything that is fetched, fetched.
pub struct Programs {
    python: PathBuf,
    node: PathBuf,
    node_legacy: PathBuf,
    java: packages::Java,
    java_legacy: packages::Java,
}

impl Programs {
    /// Fetches and compiles what is not there yet.
    pub fn ready() -> Result<Self> {
        let folder = folder().canonicalize()?;
        let shared = ["Certificate", "Lines", "SimulatedTpm", "Trust"]
            .map(|class| folder.join(format!("java-shared/{class}.java")));
        Ok(Self {
            python: packages::python(&folder.join("python/requirements.txt"))?,
            node: packages::node(&folder.join("node"))?,
            node_legacy: packages::node(&folder.join("node-legacy"))?,
            java: packages::java(&folder.join("java"), &shared)?,
            java_legacy: packages::java(&folder.join("java-legacy"), &shared)?,
        })
    }

    /// The program whose devices have this SDK and trust this authority.
    pub fn devices(&self, sdk: &str, authority: &Path) -> Result<Command> {
        let script = |name: &str| folder().join(name);
        Ok(match sdk {
            "python" => {
                let mut command = Command::new(&self.python);
                command.arg(script("python/device.py")).arg(authority);
                command
            }
            "node" => node(&self.node, &script("node/device.js"), authority),
            "node-legacy" => {
                let mut command = node(&self.node_legacy, &script("node/device.js"), authority);
                command.arg("legacy");
                command
            }
            "java" => java(&self.java, "Device", authority),
            "java-legacy" => java(&self.java_legacy, "LegacyDevice", authority),
            other => return Err(unknown(other)),
        })
    }

    /// The program that is a back end with this SDK.
    pub fn back_end(&self, sdk: &str, authority: &Path) -> Result<Command> {
        let script = |name: &str| folder().join(name);
        Ok(match sdk {
            "python" => {
                let mut command = Command::new(&self.python);
                command
                    .arg(script("python/service.py"))
                    .env("REQUESTS_CA_BUNDLE", authority);
                command
            }
            "node" => node(&self.node, &script("node/service.js"), authority),
            other => return Err(unknown(other)),
        })
    }
}

fn unknown(sdk: &str) -> anyhow::Error {
    anyhow::anyhow!("no program is known for {sdk}, which expected.yaml names")
}

fn node(modules: &Path, script: &Path, authority: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .arg(script)
        .env("NODE_PATH", modules)
        .env("NODE_EXTRA_CA_CERTS", authority);
    command
}

fn java(program: &packages::Java, class: &str, authority: &Path) -> Command {
    let mut command = Command::new("java");
    command
        // Many short-lived threads; two processors serve everything here.
        .args([
            "-Xshare:auto",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ])
        .args(["-cp", &program.class_path, class])
        .arg(authority);
    command
}
