//! `docs/failure-modes.md` names every reason and every alert.

use std::collections::BTreeSet;

use rehome::api::v1alpha1::Reason;
use serde_json::Value;

use super::{read, root};

/// What stands in backquotes in the first cell of a row.
fn entries(document: &str) -> Vec<String> {
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let first = rows.filter_map(|line| line.split('|').nth(1));
    let words = first.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    words.map(str::to_owned).collect()
}

#[test]
fn every_reason_and_every_alert_has_one_entry_among_the_failure_modes() {
    let entries = entries(&read("docs/failure-modes.md"));
    let known: BTreeSet<_> = entries.iter().cloned().collect();
    assert_eq!(known.len(), entries.len(), "an entry twice: {entries:?}");
    let alerts: Value = serde_saphyr::from_str(&read("charts/rehome/files/alerts.yaml")).unwrap();
    let alerts = alerts["groups"][0]["rules"].as_array().unwrap();
    let alerts = alerts.iter().map(|rule| rule["alert"].as_str().unwrap());
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let needed: BTreeSet<_> = reasons.chain(alerts).map(str::to_owned).collect();
    let missing: Vec<_> = needed.difference(&known).collect();
    assert!(missing.is_empty(), "without an entry: {missing:?}");
    let stale: Vec<_> = known.difference(&needed).collect();
    assert!(stale.is_empty(), "of what does not exist: {stale:?}");
}

/// A reason that nothing gives is a promise that nothing keeps.
#[test]
fn every_reason_is_given_somewhere() {
    let mut text = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // The plugin knows what to do for every reason, and gives none.
            if path.ends_with("src/plugin") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("conditions.rs") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let unused: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !text.contains(&format!("Reason::{reason}")))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}
