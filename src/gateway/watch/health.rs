//! Whether every watch is alive: the gateway is ready only while what it knows is fresh.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::clock::Clock;

/// The pulses of all watches.
pub struct Health {
    clock: Arc<dyn Clock>,
    silence: Duration,
    pulses: Mutex<Vec<Weak<Pulse>>>,
    /// Secrets that were not looked at yet; their Enrollments cannot vouch for anybody.
    pending_secrets: Mutex<Option<usize>>,
}

/// The pulse of one watch.
pub struct Pulse {
    what: &'static str,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<Duration>>,
}

impl Pulse {
    /// The watch heard something: an event, a bookmark, or that it was established.
    pub fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.monotonic());
    }

    /// Whether it ever beat.
    pub fn has_beaten(&self) -> bool {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// What is watched.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl Health {
    /// Counts a watch as dead after so much silence.
    pub fn new(clock: Arc<dyn Clock>, silence: Duration) -> Self {
        Self {
            clock,
            silence,
            pulses: Mutex::default(),
            pending_secrets: Mutex::new(None),
        }
    }

    /// A pulse for one more watch, counted until it is dropped.
    pub fn pulse(&self, what: &'static str) -> Arc<Pulse> {
        let pulse = self.uncounted_pulse(what);
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.push(Arc::downgrade(&pulse));
        pulse
    }

    /// A pulse that does not make the gateway unready: one tenant's trouble is not everybody's.
    pub fn uncounted_pulse(&self, what: &'static str) -> Arc<Pulse> {
        Arc::new(Pulse {
            what,
            clock: self.clock.clone(),
            last: Mutex::default(),
        })
    }

    /// How many Secrets still have to be looked at for the first time.
    pub fn secrets_pending(&self, count: usize) {
        *self
            .pending_secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(count);
    }

    /// How long the watch that heard nothing for longest has heard nothing.
    pub fn silence(&self) -> Duration {
        let now = self.clock.monotonic();
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let silences = pulses.iter().filter_map(Weak::upgrade).map(|pulse| {
            let last = *pulse.last.lock().unwrap_or_else(PoisonError::into_inner);
            now.saturating_sub(last.unwrap_or_default())
        });
        silences.max().unwrap_or_default()
    }

    /// Whether the gateway may serve; if not, why.
    ///
    /// # Errors
    /// For people: which watch is not there yet, or silent.
    pub fn check(&self) -> Result<(), String> {
        let now = self.clock.monotonic();
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        for pulse in pulses.iter() {
            let Some(pulse) = pulse.upgrade() else {
                return Err("a watch has ended".to_owned());
            };
            let last = *pulse.last.lock().unwrap_or_else(PoisonError::into_inner);
            match last {
                None => return Err(format!("{} have not been listed yet", pulse.what)),
                Some(last) if now.saturating_sub(last) > self.silence => {
                    let silent = now.saturating_sub(last).as_secs();
                    return Err(format!(
                        "the watch on {} is silent for {silent} s",
                        pulse.what
                    ));
                }
                Some(_) => {}
            }
        }
        match *self
            .pending_secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            None => Err("attestation Secrets have not been looked at yet".to_owned()),
            Some(0) => Ok(()),
            Some(count) => Err(format!(
                "{count} attestation Secrets have not been looked at yet"
            )),
        }
    }
}
