//! What is printed: how it goes, and in the end every figure and every fault.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rehome_testing::Requests;

use super::Size;
use super::course::{Done, between_waves};
use super::faults::Fault;
use super::memory::{HEAD, LIMITS, Memory};
use super::run::Run;
use super::sampling::{Incidents, Sampler, Used};
use super::tally::Outcome;
use super::verdict::Verdict;

/// Time between two lines about how it goes.
const EVERY: Duration = Duration::from_secs(30);
/// Whoever uses less of a processor is not listed.
const WORTH_TELLING: f64 = 0.001;
/// What begins the name of an incident of somebody who did too much of something.
const LIMITED: &str = "too_many";

/// All figures of a run.
pub(crate) struct Report {
    pub(crate) size: Size,
    pub(crate) run: Arc<Run>,
    pub(crate) done: Done,
    pub(crate) verdict: Verdict,
    /// What was written in the tenant's namespace, once every device had a home.
    pub(crate) writes: Requests,
    pub(crate) gateways: Incidents,
    pub(crate) hubs: Incidents,
    pub(crate) used: Used,
    pub(crate) memory: Vec<(String, Memory)>,
}

/// Says how it goes, as long as it is waited for.
pub(crate) async fn progress(run: &Run, sampler: &Mutex<Sampler>, begin: Instant) -> Infallible {
    loop {
        tokio::time::sleep(EVERY).await;
        let [_, unchanged, moved] = Outcome::ALL.map(|outcome| run.tally.registrations(outcome));
        let sampler = sampler.lock().unwrap_or_else(PoisonError::into_inner);
        let share = sampler.used().map_or(0.0, |used| used.by_this_run());
        eprintln!(
            "{:>5} s: {unchanged} registrations unchanged, {moved} moves, {} reports, {} faults; \
             {:.0} MiB, {:.0} % of the machine",
            begin.elapsed().as_secs(),
            run.tally.reports(),
            run.faults.count(),
            sampler.total_mib(),
            share * 100.0
        );
    }
}

impl Report {
    /// What only the figures of the whole show.
    pub(crate) fn judge(&self) {
        let faults = &self.run.faults;
        for (who, incidents) in [("gateways", &self.gateways), ("hubs", &self.hubs)] {
            for (incident, count) in &incidents.0 {
                if incident.starts_with(LIMITED) {
                    faults.add(Fault::TurnedAway, &format!("by {who}, {incident}: {count}"));
                }
            }
        }
        for (name, memory) in &self.memory {
            if let Some(growth) = memory.growth().filter(|_| memory.can_be_judged()) {
                faults.add(Fault::Growing, &format!("{name}: {growth}"));
            }
        }
    }

    /// Writes of and about registrations, by the product.
    fn writes_of_moves(&self) -> usize {
        let written = [
            "deviceregistrations",
            "deviceregistrations/status",
            "events",
        ];
        let of = self.writes.only(|request| {
            request.user.starts_with("system:serviceaccount:")
                && written.contains(&request.target().as_str())
        });
        of.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            size, run, done, ..
        } = self;
        writeln!(
            f,
            "{} devices, {} of them processes with official SDKs, for {} s; pause {} s, seed {}",
            size.devices,
            size.sdk_processes,
            size.time().as_secs(),
            size.pause,
            size.seed
        )?;
        writeln!(
            f,
            "two gateways, the second killed twice; one controller; three hubs\n"
        )?;
        writeln!(f, "{}", run.tally)?;
        let tally = &run.tally;
        let moves = tally.registrations(Outcome::Moved);
        writeln!(f, "{:<40}{:>8}", "moves", moves)?;
        writeln!(
            f,
            "{:<40}{:>8}  one each {:.0} s",
            "  groups that got another hub",
            done.waves,
            between_waves(size.time()).as_secs_f64()
        )?;
        writeln!(f, "{:<40}{:>8}", "  triggers of people", done.triggers)?;
        writeln!(f, "{:<40}{:>8}", "reports, with telemetry", tally.reports())?;
        writeln!(
            f,
            "{:<40}{:>8}",
            "connected again by their own will",
            tally.reconnects()
        )?;
        writeln!(
            f,
            "{:<40}{:>8}",
            "sent away by a hub after a move",
            tally.sent_away()
        )?;
        self.show_writes(f, moves)?;
        writeln!(
            f,
            "incidents at gateways: {}; at hubs: {}\n",
            self.gateways, self.hubs
        )?;
        self.show_machine(f)?;
        writeln!(f, "{}\n{}", self.verdict, run.faults)?;
        match run.faults.count() {
            0 => write!(f, "no device lost, no fault"),
            count => write!(f, "{count} FAULTS"),
        }
    }
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "writes of a run are few")]
    fn show_writes(&self, f: &mut fmt::Formatter<'_>, moves: usize) -> fmt::Result {
        writeln!(
            f,
            "\nwrites to the API server, once every device had a home:"
        )?;
        write!(f, "{}", self.writes)?;
        let each = self.writes_of_moves() as f64 / moves.max(1) as f64;
        writeln!(
            f,
            "{each:.1} for each move, with those that verify the home of who comes back soon\n"
        )
    }

    fn show_machine(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = &self.used;
        writeln!(
            f,
            "this run used {:.0} % of {} processors, which were {:.0} % busy; % of one processor:",
            used.by_this_run() * 100.0,
            used.processors,
            used.machine * 100.0
        )?;
        for (name, cores) in used.processes.iter().chain(&used.programs) {
            if *cores >= WORTH_TELLING {
                writeln!(f, "{name:<24}{:>7.1}", cores * 100.0)?;
            }
        }
        writeln!(f, "\n{HEAD}")?;
        for (name, memory) in &self.memory {
            let note = if memory.can_be_judged() {
                ""
            } else {
                "  not judged: too short"
            };
            writeln!(f, "{name:<24}{memory}{note}")?;
        }
        writeln!(f, "{LIMITS}")?;
        writeln!(f)
    }
}

impl fmt::Display for Incidents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.iter();
        let counts: Vec<_> = counts
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        match counts.as_slice() {
            [] => f.write_str("none"),
            _ => f.write_str(&counts.join(", ")),
        }
    }
}
