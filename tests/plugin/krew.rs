//! The Krew manifest, made from archives. What is packed here is no program, which would be large:
//! what counts is what things are called.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const URL: &str = "https://downloads.example/v1";

fn script(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/krew");
    Command::new(script).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_manifest_is_of_this_version_and_names_what_is_in_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    let none = script(&["manifest", URL, "https://home.example", at]);
    assert!(
        !none.status.success(),
        "a manifest without an archive: {none:?}"
    );
    let built = Path::new(env!("CARGO_BIN_EXE_kubectl-rehome"));
    for arch in ["amd64", "arm64"] {
        let packed = directory.path().join(format!("built-for-{arch}"));
        std::fs::write(&packed, arch).unwrap();
        text(&script(&[
            "pack",
            packed.to_str().unwrap(),
            "linux",
            arch,
            at,
        ]));
    }
    let manifest = text(&script(&["manifest", URL, "https://home.example", at]));
    let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest["spec"]["version"], version);
    // Krew calls a plugin by the end of its program's name.
    assert_eq!(manifest["metadata"]["name"], "rehome");
    let short = manifest["spec"]["shortDescription"].as_str().unwrap();
    assert!(
        short.len() <= 50,
        "Krew's lists have room for 50 letters: {short}"
    );
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 2);
    for (platform, arch) in platforms.iter().zip(["amd64", "arm64"]) {
        assert_eq!(platform["selector"]["matchLabels"]["os"], "linux");
        assert_eq!(platform["selector"]["matchLabels"]["arch"], arch);
        let name = format!("kubectl-rehome_{version}_linux_{arch}.tar.gz");
        assert_eq!(platform["uri"], format!("{URL}/{name}"));
        let archive = directory.path().join(&name);
        let sum = Command::new("sha256sum").arg(&archive).output().unwrap();
        let digest = platform["sha256"].as_str().unwrap();
        assert!(text(&sum).starts_with(digest), "{digest}");
        let listed = Command::new("tar")
            .arg("tzf")
            .arg(&archive)
            .output()
            .unwrap();
        let listed = text(&listed);
        let bin = platform["bin"].as_str().unwrap();
        assert_eq!(built.file_name().unwrap(), bin);
        assert!(listed.lines().any(|file| file == bin), "{listed}");
        for file in platform["files"].as_array().unwrap() {
            let from = file["from"].as_str().unwrap();
            assert!(listed.lines().any(|file| file == from), "{from}: {listed}");
        }
    }
}
