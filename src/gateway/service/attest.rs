//! Which enrollment vouches for a caller.
//!
//! Order of the Azure page "DPS service concepts": the individual enrollment of that registration id
//! first, and then it alone; else the groups, of which a token does not say which one it is for. The
//! first match decides, also when it is disabled.

use std::sync::Arc;

use super::{Caller, Service};
use crate::domain::attestation::{Claim, DeviceKeys, Verdict};
use crate::domain::sas::SasToken;
use crate::gateway::error::Problem;
use crate::gateway::registrations::Registrations;
use crate::gateway::tenants::Enrolled;
use crate::wire::incidents::Incident;

/// A caller that has proved who it is.
pub(super) struct Attested {
    pub(super) namespace: String,
    pub(super) enrolled: Arc<Enrolled>,
    pub(super) keys: DeviceKeys,
}

impl<R: Registrations> Service<R> {
    pub(super) fn authenticate(&self, caller: &Caller) -> Result<Attested, Problem> {
        if !self.throttle.may_authenticate(caller.address) {
            self.metrics
                .incidents()
                .note(Incident::TooManyFailures, caller.address);
            return Err(Problem::Throttled);
        }
        let attested = self.attest(caller);
        // A key that is not there yet is not the device's failure.
        if attested
            .as_ref()
            .is_err_and(|problem| *problem != Problem::Unavailable)
        {
            self.throttle.count_failure(caller.address);
        }
        attested
    }

    fn attest(&self, caller: &Caller) -> Result<Attested, Problem> {
        let token = caller.token.as_deref().ok_or(Problem::Unauthorized(
            "the request carries no shared access signature (Authorization header or MQTT password)",
        ))?;
        let token = SasToken::parse(token)
            .map_err(|_| Problem::Unauthorized("the shared access signature is malformed"))?;
        let claim = Claim {
            token: &token,
            scope: &caller.scope,
            id: &caller.id,
            now: u64::try_from(self.clock.now().as_second()).unwrap_or_default(),
            skew: self.settings.skew,
        };
        claim.check_terms().map_err(|verdict| refusal(&verdict))?;
        let candidates = self
            .tenants
            .candidates(&caller.scope, &caller.id)
            .ok_or(Problem::NotEnrolled)?;
        let individual = candidates.individual.map(|enrolled| vec![enrolled]);
        let enrolled = individual.as_ref().unwrap_or(&candidates.groups);
        let mut outcome = Problem::NotEnrolled;
        for enrolled in enrolled {
            let Some(attestation) = self.tenants.attestation(&candidates.namespace, enrolled)
            else {
                // Its keys may be the right ones: the device is asked to come again.
                outcome = Problem::Unavailable;
                continue;
            };
            match attestation.evaluate(&claim) {
                Verdict::Accepted { keys } => {
                    let (namespace, enrolled) = (candidates.namespace, enrolled.clone());
                    return Ok(Attested {
                        namespace,
                        enrolled,
                        keys,
                    });
                }
                other if outcome == Problem::NotEnrolled => outcome = refusal(&other),
                Verdict::WrongKey | Verdict::Expired | Verdict::WrongScope => {}
            }
        }
        Err(outcome)
    }
}

fn refusal(verdict: &Verdict) -> Problem {
    match verdict {
        Verdict::WrongKey | Verdict::Accepted { .. } => Problem::WrongKey,
        Verdict::Expired => Problem::Unauthorized(
            "the shared access signature has expired; check the device's clock",
        ),
        Verdict::WrongScope => Problem::Unauthorized(
            "the shared access signature is for another ID scope or registration id",
        ),
    }
}
