//! What a device is enrolled for. Each kind of device leads every life with a device of its own.

use std::fmt;

use serde_json::{Value, json};

use super::expectation::Variant;

/// One of the lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Life {
    Migrating,
    Resetting,
    Staying,
    WithoutPolicy,
    Disabled,
    Impostor,
    Throttled,
    Restarted,
}

/// Where devices live at first; where they are moved to; and the hub that is slow when asked to be.
pub(crate) const HUBS: [&str; 3] = ["hub-west", "hub-east", "hub-north"];

impl Life {
    pub(crate) const ALL: [Self; 8] = [
        Self::Migrating,
        Self::Resetting,
        Self::Staying,
        Self::WithoutPolicy,
        Self::Disabled,
        Self::Impostor,
        Self::Throttled,
        Self::Restarted,
    ];

    /// Lives whose Enrollment is given another hub.
    pub(crate) const MOVED: [Self; 3] = [Self::Migrating, Self::Staying, Self::WithoutPolicy];

    pub(crate) fn registration_id(self, variant: Variant<'_>) -> String {
        format!("{variant}-{self}")
    }

    /// The name of the Enrollment: the device's own, or that of a group.
    pub(crate) fn enrollment(self, variant: Variant<'_>) -> String {
        if variant.attestation.is_group() {
            format!("{}-{self}", variant.attestation)
        } else {
            self.registration_id(variant)
        }
    }

    /// The Enrollment of a device or of its group, which is told this of credentials.
    pub(crate) fn manifest(self, variant: Variant<'_>, attestation: &Value) -> Value {
        let name = self.enrollment(variant);
        let mut spec = json!({
            "attestation": attestation,
            "allocation": { "policy": "Static", "hubs": [self.first_hub()] },
            "initialTwin": { "properties": { "desired": { "interval": 60 } } },
        });
        if variant.attestation.is_group() {
            spec["group"] = json!({});
        } else {
            spec["individual"] = json!({ "registrationId": self.registration_id(variant) });
        }
        if let Some(policy) = self.policy() {
            spec["reprovisionPolicy"] = policy.into();
        }
        if self == Self::Disabled {
            spec["provisioningStatus"] = "Disabled".into();
        }
        json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": name }, "spec": spec,
        })
    }

    /// The hub that its Enrollment names first.
    pub(crate) fn first_hub(self) -> &'static str {
        match self {
            Self::Restarted => HUBS[2],
            Self::Migrating
            | Self::Resetting
            | Self::Staying
            | Self::WithoutPolicy
            | Self::Disabled
            | Self::Impostor
            | Self::Throttled => HUBS[0],
        }
    }

    fn policy(self) -> Option<&'static str> {
        match self {
            Self::Migrating
            | Self::Disabled
            | Self::Impostor
            | Self::Throttled
            | Self::Restarted => Some("MigrateData"),
            Self::Resetting => Some("ResetData"),
            Self::Staying => Some("Never"),
            Self::WithoutPolicy => None,
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Migrating => "migrating",
            Self::Resetting => "resetting",
            Self::Staying => "staying",
            Self::WithoutPolicy => "without-policy",
            Self::Disabled => "disabled",
            Self::Impostor => "impostor",
            Self::Throttled => "throttled",
            Self::Restarted => "restarted",
        })
    }
}
