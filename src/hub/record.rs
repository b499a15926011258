//! One device as the hub stores it: identity and twin, written together or not at all.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::device::Subscriptions;
use super::error::{ErrorCode, Refusal};
use super::identity::Identity;
use super::store::Stored;
use super::twin::Twin;

/// Identity and twin of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When this record was last written; later writes never carry an earlier time.
    pub written: Timestamp,
    pub identity: Identity,
    pub twin: Twin,
    /// Of a device whose MQTT session is to outlive its connection.
    #[serde(default)]
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

    /// Refuses twin writes while a move between hubs holds the device.
    pub fn refuse_if_fenced(&self, device_id: &str) -> Result<(), Refusal> {
        if self.identity.is_fenced() {
            let message = format!(
                "device '{device_id}' is being moved to another hub, and its twin cannot be \
                 written here until the move is over; ask again where the device is then"
            );
            return Err(Refusal::new(ErrorCode::GenericConflict, message));
        }
        Ok(())
    }
}
