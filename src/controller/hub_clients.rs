//! One client per hub, so that its pacing, its tokens and its connections are shared.
//!
//! A client lives until its hub's spec or Secret changes. Only the hub that has its host gets one:
//! through two names for one hub a move would delete the only copy of a device.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use kube::ResourceExt as _;

use super::hub::{Access, Credentials};
use crate::api::v1alpha1::{HubRef, IoTHub, Reason};
use crate::clock::Clock;
use crate::domain::transfer::{Trouble, TroubleKind};
use crate::registry::{
    CallObserver, ConnectionString, HttpTransport, HubClient, HubSettings, Route, Transport,
    TransportSetupError,
};

/// Makes the transports; tests put in-process hubs here.
pub trait TransportFactory: Send + Sync + 'static {
    /// A transport to that hub.
    fn transport(
        &self,
        hub: &IoTHub,
        route: &Route,
        call_timeout: Duration,
    ) -> Result<Arc<dyn Transport>, TransportSetupError>;
}

/// Transports over the network.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkTransports;

impl TransportFactory for NetworkTransports {
    fn transport(
        &self,
        _: &IoTHub,
        route: &Route,
        call_timeout: Duration,
    ) -> Result<Arc<dyn Transport>, TransportSetupError> {
        Ok(Arc::new(HttpTransport::new(route, call_timeout)?))
    }
}

/// The clients of all hubs.
pub struct HubClients {
    slots: RwLock<HashMap<String, Slot>>,
    transports: Arc<dyn TransportFactory>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn CallObserver>,
    call_timeout: Duration,
}

struct Slot {
    made_from: Ingredients,
    client: Result<HubClient, Trouble>,
}

/// What a client is made from; of the Secret only a digest, to notice that it changed.
#[derive(Clone, PartialEq)]
struct Ingredients {
    host_name: String,
    /// Without the credentials.
    access: Option<Access>,
    secret_digest: Option<Vec<u8>>,
}

/// Why a hub has no client, and what stands in its conditions for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoClient {
    /// Reason in the conditions.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl HubClients {
    /// No clients yet.
    pub fn new(
        transports: Arc<dyn TransportFactory>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn CallObserver>,
        call_timeout: Duration,
    ) -> Self {
        Self {
            slots: RwLock::default(),
            transports,
            clock,
            observer,
            call_timeout,
        }
    }

    /// The client of a hub, if it has one.
    pub fn get(&self, hub: &HubRef) -> Result<HubClient, Trouble> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        match slots.get(&hub.uid) {
            Some(slot) => slot.client.clone(),
            None => Err(Trouble {
                kind: TroubleKind::Unreachable,
                message: format!(
                    "the operator has not connected to hub {} yet",
                    hub.host_name
                ),
            }),
        }
    }

    /// Makes the client of a hub again if the way to it changed; also tells whether it did.
    pub fn refresh(&self, hub: &IoTHub, access: &Access) -> Result<(HubClient, bool), NoClient> {
        let uid = hub.uid().unwrap_or_default();
        let value = match &access.credentials {
            Credentials::NoSecret | Credentials::NoKey => None,
            Credentials::Found(value) => Some(value),
        };
        let made_from = Ingredients {
            host_name: hub.spec.host_name.clone(),
            access: Some(Access {
                credentials: Credentials::NoSecret,
                ..access.clone()
            }),
            secret_digest: value.map(|value| digest(&SHA256, value).as_ref().to_vec()),
        };
        if let Some(client) = self.known(&uid, &made_from) {
            return Ok((client, false));
        }
        let made = self.make(hub, access);
        let client = made.clone().map_err(|error| Trouble {
            kind: if error.reason == Reason::ConnectionInvalid {
                TroubleKind::Unreachable
            } else {
                TroubleKind::NoCredentials
            },
            message: error.message.clone(),
        });
        self.put(uid, Slot { made_from, client });
        made.map(|client| (client, true))
    }

    /// Takes the client away from a hub whose host belongs to another.
    pub fn block(&self, hub: &IoTHub, message: &str) {
        let trouble = Trouble {
            kind: TroubleKind::Unreachable,
            message: message.to_owned(),
        };
        let slot = Slot {
            made_from: Ingredients {
                host_name: hub.spec.host_name.clone(),
                access: None,
                secret_digest: None,
            },
            client: Err(trouble),
        };
        self.put(hub.uid().unwrap_or_default(), slot);
    }

    /// Notes that the hub does not exist any more.
    pub fn forget(&self, hub_uid: &str) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.remove(hub_uid);
    }

    fn known(&self, uid: &str, made_from: &Ingredients) -> Option<HubClient> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(uid).filter(|slot| slot.made_from == *made_from)?;
        slot.client.clone().ok()
    }

    fn put(&self, uid: String, slot: Slot) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.insert(uid, slot);
    }

    fn make(&self, hub: &IoTHub, access: &Access) -> Result<HubClient, NoClient> {
        let credentials = credentials(hub, access)?;
        let transport = self
            .transports
            .transport(hub, &access.route, self.call_timeout);
        let transport = transport.map_err(|error| NoClient {
            reason: Reason::ConnectionInvalid,
            message: error.to_string(),
        })?;
        let status = hub.status.as_ref();
        let settings = HubSettings {
            endpoint: access.endpoint.clone(),
            rates: access.rates,
            host_name: hub.spec.host_name.clone(),
            credentials,
            call_timeout: self.call_timeout,
            guarantees: status
                .map(|status| status.guarantees.clone())
                .unwrap_or_default(),
            observer: self.observer.clone(),
        };
        Ok(HubClient::new(settings, transport, self.clock.clone()))
    }
}

/// The credentials in a hub's Secret, which must be for this hub.
fn credentials(hub: &IoTHub, access: &Access) -> Result<ConnectionString, NoClient> {
    let (name, key) = &access.secret;
    let host = &hub.spec.host_name;
    let invalid = |message| NoClient {
        reason: Reason::SecretInvalid,
        message,
    };
    let value = match &access.credentials {
        Credentials::NoSecret => {
            return Err(NoClient {
                reason: Reason::SecretMissing,
                message: format!(
                    "Secret {name} does not exist; create it with the service connection string of \
                     {host} under the key {key}"
                ),
            });
        }
        Credentials::NoKey => {
            return Err(invalid(format!(
                "Secret {name} has no key {key}; put the service connection string there"
            )));
        }
        Credentials::Found(value) => value,
    };
    let text = std::str::from_utf8(value)
        .map_err(|_| invalid(format!("{key} in Secret {name} is not text")))?;
    let credentials = ConnectionString::parse(text).map_err(|error| {
        invalid(format!(
            "{key} in Secret {name} is no connection string: {error}"
        ))
    })?;
    if credentials.host() != host {
        return Err(invalid(format!(
            "{key} in Secret {name} is for {}, not for {host}; each hub needs its own",
            credentials.host()
        )));
    }
    Ok(credentials)
}
