//! The rules of the protocol that live in the applier, and their switches. Only a test build can
//! turn one: elsewhere every answer is a constant.

use super::Pass;
use crate::domain::identity::Identity;
use crate::domain::transfer::Mutant;

impl Pass {
    /// Dangerous effects rest on the cached status.
    pub(super) fn breaks_live_read(&self) -> bool {
        self.has(Mutant::NoLiveRead)
    }

    /// A twin that was read before a write to its identity still counts.
    pub(super) fn keeps_twin_views(&self) -> bool {
        self.has(Mutant::NoReadAgain)
    }

    /// The target of a move is enabled as soon as it is created.
    pub(super) fn creates_enabled(&self) -> bool {
        self.has(Mutant::CreateEnabled)
    }

    /// The identity with the etag that goes into If-Match.
    pub(super) fn with_its_etag(&self, mut identity: Identity) -> Identity {
        if self.has(Mutant::NoIfMatch) {
            "*".clone_into(&mut identity.etag);
        }
        identity
    }

    #[cfg(feature = "mutants")]
    fn has(&self, mutant: Mutant) -> bool {
        self.ctx.mutant == Some(mutant)
    }

    #[cfg(not(feature = "mutants"))]
    fn has(&self, _: Mutant) -> bool {
        false
    }
}
