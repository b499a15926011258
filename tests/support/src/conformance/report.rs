//! `docs/conformance.md`: the table for people, from what is expected and what was seen.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::expectation::{Expectation, Rule, Sdk, Unsupported, Variant};
use super::outcome::Cells;
use super::scenario::Scenario;
use super::services::Services;

const HEAD: &str = "# Conformance

What the official device SDKs do with Rehome, unmodified and as they are published. Written by \
`make conformance WRITE=1`, which installs them, runs them against a gateway, a controller, hubs and \
an API server, and compares with `tests/conformance/expected.yaml`. Do not edit.

A device proves itself with a *key* of its own (individual Enrollment) or with one that is derived \
from the key of its group (*group-key*); with a self-signed certificate of its own (*x509*: the \
Enrollment holds the certificate, or its thumbprint where the device speaks over WebSocket) or with one \
that an authority below the root of its group has issued (*x509-group*: the device presents both, and \
possession of the root's key is proven); with a TPM 2.0 (*tpm*: a software TPM, in which the SDK finds \
the endorsement key that the Enrollment names). At its hub, a device proves itself with the same and \
speaks MQTT, over WebSocket where it registers over WebSocket and its SDK can; a TPM signs its token \
there with the key that the registration brought.

";

/// Where the page is.
pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md")
}

/// The page.
pub(crate) fn page(expectation: &Expectation, cells: &Cells<'_>, services: &Services) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| scenario | |\n|---|---|\n");
    for scenario in Scenario::ALL {
        line(
            &mut page,
            &format!("| {} | {} |", scenario.title(), scenario.story()),
        );
    }
    page.push_str(
        "\n*Gives up*: the SDK reports a failure, and when the application registers once more it \
         succeeds. The Java SDKs miss an answer now and then when their JVM is cold or \
         starved; what is said of them holds within four tries.\n",
    );
    for sdk in &expectation.sdks {
        section(&mut page, sdk, cells);
    }
    page.push_str("\n## The service API of the self-hosted hub\n\n| SDK | works |\n|---|---|\n");
    for service in &expectation.services {
        let done = services.get(&service.name);
        let done = done.map(|served| served.done.join(", "));
        let title = &service.title;
        line(
            &mut page,
            &format!("| {title} | {} |", done.unwrap_or_default()),
        );
    }
    for service in &expectation.services {
        for unsupported in &service.unsupported {
            let name = &service.title;
            not_there(&mut page, &format!("Not in {name}"), unsupported);
        }
    }
    page
}

fn not_there(page: &mut String, place: &str, unsupported: &Unsupported) {
    let Unsupported { what, because, .. } = unsupported;
    line(page, &format!("\n{place}: {what} ({because})."));
}

fn section(page: &mut String, sdk: &Sdk, cells: &Cells<'_>) {
    let mut notes: Vec<&Rule> = Vec::new();
    line(page, &format!("\n## {}\n", sdk.title));
    line(page, &format!("api-version `{}`\n", sdk.api_version));
    let titles = Scenario::ALL.map(Scenario::title).join(" | ");
    line(page, &format!("| transport | attestation | {titles} |"));
    line(
        page,
        &format!("|{}", "---|".repeat(Scenario::ALL.len() + 2)),
    );
    for variant in sdk.variants() {
        let mut row = format!("| {} | {} |", variant.transport, variant.attestation);
        for scenario in Scenario::ALL {
            let _ = write!(
                row,
                " {} |",
                cell(sdk, variant, scenario, cells, &mut notes)
            );
        }
        line(page, &row);
    }
    if !notes.is_empty() {
        page.push('\n');
    }
    for (number, rule) in notes.iter().enumerate() {
        let says = rule.says.as_ref().map(|says| format!("reports `{says}`"));
        let parts: Vec<_> = says.into_iter().chain(rule.because.clone()).collect();
        line(page, &format!("{}. {}", number + 1, parts.join("; ")));
    }
    for unsupported in &sdk.unsupported {
        not_there(page, "Not in the SDK", unsupported);
    }
}

fn cell<'s>(
    sdk: &'s Sdk,
    variant: Variant<'_>,
    scenario: Scenario,
    cells: &Cells<'_>,
    notes: &mut Vec<&'s Rule>,
) -> String {
    let seen = cells.get(&(variant, scenario));
    let Some(Ok(seen)) = seen else {
        return "**failed**".to_owned();
    };
    let title = seen.outcome.title();
    let rule = sdk.rule(variant, scenario);
    let noted = rule.filter(|rule| rule.says.is_some() || rule.because.is_some());
    let Some(rule) = noted else {
        return title.to_owned();
    };
    let known = notes.iter().position(|note| *note == rule);
    let number = known.unwrap_or_else(|| {
        notes.push(rule);
        notes.len() - 1
    });
    format!("{title} ({})", number + 1)
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::outcome::as_expected;
    use super::super::services::Served;
    use super::*;

    #[test]
    fn the_committed_page_is_what_a_run_writes_in_which_all_is_as_expected() {
        let expectation = Expectation::read().unwrap();
        let served = |operations: &Vec<String>| Served {
            done: operations.clone(),
            error: None,
        };
        let services = expectation
            .services
            .iter()
            .map(|service| (service.name.clone(), served(&service.operations)))
            .collect();
        let expected = page(&expectation, &as_expected(&expectation), &services);
        let committed = std::fs::read_to_string(file()).unwrap();
        assert!(
            committed == expected,
            "docs/conformance.md is not up to date: run make conformance WRITE=1"
        );
    }
}
