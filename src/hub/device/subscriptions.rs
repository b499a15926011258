//! What a device is subscribed to.

use serde::{Deserialize, Serialize};

/// The topics that this hub serves; kept with the device where its session is to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscriptions {
    /// Answers to its own twin requests.
    pub twin_responses: bool,
    /// Changes of desired properties, at this QoS.
    pub desired_qos: Option<u8>,
}
