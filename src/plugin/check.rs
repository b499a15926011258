//! `kubectl rehome check`: what has to be true for devices to register and move, looked at one by
//! one.
//!
//! What a person may not look at is skipped and said to be; that is no failure of the installation.

mod certificates;
mod objects;
mod secrets;
mod server;

use std::collections::BTreeMap;

use kube::Client;
use serde::Serialize;

use super::finding::Standing;
use super::screen::{Cell, Screen, count};
use super::{Failure, Outcome, fleet};
use crate::api::v1alpha1::{Enrollment, IoTHub};
use crate::clock::Clock;

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// It is as it must be.
    Passed,
    /// It will not stay so, or is not as it should be.
    Warning,
    /// It is not as it must be.
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    /// What.
    pub(super) what: String,
    /// How it ended.
    pub(super) verdict: Verdict,
    /// What was found, and what to do about it.
    pub(super) found: String,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Check by check.
    pub(super) checks: Vec<Check>,
    /// How many ended how.
    pub(super) counts: BTreeMap<&'static str, usize>,
}

/// Where to look.
pub(super) struct Scope<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    /// Namespace of the operator's own objects.
    pub(super) operator: &'a str,
    pub(super) clock: &'a dyn Clock,
}

impl Check {
    fn passed(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Passed, what, found)
    }

    fn warning(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, what, found)
    }

    fn failed(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Failed, what, found)
    }

    fn skipped(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, what, found)
    }

    fn new(verdict: Verdict, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict,
            found: found.into(),
        }
    }
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        let mut counts = BTreeMap::new();
        for check in &checks {
            *counts.entry(check.verdict.word()).or_default() += 1;
        }
        Self { checks, counts }
    }

    /// As a person reads it.
    pub(super) fn text(&self) -> String {
        let mut screen = Screen::default();
        let row = |check: &Check| {
            let verdict = Cell::verdict(check.verdict.word(), check.verdict.standing());
            vec![verdict, Cell::plain(&check.what), Cell::plain(&check.found)]
        };
        let rows: Vec<_> = self.checks.iter().map(row).collect();
        screen.table(&["RESULT", "CHECK", "FOUND"], &rows);
        let counts = self
            .counts
            .iter()
            .map(|(word, number)| format!("{number} {word}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        screen.line(format!("\n{}: {counts}", count(self.checks.len(), "check")));
        screen.into_text()
    }

    fn outcome(&self) -> Outcome {
        if self
            .checks
            .iter()
            .any(|check| check.verdict == Verdict::Failed)
        {
            Outcome::Trouble
        } else {
            Outcome::Fine
        }
    }
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }

    const fn standing(self) -> Standing {
        match self {
            Self::Passed => Standing::Fine,
            Self::Warning => Standing::Working,
            Self::Failed => Standing::Stuck,
            Self::Skipped => Standing::Disabled,
        }
    }
}

/// Looks at everything.
pub(super) async fn check(scope: &Scope<'_>) -> Result<(Report, Outcome), Failure> {
    let mut checks = server::look(scope).await;
    let kinds = server::kinds(scope).await;
    let are_there = kinds.iter().all(|check| check.verdict != Verdict::Failed);
    checks.extend(kinds);
    checks.extend(server::rights(scope).await);
    if are_there {
        let namespace = Some(scope.namespace);
        let hubs = fleet::all::<IoTHub>(scope.client, namespace).await;
        let enrollments = fleet::all::<Enrollment>(scope.client, namespace).await;
        match hubs.and_then(|hubs| Ok((hubs, enrollments?))) {
            Ok((hubs, enrollments)) => {
                let now = scope.clock.now();
                checks.extend(objects::look(&hubs, &enrollments, now));
                checks.extend(secrets::look(scope, &hubs, &enrollments).await);
                checks.extend(certificates::of_enrollments(&enrollments, now));
                checks.extend(certificates::of_hubs(&hubs, now));
            }
            Err(failure) => checks.push(Check::skipped("hubs and Enrollments", failure.whole())),
        }
    }
    checks.extend(certificates::of_gateway(scope).await);
    let report = Report::new(checks);
    let outcome = report.outcome();
    Ok((report, outcome))
}
