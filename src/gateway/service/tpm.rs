//! Devices with a TPM: the challenge before they are attested, and their hub key in its envelope after.
//!
//! Nothing is kept between the two requests, so that they may reach different replicas.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::attest::Attested;
use super::{Answer, Caller, Protocol, Service};
use crate::api::v1alpha1::RegistrationState;
use crate::domain::attestation::tpm::PublicArea;
use crate::domain::attestation::{Attestation, DeviceCredential};
use crate::domain::ids::{IdScope, RegistrationId};
use crate::gateway::body::{Body, TpmKeys};
use crate::gateway::error::Problem;
use crate::gateway::record::Record;
use crate::gateway::registrations::Registrations;
use crate::wire::tpm::envelope;

impl<R: Registrations> Service<R> {
    /// The challenge for a device that shows the keys of its TPM and proves nothing yet; `None` for
    /// any other.
    pub(super) fn challenge(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Option<Answer>, Problem> {
        // The device API has TPMs over HTTPS and AMQP, and over AMQP SASL would ask.
        let bare = caller.token.is_none() && caller.certificates.is_empty();
        if !bare || caller.protocol != Protocol::Https {
            return Ok(None);
        }
        self.may_authenticate(caller)?;
        let challenged = self.challenge_to(caller, body);
        if challenged
            .as_ref()
            .is_err_and(|problem| *problem != Problem::Unavailable)
        {
            self.throttle.count_failure(caller.address);
        }
        challenged
    }

    fn challenge_to(&self, caller: &Caller, body: &[u8]) -> Result<Option<Answer>, Problem> {
        let Some(keys) = Body::parse(body, &caller.id)?.tpm else {
            return Ok(None);
        };
        let blob = self.sealed_challenge(&caller.scope, &caller.id, &keys)?;
        Ok(Some(Answer::Challenge(json!({
            "message": "Authorization required.",
            "authenticationKey": STANDARD.encode(blob),
            "keyName": "registration",
        }))))
    }

    /// The challenge for a device that shows the keys of its TPM in another way than by a request.
    ///
    /// # Errors
    /// As the device is to be told.
    pub fn seal_challenge(
        &self,
        address: IpAddr,
        (scope, id): &(IdScope, RegistrationId),
        keys: &TpmKeys,
    ) -> Result<Vec<u8>, Problem> {
        self.may_authenticate_from(address)?;
        let sealed = self.sealed_challenge(scope, id, keys);
        if sealed
            .as_ref()
            .is_err_and(|problem| *problem != Problem::Unavailable)
        {
            self.throttle.count_failure(address);
        }
        sealed
    }

    /// A challenge whose key nobody looks for: for a TPM that is refused, so that it comes as far as
    /// its first request. `None` where it shows keys to which nothing can be encrypted.
    pub fn decoy(&self, keys: &TpmKeys) -> Option<Vec<u8>> {
        let endorsement = PublicArea::from_base64(&keys.endorsement_key).ok()?;
        let storage = PublicArea::from_base64(&keys.storage_root_key).ok()?;
        let key = [(self.random)().to_be_bytes(), (self.random)().to_be_bytes()];
        sealed(&endorsement, &storage, &key.concat())
    }

    fn sealed_challenge(
        &self,
        scope: &IdScope,
        id: &RegistrationId,
        keys: &TpmKeys,
    ) -> Result<Vec<u8>, Problem> {
        let candidates = self
            .tenants
            .candidates(scope, id)
            .ok_or(Problem::NotEnrolled)?;
        let enrolled = candidates.individual.ok_or(Problem::NotEnrolled)?;
        if enrolled.spec.attestation.tpm.is_none() {
            return Err(Problem::NotEnrolled);
        }
        let endorsed = match self.tenants.attestation(&candidates.namespace, &enrolled) {
            Some(Attestation::Tpm(endorsed)) => endorsed,
            Some(Attestation::SymmetricKey(_) | Attestation::X509(_)) | None => {
                return Err(Problem::Unavailable);
            }
        };
        let shown = read("endorsementKey", &keys.endorsement_key)?;
        if shown != *endorsed.endorsement_key() {
            return Err(Problem::NotEnrolled);
        }
        let storage = read("storageRootKey", &keys.storage_root_key)?;
        let now = u64::try_from(self.clock.now().as_second()).unwrap_or_default();
        let key = endorsed.challenge_key(id, now);
        sealed(&shown, &storage, key.reveal()).ok_or(Problem::Internal)
    }
}

/// The storage root key that a device of this Enrollment has to show; `None` when it has no TPM.
pub(super) fn storage_root_key(
    caller: &Caller,
    attested: &Attested,
    shown: Option<&TpmKeys>,
) -> Result<Option<String>, Problem> {
    if attested.enrolled.spec.attestation.tpm.is_none() {
        return Ok(None);
    }
    let said = caller.storage_root_key.as_deref();
    let text = said.or(shown.map(|keys| keys.storage_root_key.trim()));
    let text = text.unwrap_or_default();
    read("storageRootKey", text)?;
    Ok(Some(text.to_owned()))
}

/// The hub key of a device with a TPM, encrypted to it, once the record says where the hub is.
pub(super) fn authentication_key(attested: &Attested, record: &Record) -> Option<String> {
    let tpm = attested.enrolled.spec.attestation.tpm.as_ref()?;
    let DeviceCredential::Keys(keys) = &attested.credential else {
        return None;
    };
    if record.state != Some(RegistrationState::Assigned) {
        return None;
    }
    let storage = record.request.as_ref()?.storage_root_key.as_deref()?;
    let endorsement = PublicArea::from_base64(&tpm.endorsement_key).ok()?;
    let storage = PublicArea::from_base64(storage).ok()?;
    sealed(&endorsement, &storage, keys.primary.reveal()).map(|blob| STANDARD.encode(blob))
}

fn read(name: &str, text: &str) -> Result<PublicArea, Problem> {
    PublicArea::from_base64(text)
        .map_err(|error| Problem::BadRequest(format!("tpm.{name} {error}")))
}

fn sealed(endorsement: &PublicArea, storage: &PublicArea, key: &[u8]) -> Option<Vec<u8>> {
    match envelope(endorsement, storage, key) {
        Ok(blob) => Some(blob),
        Err(error) => {
            tracing::warn!(%error, "a TPM's key is not one");
            None
        }
    }
}
