//! Official SDKs, fetched from their public registries by package name, once per machine.
//!
//! What is fetched is pinned, with hashes, by files of this repository; what is there already is
//! known by the content of those files. It lives outside the checkout.

mod java;
mod node;
mod python;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub use java::{Java, java};
pub use node::node;
pub use python::python;

use crate::tools;

/// A directory for what `install` puts there, known by the content of `files`. `install` runs if it
/// has not been there before, or if `is_whole` says that it does not serve any more.
fn ensure(
    kind: &str,
    files: &[PathBuf],
    is_whole: impl Fn(&Path) -> bool,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = tools::cache()?;
    let directory = cache.join(format!("{kind}-{}", tools::hash_of_files(files, "")?));
    let complete = directory.join("complete");
    let lock = File::create(cache.join(format!("{kind}.lock")))?;
    lock.lock()?;
    if complete.is_file() && is_whole(&directory) {
        return Ok(directory);
    }
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    install(&directory)?;
    File::create(complete)?;
    Ok(directory)
}

fn run(command: &mut Command, advice: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| advice.to_owned())?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{advice}\n{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
