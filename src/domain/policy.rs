//! Which reprovisioning rule applies to a request.
//!
//! Behaviour of the Azure page "IoT Hub Device reprovisioning concepts", its section on backwards
//! compatibility included.

use std::fmt;

use crate::api::v1alpha1::ReprovisionPolicy;

/// The rule that decides a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Policy `MigrateData`: evaluate, move with all data.
    MigrateData,
    /// Policy `ResetData`: evaluate, start from the initial twin, on the same hub too.
    ResetData,
    /// Policy `Never`: stay.
    Never,
    /// No policy, api-version of 2018-04-01 or older: stay.
    Sticky,
    /// No policy, newer api-version: as `MigrateData`.
    Default,
}

impl Rule {
    /// The rule for an Enrollment's policy and the class of the device's api-version.
    pub fn new(policy: Option<ReprovisionPolicy>, sticky_api: bool) -> Self {
        match (policy, sticky_api) {
            (Some(ReprovisionPolicy::MigrateData), _) => Self::MigrateData,
            (Some(ReprovisionPolicy::ResetData), _) => Self::ResetData,
            (Some(ReprovisionPolicy::Never), _) => Self::Never,
            (None, true) => Self::Sticky,
            (None, false) => Self::Default,
        }
    }

    /// Whether the device stays whatever allocation says.
    pub fn stays(self) -> bool {
        matches!(self, Self::Never | Self::Sticky)
    }

    /// The word in `status.policy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MigrateData => "MigrateData",
            Self::ResetData => "ResetData",
            Self::Never => "Never",
            Self::Sticky => "Sticky",
            Self::Default => "Default",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_policy_wins_over_the_api_version() {
        for sticky in [true, false] {
            assert_eq!(
                Rule::new(Some(ReprovisionPolicy::MigrateData), sticky),
                Rule::MigrateData
            );
            assert_eq!(
                Rule::new(Some(ReprovisionPolicy::ResetData), sticky),
                Rule::ResetData
            );
            assert_eq!(
                Rule::new(Some(ReprovisionPolicy::Never), sticky),
                Rule::Never
            );
        }
    }

    #[test]
    fn without_a_policy_the_api_version_decides() {
        assert_eq!(Rule::new(None, true), Rule::Sticky);
        assert_eq!(Rule::new(None, false), Rule::Default);
        assert!(Rule::Sticky.stays() && !Rule::Default.stays());
    }
}
