//! Java libraries from Maven Central, and the programs that use them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest;

use super::run;

const ADVICE: &str = "a JDK and Maven are needed, and Maven Central \
                      (Debian: apt-get install default-jdk-headless maven)";

/// Compiled sources with their libraries.
pub struct Java {
    /// What `java -cp` is given.
    pub class_path: String,
}

/// Fetches what the `pom.xml` in `folder` names, checks it against the hashes in `SHA256SUMS`, and
/// compiles the sources there and those of `shared`.
pub fn java(folder: &Path, shared: &[PathBuf]) -> Result<Java> {
    let pins = ["pom.xml", "SHA256SUMS"].map(|name| folder.join(name));
    let libraries = super::ensure(
        "maven",
        &pins,
        |_| true,
        |directory| {
            eprintln!("getting Java libraries from Maven Central");
            let mut maven = Command::new("mvn");
            maven
                .current_dir(folder)
                .args(["--quiet", "--batch-mode", "dependency:copy-dependencies"])
                .arg(format!("-DoutputDirectory={}", directory.display()));
            run(&mut maven, ADVICE)?;
            check(directory, &pins[1])
        },
    )?;
    let mut sources = shared.to_vec();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "java")
        {
            sources.push(path);
        }
    }
    sources.sort();
    let inputs = [&sources[..], &pins[..]].concat();
    let libraries = format!("{}/*", libraries.display());
    let classes = super::ensure(
        "classes",
        &inputs,
        |_| true,
        |directory| {
            let mut javac = Command::new("javac");
            javac.args(["-cp", &libraries, "-d"]).arg(directory);
            run(javac.args(&sources), ADVICE)
        },
    )?;
    Ok(Java {
        class_path: format!("{}:{libraries}", classes.display()),
    })
}

/// Maven has no lock file: the libraries must be these files and no others.
fn check(directory: &Path, sums: &Path) -> Result<()> {
    let expected: BTreeSet<String> = std::fs::read_to_string(sums)?
        .lines()
        .map(str::to_owned)
        .collect();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let hash = digest::digest(&digest::SHA256, &std::fs::read(&path)?);
        let mut line = String::new();
        for byte in hash.as_ref() {
            write!(line, "{byte:02x}")?;
        }
        write!(line, "  {}", name.display())?;
        found.insert(line);
    }
    ensure!(
        found == expected,
        "Maven brought other files than {} lists; brought only: {:?}; listed only: {:?}",
        sums.display(),
        found.difference(&expected).collect::<Vec<_>>(),
        expected.difference(&found).collect::<Vec<_>>()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_listed_or_is_another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let libraries = folder.path().join("lib");
        std::fs::create_dir(&libraries).unwrap();
        std::fs::write(libraries.join("a.jar"), "").unwrap();
        let sums = folder.path().join("SHA256SUMS");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        std::fs::write(&sums, format!("{empty}  a.jar\n")).unwrap();
        check(&libraries, &sums).unwrap();
        std::fs::write(libraries.join("b.jar"), "").unwrap();
        let error = check(&libraries, &sums).unwrap_err().to_string();
        assert!(error.contains("b.jar"), "{error}");
        std::fs::remove_file(libraries.join("b.jar")).unwrap();
        std::fs::write(libraries.join("a.jar"), "changed").unwrap();
        assert!(check(&libraries, &sums).is_err());
    }
}
