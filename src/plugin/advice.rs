//! The command to type next, for every reason.
//!
//! A command names the object that has to change or to be looked at. It never holds a secret.

use super::finding::Kind;
use crate::api::v1alpha1::Reason;

/// What a command may name. Fields that do not apply are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Kind of the object that the reason is about.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The registration id.
    pub registration: String,
    /// The `IoTHub` that matters.
    pub hub: String,
    /// Its host.
    pub host: String,
    /// The Enrollment.
    pub enrollment: String,
    /// The Secret that the object refers to.
    pub secret: String,
    /// Whether the Secret holds the seed of a TPM's keys.
    pub is_tpm: bool,
}

impl About {
    /// All that there is to see about the object itself.
    pub fn describe(&self) -> String {
        self.kubectl(&format!("describe {} {}", self.kind.resource(), self.name))
    }

    fn kubectl(&self, what: &str) -> String {
        format!("kubectl {what} -n {}", self.namespace)
    }

    fn explain(&self) -> String {
        match self.kind {
            Kind::DeviceRegistration => {
                self.kubectl(&format!("rehome explain {}", self.registration))
            }
            Kind::IoTHub | Kind::Enrollment => self.describe(),
        }
    }

    fn reprovision(&self, how: &str) -> String {
        match self.kind {
            Kind::DeviceRegistration => {
                self.kubectl(&format!("rehome reprovision {} {how}", self.registration))
            }
            Kind::IoTHub | Kind::Enrollment => self.describe(),
        }
    }

    fn describe_hub(&self) -> String {
        if self.hub.is_empty() && !self.host.is_empty() {
            self.kubectl(&format!(
                "get iothub --field-selector spec.hostName={}",
                self.host
            ))
        } else if self.hub.is_empty() {
            self.kubectl("get iothub")
        } else {
            self.kubectl(&format!("describe iothub {}", self.hub))
        }
    }

    fn edit_enrollment(&self) -> String {
        if self.enrollment.is_empty() {
            self.kubectl("get enr")
        } else {
            self.kubectl(&format!("edit enrollment {}", self.enrollment))
        }
    }

    /// The keys come from files, so that none is left in a shell's history.
    fn create_secret(&self) -> String {
        let name = &self.secret;
        match self.kind {
            Kind::IoTHub => self.kubectl(&format!(
                "create secret generic {name} --from-file=connectionString=FILE"
            )),
            Kind::Enrollment if self.is_tpm => {
                self.kubectl(&format!("create secret generic {name} --from-file=seed=FILE"))
            }
            Kind::Enrollment => self.kubectl(&format!(
                "create secret generic {name} --from-file=primaryKey=FILE --from-file=secondaryKey=FILE"
            )),
            Kind::DeviceRegistration => self.describe_hub(),
        }
    }

    fn edit_secret(&self) -> String {
        match self.kind {
            Kind::IoTHub | Kind::Enrollment => {
                self.kubectl(&format!("edit secret {}", self.secret))
            }
            Kind::DeviceRegistration => self.describe_hub(),
        }
    }
}

