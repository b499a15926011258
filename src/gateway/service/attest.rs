//! Which enrollment vouches for a caller.
//!
//! Order of the Azure pages "DPS service concepts" and "X.509 certificate attestation": the individual
//! enrollment of that registration id first, and then it alone, whatever its attestation; else the
//! groups. A token does not say which group it is for: every group with keys is tried. A certificate
//! does: from the leaf to the root, the first authority that a group names decides. The first match
//! decides, also when it is disabled. A caller with a token and a certificate is judged by its token,
//! unless its individual enrollment takes certificates.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Caller, Service};
use crate::domain::attestation::x509::{Chain, X509, closest_issuer};
use crate::domain::attestation::{Attestation, Claim, DeviceCredential, Refusal};
use crate::domain::sas::SasToken;
use crate::gateway::error::Problem;
use crate::gateway::registrations::Registrations;
use crate::gateway::tenants::Enrolled;
use crate::wire::incidents::Incident;

/// A caller that has proved who it is.
pub(super) struct Attested {
    pub(super) namespace: String,
    pub(super) enrolled: Arc<Enrolled>,
    pub(super) credential: DeviceCredential,
}

/// An enrollment, and what it attested.
type Found = (Arc<Enrolled>, DeviceCredential);

impl<R: Registrations> Service<R> {
    pub(super) fn authenticate(&self, caller: &Caller) -> Result<Attested, Problem> {
        self.may_authenticate(caller)?;
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

    pub(super) fn may_authenticate(&self, caller: &Caller) -> Result<(), Problem> {
        self.may_authenticate_from(caller.address)
    }

    pub(super) fn may_authenticate_from(&self, address: IpAddr) -> Result<(), Problem> {
        if self.throttle.may_authenticate(address) {
            return Ok(());
        }
        self.metrics
            .incidents()
            .note(Incident::TooManyFailures, address);
        Err(Problem::Throttled)
    }

    fn attest(&self, caller: &Caller) -> Result<Attested, Problem> {
        if caller.token.is_none() && caller.certificates.is_empty() {
            return Err(Problem::Unauthorized(
                "the request carries neither a shared access signature (Authorization header or MQTT password) nor a client certificate",
            ));
        }
        let token = caller.token.as_deref().map(SasToken::parse).transpose();
        let token =
            token.map_err(|_| Problem::Unauthorized("the shared access signature is malformed"))?;
        let chain = Chain::read(&caller.certificates)
            .map_err(|refusal| Problem::Unauthorized(refusal.message()))?;
        let claim = Claim {
            token: token.as_ref(),
            chain: chain.as_ref(),
            scope: &caller.scope,
            id: &caller.id,
            now: u64::try_from(self.clock.now().as_second()).unwrap_or_default(),
            skew: self.settings.skew,
        };
        if token.is_some() {
            claim.token_on_its_terms().map_err(refused)?;
        }
        let candidates = self
            .tenants
            .candidates(&caller.scope, &caller.id)
            .ok_or(Problem::NotEnrolled)?;
        let namespace = candidates.namespace;
        let found = match (candidates.individual, &chain) {
            (Some(enrolled), _) => self.judge(&namespace, &enrolled, &claim),
            (None, Some(chain)) if token.is_none() => {
                self.issued(&namespace, &candidates.groups, chain, &claim)
            }
            (None, _) => self.signed(&namespace, &candidates.groups, &claim),
        };
        let (enrolled, credential) = found?;
        Ok(Attested {
            namespace,
            enrolled,
            credential,
        })
    }

    /// Against one enrollment.
    fn judge(
        &self,
        namespace: &str,
        enrolled: &Arc<Enrolled>,
        claim: &Claim<'_>,
    ) -> Result<Found, Problem> {
        // Its keys may be the right ones: the device is asked to come again.
        let attestation = self
            .tenants
            .attestation(namespace, enrolled)
            .ok_or(Problem::Unavailable)?;
        let credential = attestation.evaluate(claim).map_err(|refusal| {
            let other_kind = matches!(refusal, Refusal::NoToken | Refusal::NoCertificate);
            if other_kind && enrolled.spec.is_disabled() {
                return Problem::Unauthorized(
                    "the device's individual enrollment is disabled, which keeps it out of every group",
                );
            }
            refused(refusal)
        })?;
        Ok((enrolled.clone(), credential))
    }

    /// Against the groups with keys.
    fn signed(
        &self,
        namespace: &str,
        groups: &[Arc<Enrolled>],
        claim: &Claim<'_>,
    ) -> Result<Found, Problem> {
        let mut outcome = Problem::NotEnrolled;
        for enrolled in groups.iter().filter(|group| group.takes_tokens()) {
            match self.judge(namespace, enrolled, claim) {
                Ok(found) => return Ok(found),
                Err(Problem::Unavailable) => outcome = Problem::Unavailable,
                Err(other) if outcome == Problem::NotEnrolled => outcome = other,
                Err(_) => {}
            }
        }
        Err(outcome)
    }

    /// Against the groups with authorities.
    fn issued(
        &self,
        namespace: &str,
        groups: &[Arc<Enrolled>],
        chain: &Chain<'_>,
        claim: &Claim<'_>,
    ) -> Result<Found, Problem> {
        let known: Vec<(&Arc<Enrolled>, Arc<X509>)> = groups
            .iter()
            .filter_map(|group| match self.tenants.attestation(namespace, group) {
                Some(Attestation::X509(x509)) => Some((group, x509)),
                Some(Attestation::SymmetricKey(_) | Attestation::Tpm(_)) | None => None,
            })
            .collect();
        if known.is_empty() {
            return Err(Problem::NotEnrolled);
        }
        let views: Vec<(&X509, bool)> = known
            .iter()
            .map(|(group, x509)| (&**x509, group.spec.is_disabled()))
            .collect();
        let (place, thumbprint) = closest_issuer(chain, &views, claim.id, claim.now)
            .map_err(|refusal| Problem::Unauthorized(refusal.message()))?;
        let (enrolled, _) = known.get(place).ok_or(Problem::Internal)?;
        Ok((
            Arc::clone(enrolled),
            DeviceCredential::Certificate(thumbprint),
        ))
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::WrongKey => Problem::WrongKey,
        Refusal::Expired => Problem::Unauthorized(
            "the shared access signature has expired; check the device's clock",
        ),
        Refusal::WrongScope => Problem::Unauthorized(
            "the shared access signature is for another ID scope or registration id",
        ),
        Refusal::NoToken => Problem::Unauthorized(
            "the enrollment takes shared access signatures and the request carries none (Authorization header or MQTT password)",
        ),
        Refusal::NoCertificate => Problem::Unauthorized(
            "the enrollment takes X.509 certificates and the client presented none in the TLS handshake",
        ),
        Refusal::Certificate(refusal) => Problem::Unauthorized(refusal.message()),
    }
}
