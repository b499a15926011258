//! What controller and gateway asked of the API server and of the hubs between two moments.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{Duration, Instant};

use rehome_testing::installation::Calls;
use rehome_testing::{Mark, Request, Requests, expect};

use crate::floor::Floor;

/// A moment from which is measured.
pub(crate) struct Meter<'a> {
    floor: &'a Floor,
    mark: Mark,
    calls: Vec<Calls>,
    began: Instant,
}

/// What was spent. Watches and the Lease are apart.
pub(crate) struct Spent {
    pub(crate) requests: Requests,
    /// By hub.
    pub(crate) calls: Vec<(String, Calls)>,
    pub(crate) took: Duration,
    watches: usize,
}

/// Every budget, and whether it was kept.
#[derive(Default)]
pub(crate) struct Budgets {
    lines: Vec<(String, u64, u64)>,
}

impl<'a> Meter<'a> {
    pub(crate) async fn start(floor: &'a Floor) -> Self {
        let mut calls = Vec::new();
        for hub in &floor.installation.hubs {
            calls.push(hub.calls().await.unwrap());
        }
        Self {
            floor,
            calls,
            mark: floor.cluster.audit().unwrap().mark().unwrap(),
            began: Instant::now(),
        }
    }

    pub(crate) async fn read(&self, what: &str) -> Spent {
        let operator = &self.floor.installation.operator;
        let users = [&operator.controller.user, &operator.gateway.user];
        let audit = self.floor.cluster.audit().unwrap();
        let all = audit.since(self.mark).unwrap();
        let ours = all.only(|request| users.contains(&&request.user));
        let is_watch = |request: &Request| request.verb == "watch";
        let mut calls = Vec::new();
        for (hub, before) in self.floor.installation.hubs.iter().zip(&self.calls) {
            calls.push((hub.name.clone(), hub.calls().await.unwrap().since(before)));
        }
        let spent = Spent {
            requests: ours.only(|request| !is_watch(request) && request.resource != "leases"),
            watches: ours.only(is_watch).len(),
            calls,
            took: self.began.elapsed(),
        };
        say(&format!("\n── {what}\n{spent}"));
        spent
    }

    /// Lets that much time pass since the start.
    pub(crate) async fn wait(&self, time: Duration) {
        expect("time to pass", time + Duration::from_secs(5), async || {
            (self.began.elapsed() >= time).then_some(())
        })
        .await;
    }
}

impl Spent {
    pub(crate) fn writes(&self) -> Requests {
        let writes = self.requests.to_group("rehome.dev").writes();
        writes.only(|request| request.resource == "deviceregistrations")
    }

    pub(crate) fn reads(&self) -> Requests {
        let reads = self.requests.to_group("rehome.dev");
        reads.only(|request| {
            request.resource == "deviceregistrations" && ["get", "list"].contains(&&*request.verb)
        })
    }

    pub(crate) fn events(&self) -> Requests {
        self.requests.only(|request| request.resource == "events")
    }

    /// Calls for devices: probes and the sweep are the hub's own.
    pub(crate) fn device_calls(&self) -> u64 {
        let calls = self.calls.iter();
        calls
            .map(|(_, calls)| calls.without(&["statistics", "query"]).total())
            .sum()
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.requests)?;
        for (hub, calls) in &self.calls {
            for line in calls.to_string().lines() {
                writeln!(f, "{line} {hub}")?;
            }
        }
        let (watches, seconds) = (self.watches, self.took.as_secs_f64());
        writeln!(f, "{watches:>7}  watches begun, in {seconds:.1} s")
    }
}

impl Budgets {
    /// Notes how much of a budget was used.
    pub(crate) fn check(&mut self, what: &str, seen: impl TryInto<u64>, most: u64) {
        let seen = seen.try_into().ok().unwrap();
        self.lines.push((what.to_owned(), seen, most));
    }

    /// Prints every budget; panics when one was not kept.
    pub(crate) fn settle(self) {
        let mut table = String::from("\n   used     of  budget\n");
        let mut broken = Vec::new();
        for (what, seen, most) in &self.lines {
            let mark = if seen > most { "BROKEN" } else { "" };
            writeln!(table, "{seen:>7} {most:>6}  {what} {mark}").unwrap();
            if seen > most {
                broken.push(what);
            }
        }
        say(&table);
        assert!(broken.is_empty(), "broken: {broken:#?}");
    }
}

/// The most requests that one object got.
pub(crate) fn most_for_one(requests: &Requests) -> usize {
    let mut counts = BTreeMap::<_, usize>::new();
    for request in &requests.0 {
        // What creates an object has its name in the body.
        if request.verb != "create" {
            *counts.entry(&request.name).or_default() += 1;
        }
    }
    counts.into_values().max().unwrap_or_default()
}

/// Not print: the tables are wanted when the test passes, too.
fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
