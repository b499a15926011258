//! Commands on pages are run by a test, or a person has said here why not.
//!
//! A block of commands is marked `sh` if a test runs it, and `sh not-run` if none does.

use std::path::Path;

use super::{pages, read, root};

/// Pages with commands that are run, all of them, and by whom: `make e2e` follows those that need
/// pods, `cargo test` the others.
const PLAYED: [(&str, &str); 8] = [
    ("docs/attestation.md", "tests/documentation/played.rs"),
    ("docs/failure-modes.md", "tests/documentation/played.rs"),
    ("docs/operations.md", "tests/documentation/played.rs"),
    (
        "docs/quickstart.md",
        "tests/support/src/e2e/scenarios/quickstart.rs",
    ),
    (
        "examples/geo/README.md",
        "tests/support/src/e2e/scenarios/four.rs",
    ),
    (
        "examples/multi-tenancy/README.md",
        "tests/support/src/e2e/scenarios/four.rs",
    ),
    (
        "examples/quarantine/README.md",
        "tests/support/src/e2e/scenarios/four.rs",
    ),
    (
        "examples/solution-change/README.md",
        "tests/support/src/e2e/scenarios/four.rs",
    ),
];

/// Blocks that no test runs as they stand, by their first line, and why.
const NOT_RUN: [(&str, &str, &str); 21] = [
    (
        "CONTRIBUTING.md",
        "make            # lists the targets",
        "it is how tests are run",
    ),
    (
        "CONTRIBUTING.md",
        "make cluster-up",
        "tests use the program behind it: cluster exec",
    ),
    (
        "CONTRIBUTING.md",
        "cargo run -p rehome-testing --bin cluster -- exec cargo test --workspace",
        "it is how tests are run",
    ),
    (
        "README.md",
        "make demo     #",
        "it is how tests are run; the demo is a test itself",
    ),
    (
        "README.md",
        "helm install rehome",
        "needs a load balancer; make e2e installs the chart as docs/quickstart.md says",
    ),
    (
        "charts/rehome/README.md",
        "helm install rehome",
        "needs a load balancer; make e2e installs the chart as docs/quickstart.md says",
    ),
    (
        "docs/hub.md",
        "rehome hub --host-name",
        "files of the reader's; every test with a hub starts it with such flags",
    ),
    (
        "docs/hub.md",
        "rehome hub migrate",
        "a file and a database of the reader's; tests/hub/migration.rs runs it with such flags",
    ),
    (
        "docs/operations.md",
        "kubectl -n rehome-system patch configmap rehome-log",
        "needs pods that mount it; tests/telemetry/logs.rs changes the file that they see",
    ),
    (
        "docs/operations.md",
        "kubectl -n plant create configmap iothub-west-log",
        "needs a hub's pod that mounts it; tests/hub changes the file that it sees",
    ),
    (
        "docs/kubectl-rehome.md",
        "cargo install",
        "builds for minutes what tests/plugin runs",
    ),
    (
        "docs/kubectl-rehome.md",
        "kubectl rehome device-key",
        "a file of the reader's; tests/plugin/scenes.rs plays both",
    ),
    (
        "docs/kubectl-rehome.md",
        "kubectl rehome logs",
        "follows pods without end; tests/plugin plays it",
    ),
    (
        "docs/kubectl-rehome.md",
        "source <(kubectl rehome completion bash)",
        "for an interactive shell; tests/plugin/completion.rs plays it",
    ),
    (
        "docs/operations.md",
        "helm install rehome",
        "needs a load balancer; make e2e installs the chart as docs/quickstart.md says",
    ),
    (
        "docs/operations.md",
        "kubectl patch pvc",
        "needs a storage class whose volumes grow",
    ),
    (
        "docs/operations.md",
        "kubectl annotate namespace plant",
        "after a restore; the scenario backup of make e2e does it",
    ),
    (
        "docs/operations.md",
        "helm upgrade rehome",
        "the scenario upgrade of make e2e does it, with another image",
    ),
    (
        "docs/operations.md",
        "helm uninstall rehome",
        "the scenario reinstall of make e2e does it",
    ),
    (
        "docs/quickstart.md",
        "kind create cluster",
        "needs Docker; make e2e brings the same images to a node of its own",
    ),
    (
        "examples/README.md",
        "helm install rehome",
        "needs Docker and a load balancer; make e2e installs the chart and makes that image itself",
    ),
];

/// What a line of commands begins with.
const PROGRAMS: [&str; 10] = [
    "cargo",
    "docker",
    "examples/",
    "helm",
    "kind",
    "kubectl",
    "make",
    "openssl",
    "rehome",
    "source",
];

#[test]
fn commands_are_run_or_it_is_said_why_not() {
    let mut excused = [false; NOT_RUN.len()];
    for (file, page) in pages(root()) {
        for block in &page.blocks {
            let first = block.text.lines().next().unwrap_or_default();
            let place = format!("{}:{} ({first})", file.display(), block.line);
            match &*block.info {
                "sh" => assert!(
                    PLAYED.iter().any(|(page, _)| Path::new(page) == file),
                    "{place}: what runs this?"
                ),
                "sh not-run" => {
                    let reason = NOT_RUN.iter().position(|(page, begin, _)| {
                        Path::new(page) == file && first.starts_with(begin)
                    });
                    excused[reason.unwrap_or_else(|| panic!("{place}: why is it not run?"))] = true;
                }
                // Transcripts show a prompt, and what they show is from runs of tests.
                _ => assert!(
                    !PROGRAMS.iter().any(|program| first.starts_with(program)),
                    "{place}: commands are marked sh, or sh not-run"
                ),
            }
        }
    }
    let stale = NOT_RUN.iter().zip(excused).filter(|(_, seen)| !seen);
    let stale: Vec<_> = stale.map(|(entry, _)| entry).collect();
    assert!(stale.is_empty(), "no such block: {stale:?}");
}

#[test]
fn whoever_is_said_to_run_a_page_reads_it() {
    for (page, who) in PLAYED {
        assert!(
            read(who).contains(&format!("\"{page}\"")),
            "{who} does not read {page}"
        );
    }
}
