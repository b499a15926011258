//! What the product's processes take of the machine while the fleet lives, and whom they turn away.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rehome_testing::Process;
use rehome_testing::vitals::{Processors, TICKS, cpu_ticks, cpu_ticks_of_all, open_files, rss};
use tokio::time::{MissedTickBehavior, interval};

use super::ground::Ground;
use super::memory::{Memory, Sample};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Whose processes are looked at one by one.
const PRODUCT: &str = "rehome";

/// Looks at the product's processes.
pub(crate) struct Sampler {
    begin: Instant,
    processors: Processors,
    /// Ticks at the beginning, by program.
    programs: BTreeMap<String, u64>,
    series: BTreeMap<String, Series>,
}

/// What one process, in all its lives, took.
struct Series {
    pid: u32,
    /// Of its present life.
    samples: Vec<Sample>,
    /// Ticks when its present life was seen first, and last, and those of the lives before.
    first: u64,
    last: u64,
    before: u64,
}

/// Looks every now and then, as long as it is waited for and can.
pub(crate) async fn sample(sampler: &Mutex<Sampler>, ground: &Ground) -> Result<Infallible> {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut sampler = sampler.lock().unwrap_or_else(PoisonError::into_inner);
        sampler.look(ground)?;
    }
}

/// How many processors somebody used, by name.
pub(crate) struct Used {
    /// The product's processes.
    pub(crate) processes: Vec<(String, f64)>,
    /// All others in the private network, by program.
    pub(crate) programs: Vec<(String, f64)>,
    /// How much of the machine was busy, from 0 to 1, with this run and all else.
    pub(crate) machine: f64,
    pub(crate) processors: usize,
}

impl Sampler {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            begin: Instant::now(),
            processors: Processors::look()?,
            programs: cpu_ticks_of_all()?,
            series: BTreeMap::new(),
        })
    }

    fn look(&mut self, ground: &Ground) -> Result<()> {
        let installation = &ground.installation;
        self.look_at("controller", &installation.controller)?;
        self.look_at("gateway-1", &installation.gateway)?;
        for hub in &installation.hubs {
            self.look_at(&hub.name, &hub.process)?;
        }
        // While it is being killed and started there is nothing to see.
        if let Ok(replica) = ground.replica.try_lock() {
            self.look_at("gateway-2", &replica.process)?;
        }
        Ok(())
    }

    fn look_at(&mut self, name: &str, process: &Process) -> Result<()> {
        let pid = process.pid();
        // One that has ended has no memory.
        let look = || anyhow::Ok((rss(pid)?, open_files(pid)?, cpu_ticks(pid)?));
        let (kib, files, ticks) = look().with_context(|| {
            let log = process.log().display();
            format!("{name} (process {pid}) has ended, as it seems: see {log}")
        })?;
        self.note(name.to_owned(), pid, (kib, files), ticks);
        Ok(())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no process has so much of either"
    )]
    fn note(&mut self, name: String, pid: u32, (kib, files): (u64, usize), ticks: u64) {
        let now = self.begin.elapsed().as_secs_f64();
        let series = self.series.entry(name).or_insert_with(|| Series {
            pid,
            samples: Vec::new(),
            first: ticks,
            last: ticks,
            before: 0,
        });
        if series.pid != pid {
            *series = Series {
                pid,
                samples: Vec::new(),
                first: 0,
                last: ticks,
                before: series.before + series.last - series.first,
            };
        }
        series.last = ticks;
        series.samples.push(Sample {
            time: now,
            kib: kib as f64,
            files: files as f64,
        });
    }

    /// What each process took, of those that were seen.
    pub(crate) fn memory(&self) -> Vec<(String, Memory)> {
        let of =
            |(name, series): (&String, &Series)| Some((name.clone(), Memory::of(&series.samples)?));
        self.series.iter().filter_map(of).collect()
    }

    /// MiB of all the processes now.
    pub(crate) fn total_mib(&self) -> f64 {
        let newest = self.series.values().filter_map(|it| it.samples.last());
        newest.map(|newest| newest.kib / 1024.0).sum()
    }

    /// How much CPU was used since the beginning.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a run are few")]
    pub(crate) fn used(&self) -> Result<Used> {
        let time = self.begin.elapsed().as_secs_f64().max(1.0);
        let cores = |ticks: u64| ticks as f64 / TICKS as f64 / time;
        let of = |(name, series): (&String, &Series)| {
            let ticks = series.before + series.last - series.first;
            (name.clone(), cores(ticks))
        };
        let programs = cpu_ticks_of_all()?.into_iter();
        let programs = programs.filter(|(program, _)| program != PRODUCT);
        let programs = programs.map(|(program, ticks)| {
            let before = self.programs.get(&program).copied().unwrap_or_default();
            (program, cores(ticks.saturating_sub(before)))
        });
        Ok(Used {
            processes: self.series.iter().map(of).collect(),
            programs: programs.collect(),
            machine: Processors::look()?.share_since(&self.processors),
            processors: std::thread::available_parallelism()?.get(),
        })
    }
}