/// The command to type next.
#[expect(clippy::too_many_lines, reason = "one entry for each reason")]
pub fn next_command(reason: Reason, about: &About) -> String {
    match reason {
        Reason::Settled => match about.kind {
            Kind::IoTHub => about.kubectl(&format!(
                "get devreg --field-selector status.assignedHub={}",
                about.host
            )),
            Kind::Enrollment => about.kubectl("rehome plan -f FILE"),
            Kind::DeviceRegistration => about.explain(),
        },
        Reason::InitialAssignment
        | Reason::Adopted
        | Reason::SameHub
        | Reason::Moved
        | Reason::Reset
        | Reason::CredentialRefreshed
        | Reason::HomeFound => about.explain(),
        Reason::MigrateData | Reason::ResetData | Reason::HomeLost | Reason::CleaningUp => {
            about.kubectl(&format!("get {} {} --watch", about.kind.resource(), about.name))
        }
        Reason::PolicyNever | Reason::StickyApiVersion => {
            about.reprovision("--mode MigrateData --wait")
        }
        Reason::WantedHubUnavailable | Reason::NoHubAvailable | Reason::HubMissing => about.kubectl("get iothub"),
        Reason::NoHubs => about.kubectl("apply -f HUB.yaml"),
        Reason::MoveAborted
        | Reason::TargetRefused
        | Reason::RefusedBefore
        | Reason::TargetUnreachable
        | Reason::SourceUnreachable
        | Reason::HubUnreachable
        | Reason::HubThrottled
        | Reason::HubRefused
        | Reason::SameHubTwoNames
        | Reason::PartRefused
        | Reason::NameTaken
        | Reason::LeftBehind => about.describe_hub(),
        Reason::HubUnauthorized | Reason::SecretInvalid => about.edit_secret(),
        Reason::SecretMissing => about.create_secret(),
        Reason::SecretNotLabelled => {
            about.kubectl(&format!("label secret {} rehome.dev/attestation=true", about.secret))
        }
        Reason::DeviceIdTaken | Reason::TargetOccupied | Reason::ExistingDeviceRefused => {
            about.kubectl("get devreg -o wide")
        }
        Reason::EnrollmentDisabled => about.kubectl(&format!(
            "patch enrollment {} --type=merge -p '{{\"spec\":{{\"provisioningStatus\":\"Enabled\"}}}}'",
            about.enrollment
        )),
        Reason::EnrollmentMissing => about.kubectl("apply -f ENROLLMENT.yaml"),
        Reason::EnrollmentInvalid => {
            about.kubectl(&format!("describe enrollment {}", about.enrollment))
        }
        Reason::Deleting => about.describe(),
        Reason::HostTaken => about.kubectl(&format!("delete iothub {}", about.name)),
        Reason::SecretIsHubCredential
        | Reason::CertificateInvalid
        | Reason::EndorsementKeyInvalid
        | Reason::CertificateUnverified
        | Reason::SelectorInvalid
        | Reason::HubNotFound
        | Reason::InitialTwinInvalid => about.edit_enrollment(),
        Reason::ConnectionInvalid => about.kubectl(&format!("edit iothub {}", about.hub)),
        Reason::Conflict => about.kubectl(&format!("delete enrollment {}", about.name)),
        Reason::InUse => match about.kind {
            Kind::IoTHub => about.kubectl(&format!(
                "get devreg --field-selector status.assignedHub={}",
                about.host
            )),
            Kind::Enrollment | Kind::DeviceRegistration => about.describe(),
        },
        Reason::WorkloadStarting | Reason::WaitingForTurn => {
            about.kubectl(&format!("get iothub {} --watch", about.hub))
        }
        Reason::Unschedulable | Reason::ImageUnavailable => {
            about.kubectl(&format!("describe pod iothub-{}-0", about.hub))
        }
        Reason::WorkloadFailing => {
            about.kubectl(&format!("logs iothub-{}-0 --previous", about.hub))
        }
        Reason::VolumeFull => about.kubectl(&format!("edit pvc data-iothub-{}-0", about.hub)),
        Reason::AddressPending => about.kubectl(&format!("get service iothub-{}", about.hub)),
        Reason::IdScopeTaken | Reason::IdScopeInvalid => {
            format!("kubectl edit namespace {}", about.namespace)
        }
    }
}

/// Whether a reason tells of work that goes on by itself, rather than of an obstacle.
pub fn is_progress(reason: Reason) -> bool {
    match reason {
        Reason::Settled
        | Reason::InitialAssignment
        | Reason::Adopted
        | Reason::PolicyNever
        | Reason::StickyApiVersion
        | Reason::SameHub
        | Reason::MigrateData
        | Reason::ResetData
        | Reason::Moved
        | Reason::Reset
        | Reason::CredentialRefreshed
        | Reason::Deleting
        | Reason::HomeFound
        | Reason::HomeLost
        | Reason::WorkloadStarting
        | Reason::WaitingForTurn
        | Reason::CleaningUp => true,
        Reason::WantedHubUnavailable
        | Reason::NoHubAvailable
        | Reason::NoHubs
        | Reason::RefusedBefore
        | Reason::MoveAborted
        | Reason::TargetRefused
        | Reason::TargetOccupied
        | Reason::SameHubTwoNames
        | Reason::TargetUnreachable
        | Reason::SourceUnreachable
        | Reason::HubUnreachable
        | Reason::HubUnauthorized
        | Reason::HubThrottled
        | Reason::HubRefused
        | Reason::HubMissing
        | Reason::DeviceIdTaken
        | Reason::ExistingDeviceRefused
        | Reason::EnrollmentDisabled
        | Reason::EnrollmentMissing
        | Reason::EnrollmentInvalid
        | Reason::HostTaken
        | Reason::SecretMissing
        | Reason::SecretNotLabelled
        | Reason::SecretInvalid
        | Reason::SecretIsHubCredential
        | Reason::CertificateInvalid
        | Reason::EndorsementKeyInvalid
        | Reason::CertificateUnverified
        | Reason::ConnectionInvalid
        | Reason::LeftBehind
        | Reason::SelectorInvalid
        | Reason::Conflict
        | Reason::HubNotFound
        | Reason::InitialTwinInvalid
        | Reason::InUse
        | Reason::Unschedulable
        | Reason::ImageUnavailable
        | Reason::WorkloadFailing
        | Reason::VolumeFull
        | Reason::PartRefused
        | Reason::NameTaken
        | Reason::AddressPending
        | Reason::IdScopeTaken
        | Reason::IdScopeInvalid => false,
    }
}
