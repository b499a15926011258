//! Programs that the tests build from Go modules: the Kubernetes components, Helm, kind, actionlint
//! and what judges the health of objects.
//!
//! A program lives outside the checkout, in the user's cache, under the hash of its module, so
//! that a clean clone starts in seconds and a change of the module is never missed.

mod build;
mod foreign_crds;
mod go;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::digest;

pub use foreign_crds::foreign_crds;

/// A program and the module in this repository that pins it.
struct Tool {
    /// The name of the program.
    name: &'static str,
    /// The folder of the module, below `tests`.
    module: &'static str,
    /// The package to build.
    package: &'static str,
    /// The required module whose version is the program's version.
    version_of: &'static str,
    /// What a person who waits for it is told.
    contents: &'static str,
    /// The linker's settings of version variables.
    variables: fn(version: &str) -> Vec<String>,
}

const KUBE: Tool = Tool {
    name: "kube",
    module: "cluster",
    package: ".",
    version_of: "k8s.io/kubernetes",
    contents: "etcd, the Kubernetes components and kubectl in one program",
    variables: |version| {
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        // Helm and version checks of clients read these from /version.
        [
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
        ]
        .map(|(name, value)| format!("k8s.io/component-base/version.{name}={value}"))
        .into()
    },
};

const HELM: Tool = Tool {
    name: "helm",
    module: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    version_of: "helm.sh/helm/v4",
    contents: "Helm",
    variables: |version| {
        vec![format!(
            "helm.sh/helm/v4/internal/version.version={version}"
        )]
    },
};

const KIND: Tool = Tool {
    name: "kind",
    module: "kind",
    package: "sigs.k8s.io/kind",
    version_of: "sigs.k8s.io/kind",
    contents: "kind",
    // It knows its version by itself.
    variables: |_| Vec::new(),
};

const ACTIONLINT: Tool = Tool {
    name: "actionlint",
    module: "actionlint",
    package: "github.com/rhysd/actionlint/cmd/actionlint",
    version_of: "github.com/rhysd/actionlint",
    contents: "a linter for workflows of GitHub Actions",
    variables: |version| {
        let version = version.trim_start_matches('v');
        vec![format!("github.com/rhysd/actionlint.version={version}")]
    },
};

const HEALTH: Tool = Tool {
    name: "health",
    module: "health",
    package: ".",
    version_of: "github.com/fluxcd/pkg/runtime",
    contents: "what Argo CD and Flux judge objects with",
    variables: |_| Vec::new(),
};

/// The program that is every Kubernetes component, named by its first argument; built if need be.
pub fn kube() -> Result<PathBuf> {
    build::ensure(&KUBE)
}

/// Helm; built if need be.
pub fn helm() -> Result<PathBuf> {
    build::ensure(&HELM)
}

/// The release of kind that is built.
#[cfg(test)]
pub(crate) fn kind_version() -> Result<String> {
    KIND.version()
}

/// kind; built if need be.
pub(crate) fn kind() -> Result<PathBuf> {
    build::ensure(&KIND)
}

/// The linter for workflows of GitHub Actions; built if need be.
pub fn actionlint() -> Result<PathBuf> {
    build::ensure(&ACTIONLINT)
}

/// Judges objects as Argo CD and Flux do; built if need be.
pub(crate) fn health() -> Result<PathBuf> {
    build::ensure(&HEALTH)
}

/// Where the harness keeps what outlives a checkout.
pub fn cache() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let caches = set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: set one, for the built programs")?;
    let cache = caches.join("rehome");
    std::fs::create_dir_all(&cache)
        .with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

impl Tool {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(self.module)
    }

    /// The version that its module pins.
    fn version(&self) -> Result<String> {
        let file = self.folder().join("go.mod");
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        required(&text, self.version_of).map(str::to_owned)
    }

    fn linker_flags(&self, version: &str) -> String {
        let variables = (self.variables)(version)
            .into_iter()
            .map(|set| format!(" -X {set}"));
        format!("-s -w{}", variables.collect::<String>())
    }
}

/// The version of a required module in the text of a `go.mod`.
fn required<'a>(go_mod: &'a str, module: &str) -> Result<&'a str> {
    go_mod
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("require ").split_once(' '))
        .find_map(|(name, rest)| (name == module).then(|| rest.split(' ').next()).flatten())
        .with_context(|| format!("go.mod does not require {module}"))
}

/// A short hash of a module's files, by name and content, and of how they are built.
fn content_hash(folder: &Path, flags: &str) -> Result<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.is_file());
    hash_of_files(&files, flags)
}

/// A short hash of files, by name and content, and of how they are used.
pub(crate) fn hash_of_files(files: &[PathBuf], flags: &str) -> Result<String> {
    let mut files = files.to_vec();
    files.sort();
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(flags.as_bytes());
    for file in &files {
        let content =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        hash.update(format!("\0{name}\0{}\0", content.len()).as_bytes());
        hash.update(&content);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hash.finish().as_ref()[..8]);
    Ok(format!("{:016x}", u64::from_be_bytes(short)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_modules() {
        for tool in [KUBE, HELM] {
            let version = tool.version().unwrap();
            assert!(version.starts_with('v'), "{}: {version}", tool.name);
            assert!(tool.linker_flags(&version).contains(&version));
        }
        assert!(required("module x\n", "example.com/y").is_err());
    }

    #[test]
    fn kubernetes_is_told_its_major_and_minor_version() {
        let flags = KUBE.linker_flags("v1.34.4");
        assert!(flags.contains("version.gitMajor=1 ") && flags.ends_with("version.gitMinor=34"));
    }

    #[test]
    fn the_hash_changes_with_a_name_a_content_and_a_flag() {
        let folder = tempfile::tempdir().unwrap();
        let hash = |flags| content_hash(folder.path(), flags).unwrap();
        std::fs::write(folder.path().join("a.go"), "package main").unwrap();
        let first = hash("");
        assert_eq!(first, hash(""));
        assert_ne!(first, hash("-s"));
        std::fs::write(folder.path().join("a.go"), "package mine").unwrap();
        let second = hash("");
        std::fs::rename(folder.path().join("a.go"), folder.path().join("b.go")).unwrap();
        assert_ne!(second, hash(""));
        assert_ne!(first, second);
    }
}
