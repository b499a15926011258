//! The device of a plan proves who it is, and the gateway judges it.
//!
//! The gateway's own judgement is used, on a real claim: the controller finds the credential again
//! from what the gateway wrote, and both must come to the same.

use std::time::Duration;

use rehome::api::v1alpha1::Enrollment;
use rehome::clock::Clock as _;
use rehome::domain::attestation::x509::Chain;
use rehome::domain::attestation::{Attestation, Claim, DeviceCredential};
use rehome::domain::ids::IdScope;
use rehome::domain::sas::SasToken;
use rehome::hub::identity::Authentication;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::world::World;

/// The Enrollment that is for this device alone: of its TPM.
pub(crate) const OWN: &str = "own";

impl World {
    /// The Enrollment of that name; [`OWN`] is the device's own.
    pub(crate) fn enrollment(&self, name: &str) -> Enrollment {
        if name == OWN {
            self.state().own.clone().unwrap()
        } else {
            self.ground.enrollment(name).unwrap().clone()
        }
    }

    /// What the gateway attests when the device registers through that Enrollment.
    pub(crate) fn attest(&self, enrollment: &Enrollment) -> DeviceCredential {
        let attestation = self.ground.attestation(enrollment).unwrap();
        let now = u64::try_from(self.clock.now().as_second()).unwrap();
        let scope: IdScope = self.ground.namespace.name().parse().unwrap();
        let key = match &attestation {
            Attestation::SymmetricKey(keys) => Some(keys.keys_for(&self.id).primary),
            Attestation::Tpm(endorsed) => Some(endorsed.challenge_key(&self.id, now)),
            Attestation::X509(_) => None,
        };
        let resource = format!("{}/registrations/{}", scope.as_str(), self.id.as_str());
        let token = key.map(|key| SasToken::sign(&resource, &key, now + 60, Some("registration")));
        let token = token.map(|token| SasToken::parse(&token).unwrap());
        let presented = match token {
            Some(_) => Vec::new(),
            None => vec![self.certificate()],
        };
        let chain = Chain::read(&presented).unwrap();
        let claim = Claim {
            token: token.as_ref(),
            chain: chain.as_ref(),
            scope: &scope,
            id: &self.id,
            now,
            skew: Duration::ZERO,
        };
        attestation.evaluate(&claim).unwrap()
    }

    /// The device's certificate; the plant issues one when it has none.
    fn certificate(&self) -> CertificateDer<'static> {
        let mut state = self.state();
        let issued = state.certificate.get_or_insert_with(|| {
            let issued = self.ground.authority.issue(&[self.id.as_str()]).unwrap();
            CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()
        });
        issued.clone()
    }

    /// The device's own Enrollment is made, or becomes another one: its policy, its hubs and its
    /// initial twin are those of the group `like`, the seed of its TPM's keys is in `seeds`.
    pub(crate) async fn enroll_tpm(&self, like: &str, seeds: &str) {
        let own = self.ground.enroll_tpm(&self.id, like, seeds).await.unwrap();
        self.state().own = Some(own);
    }
}

/// Whether a device can authenticate with this credential, and with no other.
pub(crate) fn holds(authentication: &Authentication, credential: &DeviceCredential) -> bool {
    match (authentication, credential) {
        (Authentication::Sas(held), DeviceCredential::Keys(keys)) => {
            held.primary.reveal() == *keys.primary.to_base64()
                && held.secondary.reveal() == *keys.secondary.to_base64()
        }
        (
            Authentication::SelfSigned {
                primary: Some(held),
                secondary: None,
            },
            DeviceCredential::Certificate(thumbprint),
        ) => *held == thumbprint.to_string(),
        _ => false,
    }
}
