//! How scenarios ended, and whether that was expected.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::expectation::{Expectation, Rule, Variant};
use super::scenario::{Outcome, Scenario};

/// How one scenario ended for one device.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) outcome: Outcome,
    /// What the SDK reports, when it reports a failure.
    pub(crate) said: Option<String>,
}

/// Every cell of a run.
pub(crate) type Cells<'a> = BTreeMap<(Variant<'a>, Scenario), Result<Seen, String>>;

impl Seen {
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            said: None,
        }
    }

    pub(crate) fn failure(outcome: Outcome, said: String) -> Self {
        Self {
            outcome,
            said: Some(said),
        }
    }

    /// Whether that is what the rule says.
    pub(crate) fn follows(&self, rule: &Rule) -> bool {
        let says = match (&rule.says, &self.said) {
            (Some(expected), Some(said)) => said.contains(expected),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.outcome == rule.outcome && says
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.outcome.title())?;
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

/// What a run would show in which everything is as expected.
#[cfg(test)]
pub(crate) fn as_expected(expectation: &Expectation) -> Cells<'_> {
    let mut cells = Cells::new();
    for sdk in &expectation.sdks {
        for variant in sdk.variants() {
            for scenario in Scenario::ALL {
                let rule = sdk.rule(variant, scenario).unwrap();
                let seen = Seen {
                    outcome: rule.outcome,
                    said: rule.says.clone(),
                };
                cells.insert((variant, scenario), Ok(seen));
            }
        }
    }
    cells
}

/// One line for each cell that is not as expected.
pub(crate) fn differences(expectation: &Expectation, cells: &Cells<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for sdk in &expectation.sdks {
        for variant in sdk.variants() {
            for scenario in Scenario::ALL {
                let rule = sdk.rule(variant, scenario);
                let expected = rule.map_or_else(
                    || "nothing".to_owned(),
                    |rule| {
                        let says = rule.says.as_deref();
                        let says = says.map_or(String::new(), |says| format!(": …{says}…"));
                        format!("{}{says}", rule.outcome.title())
                    },
                );
                let seen = match cells.get(&(variant, scenario)) {
                    Some(Ok(seen)) if rule.is_some_and(|rule| seen.follows(rule)) => continue,
                    Some(Ok(seen)) => seen.to_string(),
                    Some(Err(error)) => error.clone(),
                    None => "it was not run".to_owned(),
                };
                lines.push(format!(
                    "{variant}, {scenario}: expected {expected}; seen {seen}"
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_is_missing_wrong_or_says_something_else_is_a_difference() {
        let expectation = Expectation::read().unwrap();
        let mut cells = as_expected(&expectation);
        assert!(differences(&expectation, &cells).is_empty());
        let variant = expectation.variants().next().unwrap();
        cells.remove(&(variant, Scenario::First));
        let seen = Seen::failure(Outcome::Refused, "the moon".to_owned());
        cells.insert((variant, Scenario::Disabled), Ok(seen));
        cells.insert((variant, Scenario::Never), Ok(Seen::of(Outcome::Moves)));
        cells.insert((variant, Scenario::Reset), Err("no".to_owned()));
        let lines = differences(&expectation, &cells);
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("seen refused: the moon"))
        );
    }
}
