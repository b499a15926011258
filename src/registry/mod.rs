//! How the controller speaks to any hub: identities and twins over the IoT Hub service REST API.
//!
//! Owns requests, credentials, pacing and what an answer or its absence means. Knows no Kubernetes
//! and decides nothing: it never retries, because only the caller knows whether that is safe.

mod ask;
mod body;
mod client;
mod credentials;
mod error;
mod observer;
mod pacing;
mod transport;

pub use client::{HubClient, HubSettings};
pub use credentials::{ConnectionString, ConnectionStringError};
pub use error::{Call, Cause, HubError};
pub use observer::CallObserver;
pub use pacing::Rates;
pub use transport::{HttpTransport, Route, Transport, TransportError, TransportSetupError};

use crate::domain::identity::Mark;

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
    /// Whether it says that it has no room for a write: it answers reads only.
    pub is_store_full: bool,
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
