//! Every rule of `docs/device-api.md` has a test that is named after it.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::Path;

const RULES: u32 = 28;

/// Names of tests, by the number of their rule.
type Found = BTreeMap<u32, Vec<String>>;

fn look_through(directory: &Path, found: &mut Found) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look_through(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            for name in tests_of(&source) {
                if let Some(rule) = rule_of(name) {
                    found.entry(rule).or_default().push(name.to_owned());
                }
            }
        }
    }
}

/// Functions with a test attribute.
fn tests_of(source: &str) -> impl Iterator<Item = &str> {
    let mut lines = source.lines().map(str::trim);
    std::iter::from_fn(move || {
        loop {
            let attribute = lines.next()?;
            if attribute != "#[test]" && !attribute.starts_with("#[tokio::test") {
                continue;
            }
            let named = lines.by_ref().find(|line| line.contains("fn "))?;
            let (_, name) = named.split_once("fn ")?;
            return name.split('(').next();
        }
    })
}

/// `r07_…` is a test of rule 7.
fn rule_of(name: &str) -> Option<u32> {
    let (number, _) = name.strip_prefix('r')?.split_once('_')?;
    number.parse().ok().filter(|_| number.len() == 2)
}

#[test]
fn every_rule_has_a_test_of_its_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Found::new();
    for directory in ["src", "tests"] {
        look_through(&root.join(directory), &mut found);
    }
    let described = std::fs::read_to_string(root.join("docs/device-api.md")).unwrap();
    for rule in 1..=RULES {
        let tests = found.remove(&rule).unwrap_or_default();
        assert!(!tests.is_empty(), "R{rule} has no test");
        assert!(
            described.contains(&format!("| R{rule} |")),
            "R{rule} is not described"
        );
        println!("R{rule}: {}", tests.join(", "));
    }
    assert_eq!(found, Found::new(), "there are no such rules");
}

#[test]
fn only_tests_count() {
    let source = "#[tokio::test(start_paused = true)]\n#[expect(dead_code)]\nasync fn r07_a() {}\n\
                  fn r08_b() {}\n#[test]\nfn r9_c() {}\n#[test]\nfn rest() {}";
    let names: Vec<_> = tests_of(source).collect();
    assert_eq!(names, ["r07_a", "r9_c", "rest"]);
    let rules: Vec<_> = names.into_iter().map(rule_of).collect();
    assert_eq!(rules, [Some(7), None, None]);
}
