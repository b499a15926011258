//! Node packages from npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{ensure, run};

/// The `node_modules` that a `package.json` and its `package-lock.json` in `folder` describe.
pub fn node(folder: &Path) -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json"].map(|name| folder.join(name));
    let directory = ensure(
        "node",
        &files,
        |_| true,
        |directory| {
            eprintln!("getting Node packages from npm");
            for file in &files {
                let name = file.file_name().unwrap_or_default();
                std::fs::copy(file, directory.join(name))?;
            }
            let mut npm = Command::new("npm");
            npm.current_dir(directory)
                .args(["ci", "--omit=optional", "--ignore-scripts"])
                .args(["--no-fund", "--no-audit", "--loglevel=error"]);
            run(
                &mut npm,
                "Node with npm is needed, and npm's registry (Debian: apt-get install npm)",
            )
        },
    )?;
    Ok(directory.join("node_modules"))
}
