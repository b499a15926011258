//! One device as the hub stores it: identity, twin, modules and waiting messages, written together
//! or not at all. So a fence holds all twins of a device at once, and nothing of a deleted device
//! is left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::device::Subscriptions;
use super::error::{ErrorCode, Refusal};
use super::identity::{Authentication, Identity};
use super::messages::Message;
use super::store::Stored;
use super::twin::Twin;

/// Identity and twin of one device, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When this record was last written; later writes never carry an earlier time.
    pub written: Timestamp,
    pub identity: Identity,
    pub twin: Twin,
    /// Of a device whose MQTT session is to outlive its connection.
    #[serde(default)]
    pub subscriptions: Subscriptions,
    /// By their ids.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, Module>,
    /// Messages that the device has not acknowledged, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub messages: VecDeque<Message>,
}

/// A module: an identity and a twin within a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// New with every (re-)creation, on any hub.
    pub generation_id: String,
    /// What its etag is made of.
    pub serial: u64,
    pub managed_by: Option<String>,
    pub authentication: Authentication,
    pub twin: Twin,
    #[serde(default)]
    pub subscriptions: Subscriptions,
}

/// What a connection of a device or module rests on.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// Whether it may connect at all.
    pub enabled: bool,
    pub generation_id: &'a str,
    pub authentication: &'a Authentication,
    pub twin: &'a Twin,
    pub subscriptions: Subscriptions,
}

impl Record {
    pub(super) fn encode(&self, revision: u64) -> Result<Stored, Refusal> {
        let body = serde_json::to_vec(self).map_err(|why| {
            Refusal::new(
                ErrorCode::ServerError,
                format!("the device cannot be encoded: {why}"),
            )
        })?;
        Ok(Stored {
            revision,
            enabled: self.identity.enabled,
            body: Bytes::from(body),
        })
    }

    pub(super) fn decode(device_id: &str, stored: &Stored) -> Result<Arc<Self>, Refusal> {
        serde_json::from_slice(&stored.body)
            .map(Arc::new)
            .map_err(|why| {
                let message = format!("the stored device '{device_id}' cannot be read: {why}");
                Refusal::new(ErrorCode::ServerError, message)
            })
    }

    /// The device itself (`None`), or a module of it.
    pub fn party(&self, module: Option<&str>) -> Option<Party<'_>> {
        let enabled = self.identity.enabled;
        Some(match module {
            None => Party {
                enabled,
                generation_id: &self.identity.generation_id,
                authentication: &self.identity.authentication,
                twin: &self.twin,
                subscriptions: self.subscriptions,
            },
            Some(module) => {
                let module = self.modules.get(module)?;
                Party {
                    enabled,
                    generation_id: &module.generation_id,
                    authentication: &module.authentication,
                    twin: &module.twin,
                    subscriptions: module.subscriptions,
                }
            }
        })
    }

    /// The twin of the device itself (`None`), or of a module.
    pub fn twin_mut(&mut self, module: Option<&str>) -> Option<&mut Twin> {
        match module {
            None => Some(&mut self.twin),
            Some(module) => self.modules.get_mut(module).map(|it| &mut it.twin),
        }
    }

    /// The subscriptions of the device itself (`None`), or of a module.
    pub fn subscriptions_mut(&mut self, module: Option<&str>) -> Option<&mut Subscriptions> {
        match module {
            None => Some(&mut self.subscriptions),
            Some(module) => self.modules.get_mut(module).map(|it| &mut it.subscriptions),
        }
    }

    /// Refuses twin writes while a move between hubs holds the device.
    pub fn refuse_if_fenced(&self, device_id: &str) -> Result<(), Refusal> {
        if self.identity.is_fenced() {
            let message = format!(
                "device '{device_id}' is being moved to another hub, and nothing of it can be \
                 written here until the move is over; ask again where the device is then"
            );
            return Err(Refusal::new(ErrorCode::GenericConflict, message));
        }
        Ok(())
    }
}
