//! How many connections there may be, in all and of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AcceptLimits;
use crate::wire::networks::Networks;

/// Counts connections. Holds nothing about clients that are not connected.
#[derive(Debug)]
pub(super) struct Admission {
    limits: AcceptLimits,
    networks: Arc<Networks>,
    connections: Arc<Semaphore>,
    clients: Mutex<HashMap<IpAddr, Open>>,
}

/// Connections of one client.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    shaking: usize,
}

impl Admission {
    pub(super) fn new(limits: AcceptLimits, networks: Arc<Networks>) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections)),
            clients: Mutex::default(),
            limits,
            networks,
        })
    }

    /// One of all connections; `None` when they are taken.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// One of the client's connections, in its handshake; `None` when they are taken.
    pub(super) fn client(
        self: &Arc<Self>,
        connection: OwnedSemaphorePermit,
        address: IpAddr,
    ) -> Option<Slot> {
        let client = self.networks.client(address);
        if let Some(client) = client {
            let mut clients = self.clients();
            let open = clients.entry(client).or_default();
            let limits = self.limits;
            if open.all >= limits.per_client || open.shaking >= limits.handshakes_per_client {
                return None;
            }
            open.all += 1;
            open.shaking += 1;
        }
        Some(Slot {
            admission: self.clone(),
            client,
            shaking: true,
            _connection: connection,
        })
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
    shaking: bool,
    _connection: OwnedSemaphorePermit,
}

impl Slot {
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
