//! One registration record as the gateway keeps it: what an answer or a decision may need, and no
//! more, because every replica holds one for each device.

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::v1alpha1::{
    DeviceRegistration, HubRef, PastOperation, RegistrationRequest, RegistrationState, Substatus,
};

/// A `DeviceRegistration`, without what only the controller needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Name of the object.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// Version that this was read at.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When the object was created.
    pub created: Timestamp,
    /// The last accepted request.
    pub request: Option<RegistrationRequest>,
    /// State of the operation in `operation_id`.
    pub state: Option<RegistrationState>,
    pub substatus: Option<Substatus>,
    pub assigned_hub: Option<String>,
    pub device_id: Option<String>,
    /// The home, as it was when recorded.
    pub home: Option<HubRef>,
    /// Operation that the status answers.
    pub operation_id: Option<String>,
    /// Rule that decided last.
    pub policy: Option<String>,
    pub placement_hash: Option<String>,
    /// Whether a move is open: then no answer names a hub.
    pub moving: bool,
    /// Uids of hubs that must not be chosen.
    pub cleanup: Vec<String>,
    pub error_code: Option<i32>,
    pub error_message: Option<String>,
    pub history: Vec<PastOperation>,
    pub assigned_first: Option<Timestamp>,
    pub last_changed: Option<Timestamp>,
    pub home_checked: Option<Timestamp>,
}

impl From<DeviceRegistration> for Record {
    fn from(object: DeviceRegistration) -> Self {
        let name = object.name_any();
        let metadata = object.metadata;
        let status = object.status.unwrap_or_default();
        Self {
            name,
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            created: metadata
                .creation_timestamp
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            request: object.spec.request,
            state: status.state,
            substatus: status.substatus,
            assigned_hub: status.assigned_hub,
            device_id: status.device_id,
            home: status.home,
            operation_id: status.operation_id,
            policy: status.policy,
            placement_hash: status.placement_hash,
            moving: status.transfer.is_some(),
            cleanup: status.cleanup.into_iter().map(|entry| entry.uid).collect(),
            error_code: status.error_code,
            error_message: status.error_message,
            history: status.history,
            assigned_first: status.created_at.map(|time| time.0),
            last_changed: status.last_changed.map(|time| time.0),
            home_checked: status.home_checked_at.map(|time| time.0),
        }
    }
}

impl Record {
    /// The operation that is under way, if one is: requested and not taken up yet, or taken up and
    /// not over.
    pub fn open_operation(&self) -> Option<&str> {
        let request = self.request.as_ref()?;
        (!self.is_settled()).then_some(request.operation_id.as_str())
    }

    /// Whether the last request is answered and nothing is under way.
    pub fn is_settled(&self) -> bool {
        let requested = self.request.as_ref().map(|request| &request.operation_id);
        let terminal = self
            .state
            .is_some_and(|state| state != RegistrationState::Assigning);
        requested.is_some() && requested == self.operation_id.as_ref() && terminal && !self.moving
    }

    /// Whether this was written after `other`, which is about the same object name. Versions of one
    /// object are increasing integers.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let version = |record: &Self| record.resource_version.parse::<u64>().ok();
        match (version(self), version(other)) {
            (Some(mine), Some(theirs)) => mine > theirs,
            _ => true,
        }
    }
}
