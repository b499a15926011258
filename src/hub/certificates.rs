//! X.509 at the device side (Azure's page "Authenticate identities with X.509 certificates"):
//! whether a certificate that a client has proven to hold is one that its identity names.

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use subtle::ConstantTimeEq as _;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client::Client;

/// As many as an IoT Hub takes.
const MAX_AUTHORITIES: usize = 25;

/// The certificate authorities whose devices are let in.
#[derive(Clone, Debug, Default)]
pub struct Authorities(Vec<CertificateDer<'static>>);

/// Why a file of certificate authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("it holds something that is no PEM certificate")]
    Form(#[source] rustls_pki_types::pem::Error),
    #[error("it holds {0} certificates, and a hub takes 1 to {MAX_AUTHORITIES}")]
    Count(usize),
    #[error("its certificate number {number} cannot be used: {why}")]
    Certificate { number: usize, why: webpki::Error },
}

impl Authorities {
    /// Reads PEM certificates of roots or intermediates.
    pub fn parse(pem: &str) -> Result<Self, AuthoritiesError> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(AuthoritiesError::Form)?;
        if all.is_empty() || all.len() > MAX_AUTHORITIES {
            return Err(AuthoritiesError::Count(all.len()));
        }
        for (at, one) in all.iter().enumerate() {
            let number = at + 1;
            anchor_from_trusted_cert(one)
                .map_err(|why| AuthoritiesError::Certificate { number, why })?;
        }
        Ok(Self(all))
    }

    /// Until when (Unix seconds) the chain, leaf first, speaks for the client; `None` where it does
    /// not: one of the authorities has to stand behind it, and its common name has to be the
    /// client's.
    pub(super) fn vouch(
        &self,
        chain: &[CertificateDer<'_>],
        client: &Client,
        now: Timestamp,
    ) -> Option<i64> {
        let (leaf, intermediates) = chain.split_first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let mut names = parsed.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?;
        if names.next().is_some() || name != client.to_string() {
            return None;
        }
        let anchors = self.0.iter().map(|one| anchor_from_trusted_cert(one).ok());
        let anchors: Vec<_> = anchors.collect::<Option<_>>()?;
        let since_epoch = std::time::Duration::from_secs(u64::try_from(now.as_second()).ok()?);
        EndEntityCert::try_from(leaf)
            .ok()?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                intermediates,
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .ok()?;
        Some(parsed.validity().not_after.timestamp())
    }
}

/// Until when (Unix seconds) the leaf of the chain speaks for an identity with these thumbprints;
/// `None` where it does not. Both are always compared, so that timing tells neither.
pub(super) fn match_thumbprints(
    chain: &[CertificateDer<'_>],
    thumbprints: [Option<&str>; 2],
    now: Timestamp,
) -> Option<i64> {
    let leaf = chain.first()?;
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf);
    let sha256 = digest::digest(&digest::SHA256, leaf);
    let is_one =
        thumbprints
            .into_iter()
            .flatten()
            .filter_map(bytes_of)
            .fold(false, |found, known| {
                let is_sha1 = known.as_slice().ct_eq(sha1.as_ref());
                let is_sha256 = known.as_slice().ct_eq(sha256.as_ref());
                found | bool::from(is_sha1 | is_sha256)
            });
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let validity = parsed.validity();
    let now = now.as_second();
    let is_valid = validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
    (is_one && is_valid).then(|| validity.not_after.timestamp())
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    use super::*;

    /// Within what `rcgen` makes certificates valid for.
    fn now() -> Timestamp {
        "2026-11-23T00:00:00Z".parse().unwrap()
    }

    fn client(name: &str) -> Client {
        let (device, module) = name.split_once('/').unwrap_or((name, ""));
        Client {
            device: device.parse().unwrap(),
            module: module.parse().ok(),
        }
    }

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn authority(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().unwrap())
    }

    fn self_signed(params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        params.self_signed(key).unwrap().der().clone()
    }

    fn hex(bytes: &[u8]) -> String {
        let digits =
            |byte: &u8| [byte >> 4, byte & 15].map(|digit| b"0123456789ABCDEF"[usize::from(digit)]);
        String::from_utf8(bytes.iter().flat_map(digits).collect()).unwrap()
    }

    #[test]
    fn either_thumbprint_in_sha1_or_sha256_lets_a_certificate_in_while_it_is_valid() {
        let (params, key) = authority("press-7");
        let leaf = self_signed(&params, &key);
        let sha1 = hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &leaf).as_ref());
        let sha256 = hex(digest::digest(&digest::SHA256, &leaf).as_ref());
        let other = "0".repeat(40);
        let chain = [leaf];
        let lower = sha256.to_lowercase();
        for (thumbprints, matches) in [
            ([Some(sha1.as_str()), None], true),
            ([Some(&other), Some(&sha256)], true),
            ([Some(&lower), None], true),
            ([Some(&other), None], false),
            ([Some(&sha256[..40]), None], false),
            ([None, None], false),
        ] {
            let found = match_thumbprints(&chain, thumbprints, now()).is_some();
            assert_eq!(found, matches, "{thumbprints:?}");
        }
        assert_eq!(match_thumbprints(&[], [Some(&sha1), None], now()), None);

        let mut expired = named("press-7");
        expired.not_after = rcgen::date_time_ymd(2026, 1, 1);
        let chain = [self_signed(&expired, &key)];
        let print = hex(digest::digest(&digest::SHA256, &chain[0]).as_ref());
        assert_eq!(match_thumbprints(&chain, [Some(&print), None], now()), None);
        let mut early = named("press-7");
        early.not_before = rcgen::date_time_ymd(2027, 1, 1);
        let chain = [self_signed(&early, &key)];
        let print = hex(digest::digest(&digest::SHA256, &chain[0]).as_ref());
        assert_eq!(match_thumbprints(&chain, [Some(&print), None], now()), None);
    }

    #[test]
    fn an_authority_vouches_for_the_names_it_signed_and_no_others() {
        let (root, root_key) = authority("root");
        let root_der = self_signed(&root, &root_key);
        let root_issuer = Issuer::new(root, &root_key);
        let (middle, middle_key) = authority("middle");
        let middle_der = middle
            .signed_by(&middle_key, &root_issuer)
            .unwrap()
            .der()
            .clone();
        let middle_issuer = Issuer::new(middle, &middle_key);
        let key = KeyPair::generate().unwrap();
        let issue = |params: &CertificateParams, by: &Issuer<'_, &KeyPair>| {
            params.signed_by(&key, by).unwrap().der().clone()
        };
        let press = issue(&named("press-7"), &root_issuer);
        let module = issue(&named("press-7/gauge"), &root_issuer);
        let deep = issue(&named("press-7"), &middle_issuer);
        let mut for_servers = named("press-7");
        for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = issue(&for_servers, &root_issuer);
        let mut expired = named("press-7");
        expired.not_after = rcgen::date_time_ymd(2026, 1, 1);
        let expired = issue(&expired, &root_issuer);
        let (stranger, stranger_key) = authority("root");
        let foreign = issue(&named("press-7"), &Issuer::new(stranger, &stranger_key));
        let own = self_signed(&named("press-7"), &key);

        let pem = |der: &CertificateDer<'_>| {
            use base64::Engine;
            let text = base64::prelude::BASE64_STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        let roots = Authorities::parse(&pem(&root_der)).unwrap();
        let middles = Authorities::parse(&pem(&middle_der)).unwrap();
        for (authorities, chain, name, vouched) in [
            (&roots, vec![press.clone()], "press-7", true),
            (&roots, vec![press.clone()], "Press-7", false),
            (&roots, vec![press.clone()], "press-8", false),
            (&roots, vec![press.clone()], "press-7/gauge", false),
            (&roots, vec![module], "press-7/gauge", true),
            (
                &roots,
                vec![deep.clone(), middle_der.clone()],
                "press-7",
                true,
            ),
            (&roots, vec![deep.clone()], "press-7", false),
            (&middles, vec![deep], "press-7", true),
            (&middles, vec![press], "press-7", false),
            (&roots, vec![server], "press-7", false),
            (&roots, vec![expired], "press-7", false),
            (&roots, vec![foreign], "press-7", false),
            (&roots, vec![own], "press-7", false),
            (&roots, vec![], "press-7", false),
        ] {
            let found = authorities.vouch(&chain, &client(name), now()).is_some();
            assert_eq!(found, vouched, "{name} with {} certificates", chain.len());
        }
    }

    #[test]
    fn a_file_without_usable_certificates_is_refused() {
        assert!(matches!(
            Authorities::parse(""),
            Err(AuthoritiesError::Count(0))
        ));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            Authorities::parse(broken),
            Err(AuthoritiesError::Certificate { number: 1, .. })
        ));
    }
}
