//! The terms on which a registration is decided, and whether a record was decided on the same.

use super::allocation::Pool;
use super::policy::Rule;
use crate::api::v1alpha1::RegistrationState;

/// What decides about a device apart from what it says itself.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Whether the Enrollment refuses registrations.
    pub disabled: bool,
    /// The rule that applies to the device.
    pub rule: Rule,
    /// Where the Enrollment may place it.
    pub pool: &'a Pool,
}

impl Terms<'_> {
    /// Whether a record in that state, with that policy and those placement inputs, was decided on
    /// these terms.
    pub fn decided(
        &self,
        state: Option<RegistrationState>,
        policy: Option<&str>,
        placement_hash: Option<&str>,
    ) -> bool {
        match state {
            Some(RegistrationState::Assigned) => {
                !self.disabled
                    && placement_hash == Some(self.pool.hash().as_str())
                    && policy == Some(self.rule.as_str())
            }
            Some(RegistrationState::Disabled) => self.disabled,
            Some(RegistrationState::Failed) => !self.disabled,
            Some(RegistrationState::Assigning) | None => false,
        }
    }

    /// Whether a record in that state, which was decided on these terms and is settled, answers the
    /// same question once more.
    pub fn repeat(&self, state: Option<RegistrationState>) -> bool {
        match state {
            // A reset is asked for by every registration.
            Some(RegistrationState::Assigned) => self.rule != Rule::ResetData,
            Some(RegistrationState::Disabled) => true,
            Some(RegistrationState::Failed | RegistrationState::Assigning) | None => false,
        }
    }
}
