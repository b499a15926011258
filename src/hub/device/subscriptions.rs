//! What a device or module is subscribed to.

use serde::{Deserialize, Serialize};

use crate::wire::mqtt::Qos;

/// Kept with its owner where the session is to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscriptions {
    /// Answers to its own twin requests.
    pub twin_responses: bool,
    /// Changes of desired properties, at this QoS.
    pub desired_qos: Option<u8>,
    /// Method calls, at this QoS.
    pub methods_qos: Option<u8>,
    /// Messages to the device, at this QoS.
    pub messages_qos: Option<u8>,
}

/// As stored, and as MQTT names it.
pub(super) fn qos(stored: Option<u8>) -> Option<Qos> {
    stored.map(|qos| match qos {
        0 => Qos::AtMostOnce,
        _ => Qos::AtLeastOnce,
    })
}
