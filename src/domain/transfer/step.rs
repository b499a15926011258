//! What a decision can ask for.

use jiff::SignedDuration;
use serde_json::{Map, Value};

use crate::api::v1alpha1::{DeviceRegistrationStatus, HubRef, Reason};
use crate::domain::identity::{IdentityChange, NewIdentity};
use crate::domain::module::NewModule;

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read something of a hub, then decide again.
    Look(Look),
    /// One effect at a hub, then decide again.
    Effect(Box<Effect>),
    /// Write the status, then decide again.
    Record(Box<Record>),
    /// Let the object go: nothing of it is left at any hub, or it cannot be helped.
    Release {
        /// What people should know, when something was left behind.
        warning: Option<String>,
    },
    /// Nothing can be done now; the reason is shown.
    Wait(Wait),
    /// Everything is as it should be.
    Settled,
}

/// Something to read.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// The identity at a hub.
    Identity(HubRef),
    /// The twin at a hub.
    Twin(HubRef),
    /// Whether a hub can take another device.
    Room(HubRef),
    /// Which modules the device has at a hub.
    Modules(HubRef),
    /// One module at a hub, with its twin.
    Module(HubRef, String),
}

impl Look {
    /// The hub that is asked.
    pub fn hub(&self) -> &HubRef {
        match self {
            Self::Identity(hub)
            | Self::Twin(hub)
            | Self::Room(hub)
            | Self::Modules(hub)
            | Self::Module(hub, _) => hub,
        }
    }
}

/// Something to do at a hub.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The hub.
    pub hub: HubRef,
    /// What to do there.
    pub call: Call,
    /// Whether it is sent only if the status, read live after the hub was read, is still the one
    /// that was decided on. Inert effects and those of a transfer that is already committed or
    /// aborting do without.
    pub needs_live_status: bool,
}

/// A change at a hub. Updates and deletes carry the etag of the identity that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Create the identity, disabled, with its twin.
    Create(Box<NewIdentity>),
    /// Create a module, with its twin, of the device whose identity was looked at.
    CreateModule(Box<NewModule>),
    /// Change the identity that was looked at.
    Update(IdentityChange),
    /// Delete the identity that was looked at.
    Delete,
    /// Replace tags and desired properties of the twin that was looked at.
    WriteTwin {
        /// Tags.
        tags: Map<String, Value>,
        /// Desired properties.
        desired: Map<String, Value>,
    },
}

/// A status to write, and what to tell people about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The whole status; conditions are added by the reporter.
    pub status: DeviceRegistrationStatus,
    /// How the object stands.
    pub standing: Standing,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Whether the transition is worth an Event, and of which kind.
    pub event: Option<EventKind>,
}

/// How an object stands after a decision; gives the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready.
    Ready,
    /// Being worked on.
    Working,
    /// Waiting for a person.
    Blocked,
}

/// Kind of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something went as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// A pause with a reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Why.
    pub reason: Reason,
    /// For people; the same text for the same cause, so that waiting writes once.
    pub message: String,
    /// When to look again; `None` leaves it to the caller's backoff.
    pub after: Option<SignedDuration>,
    /// Whether it shows in the conditions. Quiet waits are part of ordinary work.
    pub quiet: bool,
}

impl Step {
    /// The same step; a wait does not show.
    #[must_use]
    pub fn hushed(self) -> Self {
        if let Self::Wait(wait) = self {
            Self::Wait(Wait {
                quiet: true,
                ..wait
            })
        } else {
            self
        }
    }
}

impl Wait {
    /// Waits with the caller's backoff and shows why.
    pub fn because(reason: Reason, message: impl Into<String>) -> Step {
        Step::Wait(Self {
            reason,
            message: message.into(),
            after: None,
            quiet: false,
        })
    }

    /// Waits that long without a word.
    pub fn quietly(reason: Reason, after: SignedDuration) -> Step {
        Step::Wait(Self {
            reason,
            message: String::new(),
            after: Some(after),
            quiet: true,
        })
    }
}

impl Effect {
    /// An effect that must rest on the live status.
    pub fn live(hub: &HubRef, call: Call) -> Step {
        Step::Effect(Box::new(Self {
            hub: hub.clone(),
            call,
            needs_live_status: true,
        }))
    }

    /// An effect that may rest on a cached status.
    pub fn cached(hub: &HubRef, call: Call) -> Step {
        Step::Effect(Box::new(Self {
            hub: hub.clone(),
            call,
            needs_live_status: false,
        }))
    }
}
