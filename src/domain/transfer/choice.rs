//! What is to become of a device that has a home: stay, move, or start afresh where it is.
//!
//! The controller asks when a request or a trigger is to be answered; whoever wants to know
//! beforehand asks the same.

use jiff::Timestamp;

use super::facts::HubFacts;
use crate::api::v1alpha1::{
    DeviceRegistrationStatus, HubRef, Reason, ReprovisionPolicy, ReprovisionTrigger, TransferData,
};
use crate::domain::allocation::{Placement, Pool};
use crate::domain::policy::Rule;

/// Everything that the choice depends on.
pub struct Question<'a> {
    /// Registration id, in any spelling.
    pub registration_id: &'a str,
    /// Where the device lives.
    pub home: &'a HubRef,
    /// What its record remembers.
    pub status: &'a DeviceRegistrationStatus,
    /// Policy of the Enrollment.
    pub policy: Option<ReprovisionPolicy>,
    /// Whether the api-version of the last request is sticky.
    pub sticky_api: bool,
    /// Where the Enrollment's devices may live.
    pub pool: &'a Pool,
    /// The operator's wish, when that is what asks.
    pub trigger: Option<&'a ReprovisionTrigger>,
    /// Every hub of the namespace.
    pub hubs: &'a [HubFacts],
    /// Now.
    pub now: Timestamp,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// The device stays as it is.
    Stay {
        /// Why.
        reason: Reason,
        /// Whether the answer holds until the placement inputs change.
        settled: bool,
    },
    /// The device goes to a hub; to its own for a reset in place.
    Go {
        /// The hub.
        to: HubRef,
        /// Which twin it gets.
        data: TransferData,
        /// Placement inputs that count as evaluated afterwards.
        placement_hash: String,
    },
    /// The hub that the trigger names cannot be had now.
    Wait {
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
    },
}

impl Question<'_> {
    /// The rule that decides: the trigger's, or the policy's.
    pub fn rule(&self) -> Rule {
        let forced = self
            .trigger
            .and_then(|trigger| trigger.mode.forced_policy());
        Rule::new(forced.or(self.policy), self.sticky_api)
    }

    /// Chooses.
    #[must_use]
    pub fn choose(&self) -> Choice {
        let rule = self.rule();
        if rule.stays() {
            let reason = if rule == Rule::Never {
                Reason::PolicyNever
            } else {
                Reason::StickyApiVersion
            };
            return Choice::Stay {
                reason,
                settled: true,
            };
        }
        let placement = match self.placement() {
            Ok(placement) => placement,
            Err(wait) => return wait,
        };
        let data = if rule == Rule::ResetData {
            TransferData::Initial
        } else {
            TransferData::Migrate
        };
        match placement {
            Placement::Go(to) if self.trigger.is_none() && self.was_refused(&to) => Choice::Stay {
                reason: Reason::RefusedBefore,
                settled: false,
            },
            Placement::Go(to) => Choice::Go {
                to,
                data,
                placement_hash: self.pool.hash(),
            },
            Placement::Stay { settled, .. } if data == TransferData::Initial => {
                // A hub that is wanted but not available is asked for again at the next request.
                let evaluated = if settled {
                    Some(self.pool.hash())
                } else {
                    self.status.placement_hash.clone()
                };
                Choice::Go {
                    to: self.home.clone(),
                    data,
                    placement_hash: evaluated.unwrap_or_default(),
                }
            }
            Placement::Stay { reason, settled } => Choice::Stay { reason, settled },
            Placement::Nowhere(reason) => Choice::Stay {
                reason,
                settled: false,
            },
        }
    }

    fn placement(&self) -> Result<Placement, Choice> {
        let (id, home) = (self.registration_id, self.home);
        let taken = |hub: &HubRef| self.is_in_cleanup(hub);
        Ok(match self.trigger {
            Some(ReprovisionTrigger {
                hub: Some(name), ..
            }) => self.named(name)?,
            Some(trigger) if trigger.mode.forced_policy().is_some() => {
                self.pool.place(id, Some(home), taken)
            }
            _ => {
                let evaluated_with = self.status.placement_hash.as_deref();
                self.pool.replace(id, home, evaluated_with, taken)
            }
        })
    }

    /// The hub that a trigger names.
    fn named(&self, name: &str) -> Result<Placement, Choice> {
        let Some(known) = self.hubs.iter().find(|known| known.hub.name == name) else {
            return Err(Choice::Wait {
                reason: Reason::HubNotFound,
                message: format!("spec.reprovision.hub names IoTHub {name}, which does not exist"),
            });
        };
        if known.hub.uid == self.home.uid {
            return Ok(Placement::Stay {
                reason: Reason::SameHub,
                settled: true,
            });
        }
        if !known.ready || self.is_in_cleanup(&known.hub) {
            return Err(Choice::Wait {
                reason: Reason::WantedHubUnavailable,
                message: format!("waiting for IoTHub {name}, which cannot take the device now"),
            });
        }
        Ok(Placement::Go(known.hub.clone()))
    }

    fn is_in_cleanup(&self, hub: &HubRef) -> bool {
        self.status.cleanup.iter().any(|entry| entry.uid == hub.uid)
    }

    fn was_refused(&self, to: &HubRef) -> bool {
        self.status.refused.as_ref().is_some_and(|refused| {
            refused.host_name == to.host_name
                && refused.placement_hash == self.pool.hash()
                && self.now < refused.until.0
        })
    }
}
