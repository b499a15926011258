//! The list of what the program is made of, in SPDX 2.3.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::source::Source;

/// What `cargo metadata` says, as far as it matters here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// None for what is not from a registry.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// "build" or "dev"; none for what is linked in.
    kind: Option<String>,
}

/// Describes the crates that are linked into `package` for `target`, what the compiler adds, and
/// the certificate authorities in the image.
pub(crate) fn spdx(
    repository: &Path,
    package: &str,
    target: &str,
    source: &Source,
) -> Result<Value> {
    let metadata = metadata(repository, target)?;
    let root = metadata.packages.iter().find(|one| one.name == package);
    let root = root.with_context(|| format!("the workspace has no package {package}"))?;
    let linked = linked(&metadata, &root.id);
    let mut packages = Vec::new();
    for one in metadata
        .packages
        .iter()
        .filter(|one| linked.contains(&*one.id))
    {
        packages.push(describe(one));
    }
    packages.extend(added(&metadata)?);
    packages.sort_by_key(|one| one["SPDXID"].to_string());
    let root = reference(&root.name, &root.version);
    let others = packages
        .iter()
        .map(|one| &one["SPDXID"])
        .filter(|id| **id != root);
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": root,
    })];
    relationships.extend(others.map(|id| {
        json!({ "spdxElementId": root, "relationshipType": "CONTAINS", "relatedSpdxElement": id })
    }));
    let name = format!("{package}-{}", source.version);
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("{}/spdx/{name}-{}-{target}", source.url, source.revision),
        "creationInfo": {
            "created": source.created,
            "creators": [format!("Tool: {package} make image")],
        },
        "packages": packages,
        "relationships": relationships,
    }))
}

fn metadata(repository: &Path, target: &str) -> Result<Metadata> {
    let printed = run(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(repository)
            .args(["metadata", "--locked", "--format-version=1"])
            .args(["--filter-platform", target]),
    )?;
    serde_json::from_str(&printed).context("what cargo metadata printed")
}

/// The ids of a package and of all that is linked into it; not what only builds or tests it.
fn linked<'a>(metadata: &'a Metadata, root: &'a str) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (&*node.id, node))
        .collect();
    let (mut found, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        let links = |one: &&Dependency| one.dep_kinds.iter().any(|kind| kind.kind.is_none());
        let node = nodes.get(id).into_iter();
        open.extend(
            node.flat_map(|node| &node.deps)
                .filter(links)
                .map(|one| &*one.pkg),
        );
    }
    found
}

fn describe(package: &Package) -> Value {
    let (name, version) = (&package.name, &package.version);
    // Old manifests separate alternatives by a slash.
    let license = package
        .license
        .as_deref()
        .map(|text| text.replace('/', " OR "));
    let mut described = json!({
        "SPDXID": reference(name, version),
        "name": name,
        "versionInfo": version,
        "licenseDeclared": license.as_deref().unwrap_or("NOASSERTION"),
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
    });
    if package.source.is_some() {
        described["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{version}"),
        }]);
    }
    described
}

/// What no manifest names: the standard library, the C library, the certificate authorities.
fn added(metadata: &Metadata) -> Result<Vec<Value>> {
    let part = |name: &str, version: &str, license: &str| {
        describe(&Package {
            id: String::new(),
            name: name.into(),
            version: version.into(),
            license: Some(license.into()),
            source: None,
        })
    };
    let word = |text: String| {
        text.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    let rust = word(run(Command::new("rustc").arg("--version"))?);
    let glibc = word(run(Command::new("getconf").arg("GNU_LIBC_VERSION"))?);
    let roots = metadata
        .packages
        .iter()
        .find(|one| one.name == "webpki-root-certs");
    let roots = roots.context("no certificate authorities in Cargo.lock")?;
    Ok(vec![
        part("rust-std", &rust, "MIT OR Apache-2.0"),
        part("glibc", &glibc, "LGPL-2.1-or-later"),
        describe(roots),
    ])
}

fn reference(name: &str, version: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    format!("SPDXRef-{name}-{version}")
        .chars()
        .map(allowed)
        .collect()
}

fn run(command: &mut Command) -> Result<String> {
    let shown = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_in_is_listed_and_what_only_tests_is_not() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let source = Source {
            version: "1.2.3".into(),
            revision: "abc".into(),
            created: "2026-05-04T03:02:01Z".into(),
            url: "https://example.com/rehome".into(),
        };
        let target = "x86_64-unknown-linux-gnu";
        let document = spdx(&repository, "rehome", target, &source).unwrap();
        assert_eq!(
            document,
            spdx(&repository, "rehome", target, &source).unwrap()
        );
        let packages = document["packages"].as_array().unwrap();
        let has = |name: &str| packages.iter().any(|one| one["name"] == name);
        for name in [
            "rehome",
            "rustls",
            "aws-lc-sys",
            "glibc",
            "webpki-root-certs",
        ] {
            assert!(has(name), "{name}");
        }
        for name in ["proptest", "rehome-testing", "windows-sys", "cc"] {
            assert!(!has(name), "{name}");
        }
        let ids: BTreeSet<_> = packages
            .iter()
            .map(|one| one["SPDXID"].to_string())
            .collect();
        assert_eq!(ids.len(), packages.len());
        assert_eq!(
            document["relationships"].as_array().unwrap().len(),
            packages.len()
        );
    }
}