impl Used {
    /// What this run used of the machine, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "processors are few")]
    pub(crate) fn by_this_run(&self) -> f64 {
        let all = self.processes.iter().chain(&self.programs);
        all.map(|(_, cores)| cores).sum::<f64>() / self.processors as f64
    }
}

/// How many clients were turned away, by what servers call it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Incidents(pub(crate) BTreeMap<String, u64>);

impl Incidents {
    /// As a gateway or a hub counts them since it was started.
    pub(crate) async fn read(health: SocketAddr) -> Result<Self> {
        let url = format!("http://{health}/metrics");
        let response = reqwest::get(&url).await.with_context(|| url.clone())?;
        Self::parse(&response.error_for_status()?.text().await?)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (incident, count) in &other.0 {
            *self.0.entry(incident.clone()).or_default() += count;
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let Some((_, rest)) = line.split_once("_incidents_total{incident=\"") else {
                continue;
            };
            let unreadable = || format!("the counter {line:?}");
            let (incident, count) = rest.split_once("\"} ").with_context(unreadable)?;
            let count: u64 = count.parse().with_context(unreadable)?;
            if count > 0 {
                counts.insert(incident.to_owned(), count);
            }
        }
        Ok(Self(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler() -> Sampler {
        Sampler::start().unwrap()
    }

    #[test]
    fn a_process_that_was_started_again_is_sampled_anew_and_its_time_counts() {
        let mut sampler = sampler();
        for (pid, kib, ticks) in [(7, 100, 1000), (7, 900, 1500), (8, 50, 20), (8, 60, 120)] {
            sampler.note("gateway-2".to_owned(), pid, (kib, 9), ticks);
        }
        let series = &sampler.series["gateway-2"];
        let kib: Vec<_> = series.samples.iter().map(|it| it.kib).collect();
        assert_eq!(kib, [50.0, 60.0]);
        let used = sampler.used().unwrap();
        // 500 ticks of the first life and 120 of the second, in a second at the least.
        assert!(
            (used.processes[0].1 - 6.2).abs() < 0.01,
            "{:?}",
            used.processes
        );
    }

    #[test]
    fn incidents_are_read_whoever_counts_them() {
        let text = "# TYPE x counter\nrehome_gateway_incidents_total{incident=\"malformed\"} 3\n\
                    rehome_gateway_incidents_total{incident=\"slow_request\"} 0\n# EOF\n";
        let mut one = Incidents::parse(text).unwrap();
        let hub = "rehome_hub_incidents_total{incident=\"malformed\"} 2\n";
        one.add(&Incidents::parse(hub).unwrap());
        assert_eq!(one.0, BTreeMap::from([("malformed".to_owned(), 5)]));
        assert!(Incidents::parse("x_incidents_total{incident=\"y\"} z").is_err());
    }
}
