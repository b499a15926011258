//! How the controller speaks to any hub: identities and twins over the IoT Hub service REST API.
//!
//! Owns requests, credentials, pacing and what an answer or its absence means. Knows no Kubernetes
//! and decides nothing: it never retries, because only the caller knows whether that is safe.

mod body;
mod client;
mod credentials;
mod error;
mod pacing;
mod transport;

pub use client::{HubClient, HubSettings};
pub use credentials::{ConnectionString, ConnectionStringError};
pub use error::{Call, Cause, HubError};
pub use pacing::Rates;
pub use transport::{HttpTransport, Transport, TransportError, TransportSetupError};

use crate::domain::attestation::DeviceKeys;
use crate::domain::identity::Mark;
use crate::domain::twin::{Content, Metadata};

/// An identity to be created together with its twin.
#[derive(Clone, Debug)]
pub struct NewIdentity {
    /// Device id.
    pub device_id: String,
    /// Whether the device may connect at once. A create from a dead attempt must be inert, so the
    /// controller always creates disabled.
    pub enabled: bool,
    /// `statusReason`: our mark.
    pub reason: String,
    /// Keys derived from the attestation.
    pub keys: DeviceKeys,
    /// Whether the device is an IoT Edge device.
    pub iot_edge: bool,
    /// The twin that it starts with.
    pub twin: NewTwin,
}

/// The twin of a new identity.
#[derive(Clone, Debug, Default)]
pub struct NewTwin {
    /// Tags, desired and reported.
    pub content: Content,
    /// Versions to go on from, on hubs that guarantee `versions`; others start at 1.
    pub versions: Option<Versions>,
    /// Change times to keep, sent together with `versions`.
    pub metadata: Metadata,
}

/// `$version` of the two sections that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of desired.
    pub desired: i64,
    /// Of reported.
    pub reported: i64,
}

/// What an update changes; everything else of the identity is sent back as it was read.
#[derive(Clone, Debug)]
pub struct IdentityChange {
    /// Whether the device may connect.
    pub enabled: bool,
    /// `statusReason`.
    pub reason: Option<String>,
    /// New keys; `None` leaves the credentials as they are.
    pub keys: Option<DeviceKeys>,
}

/// How a create ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Created, and the hub named what it made.
    New {
        /// Generation id of the new identity.
        generation_id: String,
        /// Its etag, for If-Match.
        etag: String,
    },
    /// Created by a hub that does not name what it made: read it before using it.
    NewUnstamped,
    /// The identity was created and its twin was not (Azure's `DeviceRegisteredWithoutTwin`).
    WithoutTwin,
    /// The hub has a device of that id already; nothing was written.
    AlreadyExists,
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The identity of that etag is gone now.
    Gone,
    /// There was none.
    WasAbsent,
}

/// What a hub says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFacts {
    /// What it guarantees beyond Azure's API; empty for Azure's own hubs.
    pub guarantees: Vec<String>,
    /// Devices it holds; lags behind on Azure.
    pub device_count: u64,
    /// Most devices it takes, when it says so.
    pub max_device_count: Option<u64>,
}

/// A disabled identity that carries a mark of ours. A query's answer may be old: read it again
/// before acting on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedIdentity {
    /// Device id.
    pub device_id: String,
    /// The mark.
    pub mark: Mark,
}
