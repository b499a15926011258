//! What all devices of a run share.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rehome_testing::device::Registrar;
use tokio::sync::watch;

use super::faults::Faults;
use super::tally::Tally;

/// A run, as the devices see it.
pub(crate) struct Run {
    /// The mean time between two deeds of a device.
    pub(crate) pause: Duration,
    pub(crate) gateways: [Gateway; 2],
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
    arrived: Mutex<BTreeSet<String>>,
    over: watch::Sender<bool>,
}

/// A gateway, and when it was away.
pub(crate) struct Gateway {
    pub(crate) registrar: Registrar,
    outages: Mutex<Vec<Outage>>,
}

/// From when to when; `None` as long as it lasts.
type Outage = (Instant, Option<Instant>);

impl Run {
    pub(crate) fn new(registrars: [Registrar; 2], pause: Duration) -> Self {
        Self {
            pause,
            gateways: registrars.map(|registrar| Gateway {
                registrar,
                outages: Mutex::default(),
            }),
            tally: Tally::default(),
            faults: Faults::new(),
            arrived: Mutex::default(),
            over: watch::Sender::new(false),
        }
    }

    /// A device has a home.
    pub(crate) fn has_arrived(&self, registration_id: &str) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if !arrived.contains(registration_id) {
            arrived.insert(registration_id.to_owned());
        }
    }

    /// How many devices have had a home.
    pub(crate) fn arrived(&self) -> usize {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.len()
    }

    /// Tells all devices to stop.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until it is over.
    pub(crate) async fn over(&self) {
        // The sender lives as long as this.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

impl Gateway {
    /// It is about to be killed.
    pub(crate) fn leaves(&self) {
        self.outages().push((Instant::now(), None));
    }

    /// It serves again.
    pub(crate) fn is_back(&self) {
        if let Some((_, end)) = self.outages().last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Whether it was away at any time since then.
    pub(crate) fn was_away(&self, since: Instant) -> bool {
        let outages = self.outages();
        outages
            .iter()
            .any(|(_, end)| end.is_none_or(|end| end >= since))
    }

    fn outages(&self) -> std::sync::MutexGuard<'_, Vec<Outage>> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
