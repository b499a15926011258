//! Python packages from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{ensure, run};

/// A Python interpreter with exactly the packages that a `requirements.txt` names.
pub fn python(requirements: &Path) -> Result<PathBuf> {
    let interpreter = |environment: &Path| environment.join("bin/python");
    let environment = ensure(
        "venv",
        &[requirements.to_owned()],
        // An upgrade of the system's Python may have taken the interpreter away.
        |environment| interpreter(environment).exists(),
        |environment| {
            eprintln!("getting Python packages from PyPI");
            run(
                Command::new("python3")
                    .args(["-m", "venv"])
                    .arg(environment),
                "python3 with venv is needed (Debian: apt-get install python3-venv)",
            )?;
            let mut pip = Command::new(interpreter(environment));
            pip.args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check", "--requirement"])
                .arg(requirements);
            run(&mut pip, "is PyPI reachable?")
        },
    )?;
    Ok(interpreter(&environment))
}
