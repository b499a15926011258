//! The certificates that a device presents, bounded before anything is read.

use rustls_pki_types::CertificateDer;

use super::{Refusal, Thumbprint, parse};
use crate::domain::ids::RegistrationId;

/// Most certificates that a device may present, its own included.
pub const LONGEST_CHAIN: usize = 8;
/// Largest certificate in bytes.
const LARGEST: usize = 16 * 1024;

/// What a device presents: its own certificate, then those of its issuers, in any order.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    certificates: &'a [CertificateDer<'a>],
    common_name: Result<RegistrationId, Refusal>,
    not_before: i64,
    not_after: i64,
}

impl<'a> Chain<'a> {
    /// Reads what a client presented in the handshake, leaf first; `None` when that is nothing.
    pub fn read(certificates: &'a [CertificateDer<'a>]) -> Result<Option<Self>, Refusal> {
        let Some(leaf) = certificates.first() else {
            return Ok(None);
        };
        if certificates.len() > LONGEST_CHAIN {
            return Err(Refusal(
                "the client presents more than 8 certificates; present the device's and those between it and the enrolled authority",
            ));
        }
        if certificates
            .iter()
            .any(|certificate| certificate.len() > LARGEST)
        {
            return Err(Refusal("a certificate is larger than 16 KiB"));
        }
        let certificate =
            parse(leaf).ok_or(Refusal("the client's certificate cannot be read as X.509"))?;
        let mut names = certificate.subject().iter_common_name();
        let common_name = match (names.next(), names.next()) {
            (None, _) => Err(Refusal(
                "the certificate has no common name; it must be the registration id",
            )),
            (Some(_), Some(_)) => Err(Refusal(
                "the certificate has several common names; it must have one, the registration id",
            )),
            (Some(name), None) => {
                let id = name.as_str().ok().and_then(|name| name.parse().ok());
                id.ok_or(Refusal(
                    "the certificate's common name is no registration id: letters, digits and - . _ :, at most 128",
                ))
            }
        };
        let validity = certificate.validity();
        Ok(Some(Self {
            certificates,
            common_name,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        }))
    }

    /// The device's own certificate.
    pub(super) fn leaf(&self) -> &'a CertificateDer<'a> {
        // `read` makes no chain of nothing.
        &self.certificates[0]
    }

    /// What the device presents beside its own certificate.
    pub(super) fn issuers(&self) -> &'a [CertificateDer<'a>] {
        &self.certificates[1..]
    }

    /// The leaf's thumbprint, if the leaf is that device's and valid now. Says nothing about whether
    /// the leaf can be trusted.
    pub(super) fn vouch_for(&self, id: &RegistrationId, now: u64) -> Result<Thumbprint, Refusal> {
        if self
            .common_name
            .as_ref()
            .map_err(|refusal| *refusal)?
            .canonical()
            != id.canonical()
        {
            return Err(Refusal(
                "the certificate's common name is not the registration id; they must be the same",
            ));
        }
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now < self.not_before {
            return Err(Refusal(
                "the device's certificate is not valid yet; check its dates",
            ));
        }
        if now > self.not_after {
            return Err(Refusal("the device's certificate has expired; roll it"));
        }
        Ok(Thumbprint::of(self.leaf()))
    }
}
