//! Who connects to a hub, and whose twin something is: a device, or one of its modules.

use std::fmt;

use crate::domain::ids::{DeviceId, ModuleId};

/// A device or one of its modules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub device: DeviceId,
    /// `None`: the device itself.
    pub module: Option<ModuleId>,
}

impl Client {
    /// The module's id, where it is a module.
    pub fn module(&self) -> Option<&str> {
        self.module.as_ref().map(ModuleId::as_str)
    }

    /// The resource that its tokens are for, behind the host name.
    pub fn resource(&self) -> String {
        match &self.module {
            Some(module) => format!("/devices/{}/modules/{module}", self.device),
            None => format!("/devices/{}", self.device),
        }
    }
}

impl From<&DeviceId> for Client {
    fn from(device: &DeviceId) -> Self {
        Self {
            device: device.clone(),
            module: None,
        }
    }
}

/// As an MQTT client id names it, and the common name of its certificate.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            Some(module) => write!(f, "{}/{module}", self.device),
            None => write!(f, "{}", self.device),
        }
    }
}
