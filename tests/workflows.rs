//! What GitHub Actions would be told: nothing here runs it, so what can be seen without it is seen.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rehome_testing::node::kind_image;
use rehome_testing::tools;
use serde_json::{Value, json};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Each workflow with its name.
fn workflows() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let files = std::fs::read_dir(folder).unwrap();
    let mut workflows = Vec::new();
    for file in files.map(|file| file.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        workflows.push((name, serde_saphyr::from_str(&text).unwrap()));
    }
    assert!(!workflows.is_empty());
    workflows
}

/// Each job with where it stands.
fn jobs() -> Vec<(String, Value)> {
    let mut jobs = Vec::new();
    for (file, workflow) in workflows() {
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            jobs.push((format!("{file}, {name}"), job.clone()));
        }
    }
    jobs
}

/// A field of all steps of a job that have it.
fn of_steps<'a>(job: &'a Value, field: &'a str) -> impl Iterator<Item = &'a str> {
    let steps = job["steps"].as_array().unwrap();
    steps.iter().filter_map(move |step| step[field].as_str())
}

/// Syntax, expressions, labels of runners, inputs of actions.
#[test]
fn actionlint_finds_nothing() {
    let mut actionlint = Command::new(tools::actionlint().unwrap());
    // Linters that only some machines have would judge differently on each.
    actionlint.args(["-shellcheck=", "-pyflakes=", "-no-color"]);
    let workflows = workflows().into_iter();
    actionlint.args(workflows.map(|(file, _)| format!(".github/workflows/{file}")));
    let output = actionlint.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_workflow_may_only_read_and_each_job_has_an_end() {
    for (file, workflow) in workflows() {
        assert_eq!(
            workflow["permissions"],
            json!({ "contents": "read" }),
            "{file}"
        );
    }
    for (place, job) in jobs() {
        assert!(job["timeout-minutes"].is_u64(), "{place}");
        assert!(
            job["permissions"].is_null(),
            "{place}: more than the workflow may"
        );
        let checkouts = job["steps"].as_array().unwrap().iter().filter(|step| {
            step["uses"]
                .as_str()
                .is_some_and(|action| action.starts_with("actions/checkout@"))
        });
        for checkout in checkouts {
            assert_eq!(checkout["with"]["persist-credentials"], false, "{place}");
        }
    }
}

#[test]
fn actions_are_pinned_by_commit() {
    for (place, job) in jobs() {
        for action in of_steps(&job, "uses") {
            let (_, commit) = action.split_once('@').unwrap();
            let is_commit =
                commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_commit, "{place}: {action}");
        }
    }
}

#[test]
fn what_is_made_and_run_is_there() {
    let makefile = read("Makefile");
    let is_target = |name: &str| {
        makefile
            .lines()
            .any(|line| line.starts_with(&format!("{name}:")))
    };
    let mut made = BTreeSet::new();
    for (place, job) in jobs() {
        for lines in of_steps(&job, "run") {
            let words: Vec<_> = lines.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "make") {
                assert!(is_target(pair[1]), "{place}: make {}", pair[1]);
                made.insert(pair[1].to_owned());
            }
            for file in words.iter().filter(|word| word.starts_with("tests/")) {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                assert!(path.is_file(), "{place}: {file}");
            }
        }
    }
    assert_eq!(made.into_iter().collect::<Vec<_>>(), ["e2e", "test"]);
}

/// Three, each with an image, and each allowed by the chart.
#[test]
fn kind_is_asked_for_three_minors_that_are_supported() {
    let chart: Value = serde_saphyr::from_str(&read("charts/rehome/Chart.yaml")).unwrap();
    let oldest = chart["kubeVersion"].as_str().unwrap();
    let oldest = oldest
        .strip_prefix(">=1.")
        .unwrap()
        .split('.')
        .next()
        .unwrap();
    let oldest: u32 = oldest.parse().unwrap();
    let mut minors = BTreeSet::new();
    for (_, job) in jobs() {
        for version in job["strategy"]["matrix"]["kubernetes"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let version = version.as_str().unwrap();
            kind_image(Some(version)).unwrap();
            let minor: u32 = version.strip_prefix("1.").unwrap().parse().unwrap();
            assert!(minor >= oldest, "{version}, and the chart wants 1.{oldest}");
            minors.insert(minor);
        }
    }
    assert_eq!(minors.len(), 3, "{minors:?}");
}
