//! The table of values in the chart's README is what `values.yaml` says, comments included.

use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- values -->\n";
const END: &str = "<!-- end of values -->\n";

fn chart(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("charts/rehome")
        .join(file)
}

/// One row for each value that is not a group of others.
fn table(values: &str) -> String {
    let mut rows = "| value | default | |\n|---|---|---|\n".to_owned();
    let mut path: Vec<(usize, &str)> = Vec::new();
    // What the comment above a group says stands at its first value.
    let mut comment = String::new();
    for line in values.lines().filter(|line| !line.trim().is_empty()) {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if let Some(words) = text.strip_prefix("# ") {
            comment = format!("{comment} {words}");
            continue;
        }
        if text.starts_with("- ") {
            continue;
        }
        let (key, value) = text.split_once(':').unwrap();
        path.retain(|(above, _)| *above < depth);
        path.push((depth, key));
        let is_list = matches!(key, "topologySpread");
        if value.is_empty() && !is_list {
            continue;
        }
        let names: Vec<_> = path.iter().map(|(_, key)| *key).collect();
        let default = if is_list {
            "zones and nodes"
        } else {
            value.trim()
        };
        let (name, words) = (names.join("."), comment.trim().replace('|', "\\|"));
        writeln!(rows, "| `{name}` | `{default}` | {words} |").unwrap();
        comment.clear();
    }
    rows
}

#[test]
fn the_readme_lists_every_value() {
    let values = std::fs::read_to_string(chart("values.yaml")).unwrap();
    let readme = std::fs::read_to_string(chart("README.md")).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table(&values));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(chart("README.md"), &wanted).unwrap();
    } else {
        assert_eq!(readme, wanted, "run this test with UPDATE_SNAPSHOTS=1");
    }
}
