//! Which source an image is made of.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where the project is at home.
const URL: &str = "https://github.com/rehome-dev/rehome";

pub(crate) struct Source {
    pub(crate) version: String,
    /// The commit; with `-dirty` if the checkout has changes that are not in it.
    pub(crate) revision: String,
    /// When it was committed, in RFC 3339.
    pub(crate) created: String,
    pub(crate) url: String,
}

impl Source {
    /// That of a checkout.
    pub(crate) fn of(repository: &Path) -> Result<Self> {
        let mut revision = git(repository, &["rev-parse", "HEAD"])?;
        if !git(repository, &["status", "--porcelain"])?.is_empty() {
            revision += "-dirty";
        }
        let format = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            revision,
            created: git(repository, &["log", "-1", "--format=%cd", format])?,
            url: URL.into(),
        })
    }
}

fn git(repository: &Path, arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(repository)
        .args(arguments)
        .env("TZ", "UTC");
    let output = git
        .output()
        .context("git is needed: an image says which commit it is made of")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("git {}: {}", arguments.join(" "), said.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
