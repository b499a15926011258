//! What each set of values changes: a file holds what the defaults render, and one for each other set
//! how that differs. A change of the templates shows in all of them.

use std::path::{Path, PathBuf};

use rehome_testing::chart::render_text;
use similar::TextDiff;

use crate::values::variants;

const UPDATE: &str = "UPDATE_SNAPSHOTS";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/chart/snapshots/{name}"))
}

#[tokio::test]
async fn the_templates_render_what_the_snapshots_hold() {
    let mut defaults = String::new();
    let mut expected_files = Vec::new();
    for variant in variants() {
        let text = render_text(&variant.values, variant.needs).await;
        let text = stable(&text.unwrap_or_else(|error| panic!("{}: {error:#}", variant.name)));
        let (name, shown) = if variant.name == "defaults" {
            defaults.clone_from(&text);
            ("defaults.yaml".to_owned(), text)
        } else {
            let diff = TextDiff::from_lines(&defaults, &text);
            let mut diff = diff.unified_diff();
            (
                format!("{}.diff", variant.name),
                diff.context_radius(3).to_string(),
            )
        };
        let file = file(&name);
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&file, &shown).unwrap();
        }
        let held = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            shown, held,
            "{name} differs: see whether that is meant, and run this test with {UPDATE}=1"
        );
        expected_files.push(name);
    }
    expected_files.sort();
    let mut files: Vec<_> = std::fs::read_dir(file(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files, expected_files,
        "a snapshot that no set of values has"
    );
}

/// Without CRDs, which have a test of their own, and without keys, which are new each time.
fn stable(text: &str) -> String {
    let documents = text.split_inclusive("\n---\n");
    let kept = documents.filter(|it| !it.starts_with("# Source: rehome/templates/crds.yaml"));
    let hide = |line: &str| {
        let secret = ["  ca.crt: ", "  tls.crt: ", "  tls.key: "];
        let found = secret.iter().find(|key| line.starts_with(**key));
        found.map_or_else(|| line.to_owned(), |key| format!("{key}…"))
    };
    let lines = kept
        .flat_map(str::lines)
        .map(|line| hide(line.trim_end()) + "\n");
    lines.collect()
}
