//! Device identities: who may connect, with which credential, and whether at all.
//!
//! Pure: a request body becomes an [`IdentityWrite`] or a refusal; the hub decides when it applies.

mod body;
mod keys;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::identity::Mark;

pub(super) use body::{IdentityBody, ModuleBody};
pub use body::{IdentityWrite, ModuleWrite};
pub use keys::{Key, SymmetricKeys};

/// The identity of one device, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// New with every (re-)creation, on any hub.
    pub generation_id: String,
    /// What its etag is made of.
    pub serial: u64,
    pub enabled: bool,
    pub status_reason: Option<String>,
    pub status_updated: Option<Timestamp>,
    pub authentication: Authentication,
    pub iot_edge: bool,
}

/// How a device proves who it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Authentication {
    Sas(SymmetricKeys),
    SelfSigned {
        primary: Option<String>,
        secondary: Option<String>,
    },
    CertificateAuthority,
}

impl Identity {
    /// Whether a move holds this device: nobody may write to its twin, so that what the move has
    /// read stays true.
    pub fn is_fenced(&self) -> bool {
        !self.enabled
            && self
                .status_reason
                .as_deref()
                .is_some_and(|it| it.starts_with(Mark::PREFIX))
    }
}

impl Authentication {
    /// As the service API names it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sas(_) => "sas",
            Self::SelfSigned { .. } => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
        }
    }
}
