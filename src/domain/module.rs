//! A device's modules, as a move carries them: identity and twin, within the device.

use std::fmt;

use serde_json::{Map, Value};

use super::twin::{Content, Metadata, Twin};

/// A module as its hub holds it.
#[derive(Clone, PartialEq)]
pub struct Module {
    /// Unique within the device, case-sensitive.
    pub id: String,
    /// Who manages it, where anybody said so.
    pub managed_by: Option<String>,
    /// `authentication` as the hub shows it; `None` where it does not show it.
    pub authentication: Option<Value>,
    /// Its twin.
    pub twin: Twin,
}

/// A module to be created at another hub.
#[derive(Clone, PartialEq)]
pub struct NewModule {
    /// The device, case-sensitive.
    pub device_id: String,
    /// Unique within the device, case-sensitive.
    pub id: String,
    /// Who manages it.
    pub managed_by: Option<String>,
    /// `authentication`; without it the hub makes new keys.
    pub authentication: Option<Value>,
    /// Its twin.
    pub content: Content,
    /// `$version`s of desired and reported, for hubs that carry them forward.
    pub versions: (i64, i64),
    /// `$metadata`, for hubs that carry it forward.
    pub metadata: Metadata,
    /// Created only while the device's identity has this etag, by hubs that know the condition: what
    /// arrives late then does nothing.
    pub device_etag: Option<String>,
}

impl Module {
    /// Puts a module together from what the service API says of it ("Modules - Get Identity"),
    /// where the hub shows that, and of its twin.
    pub fn new(id: &str, identity: Option<&Map<String, Value>>, twin: Twin) -> Self {
        let text = |name: &str| identity?.get(name)?.as_str().map(str::to_owned);
        Self {
            id: id.to_owned(),
            managed_by: text("managedBy"),
            authentication: identity.and_then(|it| it.get("authentication")).cloned(),
            twin,
        }
    }

    /// The same module for another hub.
    pub fn copy(&self, device_id: &str, device_etag: Option<&str>) -> NewModule {
        NewModule {
            device_id: device_id.to_owned(),
            id: self.id.clone(),
            managed_by: self.managed_by.clone(),
            authentication: self.authentication.clone(),
            content: self.twin.content.clone(),
            versions: (self.twin.desired_version, self.twin.reported_version),
            metadata: self.twin.metadata.clone(),
            device_etag: device_etag.map(str::to_owned),
        }
    }
}

/// Without the keys.
impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Without the keys.
impl fmt::Debug for NewModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewModule")
            .field("device_id", &self.device_id)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
