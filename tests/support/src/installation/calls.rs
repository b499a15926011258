//! What a hub was asked, by kind: read from the counters that it serves for Prometheus.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

const COUNTER: &str = "rehome_hub_requests_total{";

/// How often each kind of request was answered, by operation and HTTP status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<(String, u16), u64>);

impl Calls {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(COUNTER) else {
                continue;
            };
            let unreadable = || format!("the counter {line:?}");
            let (labels, count) = rest.split_once("} ").with_context(unreadable)?;
            let label = |name: &str| {
                let value = labels.split(',').find_map(|one| one.strip_prefix(name));
                value.map(|value| value.trim_matches('"'))
            };
            let operation = label("operation=").with_context(unreadable)?.to_owned();
            let status = label("status=").with_context(unreadable)?;
            let status = status.parse().with_context(unreadable)?;
            calls.insert((operation, status), count.parse().with_context(unreadable)?);
        }
        Ok(Self(calls))
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = |(kind, count): (&(String, u16), &u64)| {
            let before = earlier.0.get(kind).copied().unwrap_or_default();
            (*count > before).then(|| (kind.clone(), count - before))
        };
        Self(self.0.iter().filter_map(new).collect())
    }

    /// Those of other operations.
    #[must_use]
    pub fn without(&self, operations: &[&str]) -> Self {
        let keep = |(operation, _): &(String, u16)| !operations.contains(&operation.as_str());
        let kept = self.0.iter().filter(|(kind, _)| keep(kind));
        Self(kept.map(|(kind, count)| (kind.clone(), *count)).collect())
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((operation, status), count) in &self.0 {
            writeln!(f, "{count:>7}  {operation:<16} {status}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_counted() {
        let line = |operation: &str, count: u64| {
            format!("{COUNTER}operation=\"{operation}\",status=\"200\"}} {count}\n")
        };
        let before = Calls::parse(&(line("bulk", 2) + &line("query", 1))).unwrap();
        let after = Calls::parse(&(line("bulk", 5) + &line("query", 1) + "# EOF\n")).unwrap();
        let new = after.since(&before);
        assert_eq!(
            new.to_string().split_whitespace().collect::<Vec<_>>(),
            ["3", "bulk", "200"]
        );
        assert_eq!((new.total(), new.without(&["bulk"]).total()), (3, 0));
        assert!(Calls::parse(&format!("{COUNTER}nonsense")).is_err());
    }
}
