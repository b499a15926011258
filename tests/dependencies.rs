//! Holds what `deny.toml` asks of the dependencies where a program for it is not installed: one
//! cryptography provider, and one version of the crates whose types cross our interfaces.

#![cfg(test)]

use std::process::Command;

/// What `cargo tree` prints for the product, without the network.
fn cargo_tree(arguments: &[&str]) -> (bool, String) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--offline",
            "--package",
            "rehome",
            "--edges",
            "normal",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    let said = text(&output.stderr);
    // A crate that the lock file does not have at all is an error of another kind.
    let unknown = said.contains("did not match any packages");
    assert!(
        output.status.success() || unknown,
        "cargo tree {arguments:?}: {said}"
    );
    (unknown, printed)
}

#[test]
fn aws_lc_rs_is_the_only_cryptography_provider() {
    for banned in ["ring", "openssl-sys", "native-tls"] {
        let (_, users) = cargo_tree(&["--invert", banned]);
        assert!(
            users.is_empty(),
            "{banned} is in the program, by way of\n{users}"
        );
    }
    // The check sees what is there.
    let (unknown, users) = cargo_tree(&["--invert", "aws-lc-rs"]);
    assert!(!unknown && users.contains("rustls"), "{users}");
}

#[test]
fn the_crates_at_our_interfaces_exist_once() {
    let (_, all) = cargo_tree(&["--prefix", "none", "--format", "{p}"]);
    for name in ["kube", "k8s-openapi", "rustls", "http", "hyper", "tokio"] {
        let mut versions: Vec<&str> = all
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(" v"))
            .map(|rest| rest.split(' ').next().unwrap_or(rest))
            .collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 1, "{name} {versions:?}");
    }
}
