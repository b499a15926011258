//! Certificates for the control plane, the gateway, the hubs and devices. For tests only: they do not
//! end.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A certificate authority of a test's own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both in PEM. The certificate serves for servers and clients.
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// Makes an authority with that common name.
    pub fn new(common_name: &str) -> Result<Self> {
        let params = authority_params(common_name)?;
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// Makes an authority that this one stands behind.
    pub fn intermediate(&self, common_name: &str) -> Result<Self> {
        let mut params = authority_params(common_name)?;
        params.use_authority_key_identifier_extension = true;
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate()?, &self.issuer)?;
        Ok(Self { issuer })
    }

    /// The authority's certificate: what clients are told to trust.
    pub fn cert_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's own key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate for these DNS names and IP addresses; the first is the common name.
    pub fn issue<N: AsRef<str>>(&self, names: &[N]) -> Result<Issued> {
        let first = names
            .first()
            .context("a certificate needs at least one name")?;
        self.issue_to(first.as_ref(), None, names)
    }

    /// Issues a certificate to a user of Kubernetes, who is its common name, in a group.
    pub(crate) fn issue_to<N: AsRef<str>>(
        &self,
        common_name: &str,
        organization: Option<&str>,
        names: &[N],
    ) -> Result<Issued> {
        let mut params = params(common_name, organization)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        for name in names.iter().map(AsRef::as_ref) {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into()?),
            });
        }
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

impl Issued {
    /// A certificate that nobody else stands behind, as a device makes it for itself.
    pub fn self_signed(common_name: &str) -> Result<Self> {
        let mut params = params(common_name, None)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok(Self {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The SHA-256 of the certificate in upper-case hex, as Enrollments and hubs write it.
    pub fn thumbprint(&self) -> Result<String> {
        let der = CertificateDer::from_pem_slice(self.cert_pem.as_bytes())?;
        let mut text = String::new();
        for byte in digest(&SHA256, &der).as_ref() {
            write!(text, "{byte:02X}")?;
        }
        Ok(text)
    }
}

fn authority_params(common_name: &str) -> Result<CertificateParams> {
    let mut params = params(common_name, None)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(common_name: &str, organization: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    Ok(params)
}
