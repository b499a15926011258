//! Condition types and the reasons that conditions, events and metrics share.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Type of a status condition, kstatus-compatible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The object is as its spec wants it.
    Ready,
    /// Work on the object is under way.
    Reconciling,
    /// The spec cannot be carried out until a person changes something.
    Stalled,
    /// Hub only: the service endpoint answers.
    Reachable,
    /// Hub only: the hub accepts the credentials and they grant what is needed.
    CredentialsValid,
    /// Managed hub only: its pod runs and is ready.
    WorkloadReady,
    /// Managed hub only: the hub has a certificate for its host name.
    CertificateReady,
    /// Managed hub only: the hub has a Service, and the Service the address that it asks for.
    ServiceReady,
}

impl ConditionType {
    /// The name as it stands in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Reachable => "Reachable",
            Self::CredentialsValid => "CredentialsValid",
            Self::WorkloadReady => "WorkloadReady",
            Self::CertificateReady => "CertificateReady",
            Self::ServiceReady => "ServiceReady",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident),+ $(,)?) => {
        /// Why a decision was taken. The same word stands in the condition, the event and the
        /// metric label, and never changes once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $meaning])+ $name),+ }

        impl Reason {
            /// Every reason, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The `CamelCase` word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// What it means, in a sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+).trim_ascii_start()),+ }
            }

            /// The reason that is written like this.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
            }
        }
    };
}

reasons! {
    /// Nothing is wanted that is not so.
    Settled,
    /// First assignment: the hub that allocation chose.
    InitialAssignment,
    /// The identity existed at the hub before this registration and was taken over.
    Adopted,
    /// The policy keeps the device where it is.
    PolicyNever,
    /// No policy and a device api-version of 2018-04-01 or older: the device stays.
    StickyApiVersion,
    /// Allocation chose the hub where the device already lives.
    SameHub,
    /// The device moves to another hub with its twin.
    MigrateData,
    /// The device moves to another hub, or stays, and starts from the initial twin.
    ResetData,
    /// The hub that allocation wants cannot take devices now; the device stays.
    WantedHubUnavailable,
    /// No member hub can take the device now.
    NoHubAvailable,
    /// The Enrollment names no hub and the namespace has none.
    NoHubs,
    /// A move to this hub was refused for the same placement; it is tried again later.
    RefusedBefore,
    /// The device was moved and lives at the target now.
    Moved,
    /// The device was reset to its initial twin.
    Reset,
    /// The hub credential was renewed to what the device attested.
    CredentialRefreshed,
    /// The move was given up; the device lives where it was.
    MoveAborted,
    /// The target hub refuses the device for good.
    TargetRefused,
    /// The target hub already holds a device of this id that is not ours.
    TargetOccupied,
    /// Two `IoTHub`s lead to one hub.
    SameHubTwoNames,
    /// The target hub does not answer.
    TargetUnreachable,
    /// The source hub does not answer.
    SourceUnreachable,
    /// A hub that is needed does not answer.
    HubUnreachable,
    /// A hub refuses the operator's credentials.
    HubUnauthorized,
    /// A hub asks to slow down.
    HubThrottled,
    /// A hub refuses the request.
    HubRefused,
    /// An `IoTHub` that the registration refers to does not exist.
    HubMissing,
    /// Another registration owns this device id at the hub.
    DeviceIdTaken,
    /// The hub holds a device of this id and `existingDevices` is `Refuse`.
    ExistingDeviceRefused,
    /// The Enrollment is disabled.
    EnrollmentDisabled,
    /// The Enrollment does not exist any more.
    EnrollmentMissing,
    /// The Enrollment cannot be used; its own conditions say why.
    EnrollmentInvalid,
    /// The registration is being deleted.
    Deleting,
    /// The device was looked for at every hub of the namespace and found.
    HomeFound,
    /// The device vanished from every hub and is created anew.
    HomeLost,
    /// What may be left at former hubs is being removed.
    CleaningUp,
    /// Hub: another `IoTHub` claims the same host.
    HostTaken,
    /// A Secret does not exist.
    SecretMissing,
    /// A Secret lacks the label that allows its use.
    SecretNotLabelled,
    /// A Secret does not hold what the spec says.
    SecretInvalid,
    /// A Secret serves an `IoTHub` and may not serve attestation too.
    SecretIsHubCredential,
    /// A certificate of the Enrollment, or of a managed hub, cannot be used.
    CertificateInvalid,
    /// The endorsement key of the Enrollment cannot be read.
    EndorsementKeyInvalid,
    /// Possession of an authority's key is not proven.
    CertificateUnverified,
    /// Hub: the connection cannot be set up as the spec says.
    ConnectionInvalid,
    /// Something of the device may be left at a hub.
    LeftBehind,
    /// The label selector of the hubs cannot be read.
    SelectorInvalid,
    /// Another individual Enrollment for the registration id is older.
    Conflict,
    /// A hub named by the Enrollment does not exist.
    HubNotFound,
    /// The initial twin breaks the hub's rules.
    InitialTwinInvalid,
    /// Objects refer to this one; it goes when they are gone.
    InUse,
    /// Another namespace, which is older, claims this ID scope.
    IdScopeTaken,
    /// What the namespace claims is no ID scope.
    IdScopeInvalid,
    /// Managed hub: its pod is not ready yet.
    WorkloadStarting,
    /// Managed hub: its pod waits until another hub has restarted and is ready.
    WaitingForTurn,
    /// Managed hub: no node takes its pod, or its volume is not there.
    Unschedulable,
    /// Managed hub: the image of its pod cannot be had.
    ImageUnavailable,
    /// Managed hub: its pod cannot start, or ends again and again.
    WorkloadFailing,
    /// Managed hub: its volume is full.
    VolumeFull,
    /// Managed hub: the API server refuses one of its objects.
    PartRefused,
    /// Managed hub: an object of the name that it needs is not its own.
    NameTaken,
    /// Managed hub: no load balancer has given its Service an address.
    AddressPending,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the condition of that type is `True`.
pub fn is_true(conditions: &[Condition], type_: ConditionType) -> bool {
    conditions
        .iter()
        .any(|known| known.type_ == type_.as_str() && known.status == "True")
}

/// Puts `next` among `conditions`, keeping the transition time while its status holds.
pub fn settle(conditions: &mut Vec<Condition>, mut next: Condition) {
    match conditions
        .iter_mut()
        .find(|known| known.type_ == next.type_)
    {
        Some(known) => {
            if known.status == next.status {
                next.last_transition_time = known.last_transition_time.clone();
            }
            *known = next;
        }
        None => conditions.push(next),
    }
}
