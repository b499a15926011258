//! A transcript of `status` and `explain` for every reason and every state, kept in `transcripts`.
//!
//! `WRITE_TRANSCRIPTS=1 cargo test --test plugin` writes them anew; read what changed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use rehome::api::v1alpha1::Reason;
use rehome::plugin::explain::Explanation;
use rehome::plugin::outlook::World;
use rehome::plugin::status::Survey;
use serde_json::json;

use super::case::Case;
use super::objects::{DEVICE, NAMESPACE, now};
use super::reasons::cases;
use super::states::states;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plugin/transcripts")
}

/// What a person would see who typed both commands.
fn transcript(case: &Case) -> String {
    let objects = &case.objects;
    let mut survey = Survey::new(Some(NAMESPACE), now());
    objects.typed_hubs().iter().for_each(|hub| survey.hub(hub));
    objects
        .typed_enrollments()
        .iter()
        .for_each(|one| survey.enrollment(one));
    objects
        .typed_registrations()
        .iter()
        .for_each(|one| survey.registration(one));
    let overview = survey.finish();
    let world = World::new(&objects.typed_hubs(), objects.typed_enrollments());
    let registration = objects.typed_registrations().remove(0);
    let explanation = Explanation::new(&registration, &world, &[], now());
    let mut text = String::new();
    for (command, output) in [
        ("status".to_owned(), overview.text()),
        (format!("explain {DEVICE}"), explanation.text()),
    ] {
        let output = anstream::adapter::strip_str(&output).to_string();
        writeln!(text, "$ kubectl rehome {command} -n {NAMESPACE}\n{output}").unwrap();
    }
    text
}

/// The object, the cause and the next command are there.
fn assert_helpful(what: &str, case: &Case, text: &str) {
    let (kind, name) = case.object.split_once('/').unwrap();
    assert!(
        text.contains(name),
        "{what}: {} is not named:\n{text}",
        case.object
    );
    assert!(
        text.contains(&case.cause),
        "{what}: the cause is missing:\n{text}"
    );
    let next: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Next: "))
        .collect();
    assert_eq!(next.len(), 2, "{what}: {text}");
    for next in next {
        assert!(next.starts_with("kubectl "), "{what}: {next}");
        assert!(
            !next.contains("  ") && !next.contains(" -n -"),
            "{what}: {next} lacks a name"
        );
    }
    assert!(
        !text.contains("SECRET"),
        "{what}: no Secret is known:\n{text}"
    );
    let stuck = text.contains("\nStuck\n");
    assert_eq!(stuck, case.stuck, "{what}: stuck or not:\n{text}");
    if stuck {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(case.object));
        assert!(
            line.is_some(),
            "{what}: not {kind}/{name} is stuck:\n{text}"
        );
        assert!(
            text.contains(&format!("    cause: {}", case.cause)),
            "{what}:\n{text}"
        );
    }
}

fn compare(name: &str, text: &str) -> Result<(), String> {
    let file = directory().join(format!("{name}.txt"));
    if std::env::var_os("WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let kept = std::fs::read_to_string(&file)
        .map_err(|error| format!("{name} has no transcript ({error}); write one"))?;
    if kept == text {
        Ok(())
    } else {
        Err(format!(
            "the transcript of {name} is another; kept:\n{kept}\nnow:\n{text}"
        ))
    }
}

fn all() -> Vec<(String, Vec<Case>)> {
    let reasons = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str().to_owned(), cases(*reason)));
    let states = states()
        .into_iter()
        .map(|(name, case)| (name.to_owned(), vec![case]));
    reasons.chain(states).collect()
}

#[test]
fn every_reason_and_state_has_a_transcript_that_helps() {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (name, cases) in all() {
        let mut text = String::new();
        for case in &cases {
            let one = transcript(case);
            assert_helpful(&name, case, &one);
            writeln!(text, "### {}\n\n{one}", case.object).unwrap();
        }
        if let Some(reason) = Reason::parse(&name) {
            assert!(
                text.contains(reason.as_str()),
                "{name} is not told:\n{text}"
            );
        }
        problems.extend(compare(&name, &text).err());
        names.insert(format!("{name}.txt"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let kept = std::fs::read_dir(directory()).unwrap();
    let kept: BTreeSet<_> = kept
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(kept, names, "transcripts of nothing");
}

#[test]
fn a_transcript_that_is_gone_or_another_is_noticed() {
    if std::env::var_os("WRITE_TRANSCRIPTS").is_some() {
        return;
    }
    assert!(
        compare("NoSuchReason", "")
            .unwrap_err()
            .contains("has no transcript")
    );
    assert!(
        compare("Settled", "something else")
            .unwrap_err()
            .contains("is another")
    );
}

#[test]
fn a_thousand_stuck_devices_fit_on_the_screen() {
    let mut case = cases(Reason::HubUnreachable).remove(1);
    let one = case.objects.registrations.remove(0);
    let mut survey = Survey::new(Some(NAMESPACE), now());
    for number in 0..1000 {
        let mut one = one.clone();
        one["metadata"]["name"] = json!(format!("press-{number}"));
        one["metadata"]["uid"] = json!(format!("uid-{number}"));
        case.objects.registrations = vec![one];
        case.objects
            .typed_registrations()
            .iter()
            .for_each(|it| survey.registration(it));
    }
    let text = survey.finish().text();
    assert!(text.contains("devreg/press-0 and 999 more"), "{text}");
    assert!(text.lines().count() < 24, "{text}");
}
