//! How many connections there may be, in all and of one client, and how often one may open them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::AcceptLimits;
use super::turns::{Turn, Turns};
use crate::wire::networks::Networks;
use crate::wire::rate::Bucket;

/// Clients whose new connections are counted at once: an attacker can fill the table, not grow it.
const TRACKED: u64 = 100_000;

/// Counts connections. Of clients that are not connected it holds a number, for a while.
#[derive(Debug)]
pub(super) struct Admission {
    limits: AcceptLimits,
    networks: Arc<Networks>,
    connections: Arc<Semaphore>,
    clients: Mutex<HashMap<IpAddr, Open>>,
    begun: Instant,
    newcomers: Cache<IpAddr, Arc<Bucket>>,
}

/// Connections of one client.
#[derive(Debug)]
struct Open {
    all: usize,
    shaking: usize,
    turns: Arc<Turns>,
}

impl Admission {
    pub(super) fn new(limits: AcceptLimits, networks: Arc<Networks>) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections)),
            clients: Mutex::default(),
            begun: Instant::now(),
            newcomers: Cache::builder()
                .max_capacity(TRACKED)
                // A bucket that was not touched for so long is full again.
                .time_to_idle(Duration::from_mins(1))
                .build(),
            limits,
            networks,
        })
    }

    /// One of all connections; `None` when they are taken.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// One of the client's connections, in its handshake; `None` when they are taken, or when it
    /// opens them too fast.
    pub(super) fn client(
        self: &Arc<Self>,
        connection: OwnedSemaphorePermit,
        address: IpAddr,
    ) -> Option<Slot> {
        let client = self.networks.client(address);
        let mut turns = None;
        if let Some(client) = client {
            if !self.may_come(client) {
                return None;
            }
            let mut clients = self.clients();
            let limits = self.limits;
            let open = clients.entry(client).or_insert_with(|| Open {
                all: 0,
                shaking: 0,
                turns: Arc::new(Turns::new(limits.handshake_percent)),
            });
            if open.all >= limits.per_client || open.shaking >= limits.handshakes_per_client {
                return None;
            }
            open.all += 1;
            open.shaking += 1;
            turns = Some(open.turns.clone());
        }
        Some(Slot {
            admission: self.clone(),
            client,
            turns,
            shaking: true,
            _connection: connection,
        })
    }

    fn may_come(&self, client: IpAddr) -> bool {
        let (rate, now) = (self.limits.new_of_client, self.begun.elapsed());
        let full = || Arc::new(Bucket::full(rate, now));
        self.newcomers.get_with(client, full).take(rate, now)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Open>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One admitted connection; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    /// Absent for those who are not limited.
    client: Option<IpAddr>,
    /// The client's; absent for those who are not limited.
    turns: Option<Arc<Turns>>,
    shaking: bool,
    _connection: OwnedSemaphorePermit,
}

impl Slot {
    /// The client's next turn to compute a step of a handshake; none is needed by those who are not
    /// limited.
    pub(super) async fn turn(&self) -> Option<Turn<'_>> {
        self.turns.as_ref()?.next().await
    }

    pub(super) fn has_shaken_hands(&mut self) {
        self.shaking = false;
        if let Some(client) = &self.client
            && let Some(open) = self.admission.clients().get_mut(client)
        {
            open.shaking -= 1;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(client) = &self.client else { return };
        let mut clients = self.admission.clients();
        if let Some(open) = clients.get_mut(client) {
            open.all -= 1;
            open.shaking -= usize::from(self.shaking);
            if open.all == 0 {
                clients.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn slot(admission: &Arc<Admission>, last: u8) -> Slot {
        let connection = admission.connection().unwrap();
        admission
            .client(connection, [192, 0, 2, last].into())
            .unwrap()
    }

    #[tokio::test]
    async fn clients_take_turns_of_their_own() {
        let admission = Admission::new(AcceptLimits::default(), Arc::default());
        let [one, same, other] = [1, 1, 2].map(|last| slot(&admission, last));
        let _turn = one.turn().now_or_never().unwrap();
        assert!(same.turn().now_or_never().is_none());
        assert!(other.turn().now_or_never().is_some());
    }
}
