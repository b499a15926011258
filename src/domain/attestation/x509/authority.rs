//! The authorities of groups, and which of them issued a device's certificate.

use std::time::Duration;

use rustls_pki_types::{Der, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use super::possession::{Proof, prove, verification_code};
use super::{Chain, Refusal, Thumbprint, X509, describe, parse, read_pem, unreadable};
use crate::api::v1alpha1::CertificateStatus;
use crate::domain::attestation::Unusable;
use crate::domain::ids::RegistrationId;

/// One authority of a group.
#[derive(Clone, Debug)]
pub struct Authority {
    anchor: TrustAnchor<'static>,
    not_before: i64,
    not_after: i64,
    proof: Proof,
    described: CertificateStatus,
}

/// An authority in its enrollment.
struct Candidate<'a> {
    authority: &'a Authority,
    /// Place of its enrollment among those that were given.
    enrollment: usize,
}

impl Authority {
    pub(super) fn read(
        name: &str,
        field: &'static str,
        pem: &str,
        proof: Option<&str>,
        uid: &str,
    ) -> Result<Self, Unusable> {
        let der = read_pem(field, pem)?;
        let certificate = parse(&der).ok_or_else(|| unreadable(field))?;
        if !certificate.is_ca() {
            return Err(Unusable::Certificate {
                field,
                problem: "is not the certificate of an authority (basic constraints CA:TRUE)"
                    .to_owned(),
            });
        }
        let anchor = anchor_from_trusted_cert(&der)
            .map_err(|_| unreadable(field))?
            .to_owned();
        let code = verification_code(uid, &Thumbprint::of(&der));
        let proof = prove(&certificate, proof, &code);
        let validity = certificate.validity();
        let described = CertificateStatus {
            verified: Some(proof == Proof::Given),
            verification_code: Some(code),
            ..describe(name, &der, &certificate)
        };
        Ok(Self {
            anchor,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            proof,
            described,
        })
    }

    /// Whether possession of its key is proven.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// As the status of the Enrollment tells it.
    pub fn describe(&self) -> CertificateStatus {
        self.described.clone()
    }

    fn is_valid(&self, now: u64) -> bool {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// The group whose authority issued the leaf, and the leaf's thumbprint.
///
/// `groups` are in the order in which they count, each with whether it is disabled. The walk goes
/// from the leaf to the root, and the first authority on it that a group names decides, also when that
/// group is disabled; of several groups that name it the first one does. An authority that is not
/// verified vouches for nobody and hides no other one, but needs no proof to keep devices out.
pub fn closest_issuer(
    chain: &Chain<'_>,
    groups: &[(&X509, bool)],
    id: &RegistrationId,
    now: u64,
) -> Result<(usize, Thumbprint), Refusal> {
    let (mut deciding, mut unverified) = (Vec::new(), Vec::new());
    for (enrollment, (group, disabled)) in groups.iter().enumerate() {
        for authority in group.authorities() {
            let candidate = Candidate {
                authority,
                enrollment,
            };
            if authority.proof == Proof::Given || *disabled {
                deciding.push(candidate);
            } else {
                unverified.push(candidate);
            }
        }
    }
    // Of two certificates for one key, the one that is valid counts.
    deciding.sort_by_key(|candidate| !candidate.authority.is_valid(now));
    let thumbprint = chain.vouch_for(id, now)?;
    let winner = match walk(chain, &deciding, now) {
        Ok(winner) => winner,
        Err(_) if walk(chain, &unverified, now).is_ok() => {
            return Err(Refusal(
                "the authority that issued the certificate is enrolled, but possession of its key is not proven; the enrollment's status says how",
            ));
        }
        Err(error) => return Err(refusal(&error)),
    };
    if winner.authority.proof != Proof::Given {
        return Err(Refusal(
            "the enrollment of the authority that issued the certificate is disabled",
        ));
    }
    if !winner.authority.is_valid(now) {
        return Err(Refusal(
            "the certificate of the enrolled authority is outside its validity; roll it",
        ));
    }
    Ok((winner.enrollment, thumbprint))
}

/// The first of these authorities that a path leads to: at each certificate every authority is tried
/// before a further certificate of the client is.
fn walk<'c>(
    chain: &Chain<'_>,
    candidates: &'c [Candidate<'c>],
    now: u64,
) -> Result<&'c Candidate<'c>, Error> {
    let leaf = EndEntityCert::try_from(chain.leaf())?;
    let anchors: Vec<_> = candidates
        .iter()
        .map(|it| borrowed(&it.authority.anchor))
        .collect();
    let path = leaf.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        &anchors,
        chain.issuers(),
        UnixTime::since_unix_epoch(Duration::from_secs(now)),
        KeyUsage::client_auth(),
        None,
        None,
    )?;
    let place = anchors
        .iter()
        .position(|anchor| std::ptr::eq(anchor, path.anchor()));
    place
        .and_then(|place| candidates.get(place))
        .ok_or(Error::UnknownIssuer)
}

fn borrowed<'a>(anchor: &'a TrustAnchor<'static>) -> TrustAnchor<'a> {
    TrustAnchor {
        subject: Der::from_slice(&anchor.subject),
        subject_public_key_info: Der::from_slice(&anchor.subject_public_key_info),
        name_constraints: anchor.name_constraints.as_deref().map(Der::from_slice),
    }
}

fn refusal(error: &Error) -> Refusal {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is left is damage of one kind or another"
    )]
    Refusal(match error {
        Error::UnknownIssuer => {
            "no enrolled authority issued the certificate; present every certificate between the device's and the authority's"
        }
        Error::CertExpired { .. } => {
            "a certificate between the device's and the enrolled authority's has expired"
        }
        Error::CertNotValidYet { .. } => {
            "a certificate between the device's and the enrolled authority's is not valid yet"
        }
        Error::CaUsedAsEndEntity => {
            "the device's certificate is an authority's (CA:TRUE); groups take end-entity certificates only"
        }
        Error::EndEntityUsedAsCa => {
            "a certificate in the chain issued another without being an authority's (CA:TRUE)"
        }
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            "the extended key usage of a certificate in the chain does not allow TLS client authentication"
        }
        Error::PathLenConstraintViolated => {
            "a path length constraint forbids an authority in the chain"
        }
        Error::NameConstraintViolation => {
            "a name constraint of an authority forbids the certificate"
        }
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "a certificate in the chain is signed with an algorithm or a key that is too weak or not supported, such as SHA-1"
        }
        Error::InvalidSignatureForPublicKey => "a signature in the certificate chain is wrong",
        Error::UnsupportedCriticalExtension => {
            "a certificate in the chain has a critical extension that is not supported"
        }
        Error::MaximumPathDepthExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded => {
            "the certificate chain is too long or too tangled"
        }
        _ => "the certificate chain cannot be verified",
    })
}
