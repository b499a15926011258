//! Certificates of managed hubs: made from a namespace's own authority, or judged.
//!
//! Knows no API server. Randomness of keys is the cryptography library's.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// How long an authority of ours is good for.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a certificate of ours is good for.
const DAYS: i64 = 90;
/// How long before its end a certificate of ours is made anew.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A certificate chain and its key, as PEM.
pub(super) struct Pair {
    pub(super) chain: String,
    pub(super) key: Zeroizing<String>,
}

/// Why there is no certificate. Never quotes a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(pub(super) String);

/// A new authority for the hubs of a namespace.
pub(super) fn authority(namespace: &str, now: Timestamp) -> Result<Pair, Unusable> {
    let key = KeyPair::generate().map_err(not_made)?;
    let mut params = params(&format!("Rehome hubs of {namespace}"), now, AUTHORITY_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(not_made)?;
    Ok(Pair {
        chain: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// A certificate for the host, signed by the authority, whose certificate is the rest of the chain.
pub(super) fn issue(host: &str, authority: &Pair, now: Timestamp) -> Result<Pair, Unusable> {
    let of_the_authority = |error| Unusable(format!("the authority cannot sign: {error}"));
    let key = KeyPair::from_pem(&authority.key).map_err(of_the_authority)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.chain, key).map_err(of_the_authority)?;
    let key = KeyPair::generate().map_err(not_made)?;
    // The common name is for people and has 64 characters at most; clients read the other name.
    let mut params = params(host.get(..host.len().min(64)).unwrap_or(host), now, DAYS)?;
    params.subject_alt_names = CertificateParams::new([host.to_owned()])
        .map_err(not_made)?
        .subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(of_the_authority)?;
    Ok(Pair {
        chain: format!("{}{}", certificate.pem(), authority.chain),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// Whether certificate and key of an authority go together, before it has to sign.
pub(super) fn judge_authority(pair: &Pair) -> Result<(), Unusable> {
    go_together(certificates(&pair.chain)?, &pair.key)
}

/// Until when the pair serves the host.
pub(super) fn judge(pair: &Pair, host: &str, now: Timestamp) -> Result<Timestamp, Unusable> {
    let unusable = |why: String| Unusable(why);
    let chain = certificates(&pair.chain)?;
    let leaf = chain[0].clone();
    go_together(chain, &pair.key)?;
    let (from, until) = validity(&leaf)?;
    if now < from || now >= until {
        return Err(unusable(format!(
            "the certificate is valid from {from} to {until} only"
        )));
    }
    let name = ServerName::try_from(host)
        .map_err(|_| unusable(format!("{host} is no name that a certificate can be for")))?;
    EndEntityCert::try_from(&leaf)
        .and_then(|leaf| leaf.verify_is_valid_for_subject_name(&name))
        .map_err(|_| unusable(format!("the certificate is not for the host {host}")))?;
    Ok(until)
}

/// Whether the authority stands behind the chain.
pub(super) fn is_signed_by(chain: &str, authority: &str, now: Timestamp) -> bool {
    let (Ok(chain), Ok(authority)) = (certificates(chain), certificates(authority)) else {
        return false;
    };
    let Ok(anchor) = anchor_from_trusted_cert(&authority[0]) else {
        return false;
    };
    let Ok(seconds) = u64::try_from(now.as_second()) else {
        return false;
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    EndEntityCert::try_from(&chain[0]).is_ok_and(|leaf| {
        let usage = KeyUsage::server_auth();
        leaf.verify_for_usage(algorithms, &[anchor], &chain[1..], now, usage, None, None)
            .is_ok()
    })
}

/// When a certificate of ours that ends then is made anew.
pub(super) fn renewal(until: Timestamp) -> Timestamp {
    until.checked_sub(RENEWED_BEFORE).unwrap_or(Timestamp::MIN)
}

fn go_together(chain: Vec<CertificateDer<'static>>, key: &str) -> Result<(), Unusable> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| Unusable("tls.key holds no PEM private key".to_owned()))?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map(|_| ())
        .map_err(|_| Unusable("the certificate and the key do not go together".to_owned()))
}

/// At least one.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok()
        .filter(|all| !all.is_empty())
        .ok_or_else(|| Unusable("tls.crt holds no PEM certificate".to_owned()))
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), Unusable> {
    let unreadable = || Unusable("the certificate cannot be read".to_owned());
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    let validity = parsed.validity();
    let at = |seconds| Timestamp::from_second(seconds).map_err(|_| unreadable());
    Ok((
        at(validity.not_before.timestamp())?,
        at(validity.not_after.timestamp())?,
    ))
}

/// From yesterday, because clocks differ, for so many days.
fn params(name: &str, now: Timestamp, days: i64) -> Result<CertificateParams, Unusable> {
    let day = |from_now: i64| {
        let then = now.checked_add(SignedDuration::from_hours(24 * from_now));
        let then = then.map_err(|error| Unusable(error.to_string()))?;
        let date = then.to_zoned(TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        Ok::<_, Unusable>(rcgen::date_time_ymd(date.year().into(), month, day))
    };
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (day(-1)?, day(days)?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "so that it can stand in map_err"
)]
fn not_made(error: rcgen::Error) -> Unusable {
    Unusable(format!("no certificate could be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "hub-west.example.com";

    fn now() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().unwrap()
    }

    fn days(count: i64) -> Timestamp {
        now() + SignedDuration::from_hours(24 * count)
    }

    #[test]
    fn what_is_issued_serves_its_host_for_ninety_days_and_is_renewed_after_sixty() {
        let authority = authority("plant", now()).unwrap();
        let pair = issue(HOST, &authority, now()).unwrap();
        let until = judge(&pair, HOST, now()).unwrap();
        assert_eq!(until, "2027-02-24T00:00:00Z".parse().unwrap());
        assert!(renewal(until) > days(59) && renewal(until) < days(60));
        assert!(is_signed_by(&pair.chain, &authority.chain, now()));
        let other = super::authority("plant", now()).unwrap();
        assert!(!is_signed_by(&pair.chain, &other.chain, now()));
    }

    #[test]
    fn a_pair_that_does_not_serve_says_why() {
        let authority = authority("plant", now()).unwrap();
        let pair = issue(HOST, &authority, now()).unwrap();
        let why = |pair: &Pair, host, now| judge(pair, host, now).unwrap_err().0;
        assert!(why(&pair, "other.example.com", now()).contains("not for the host"));
        assert!(why(&pair, HOST, days(90)).contains("is valid from"));
        assert!(why(&pair, HOST, days(-2)).contains("is valid from"));
        let with = |chain: &str, key: &str| Pair {
            chain: chain.to_owned(),
            key: Zeroizing::new(key.to_owned()),
        };
        let foreign = issue(HOST, &authority, now()).unwrap();
        assert!(why(&with(&pair.chain, &foreign.key), HOST, now()).contains("go together"));
        assert!(why(&with("", &pair.key), HOST, now()).contains("no PEM certificate"));
        assert!(why(&with(&pair.chain, "secret"), HOST, now()).contains("no PEM private key"));
    }

    #[test]
    fn an_authority_made_elsewhere_signs_too() {
        let key = KeyPair::generate().unwrap();
        let mut params = params("Plant intermediate", now(), 100).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let chain = params.self_signed(&key).unwrap().pem();
        let own = Pair {
            chain,
            key: Zeroizing::new(key.serialize_pem()),
        };
        judge_authority(&own).unwrap();
        let pair = issue(HOST, &own, now()).unwrap();
        assert!(is_signed_by(&pair.chain, &own.chain, now()));
        let none = Pair {
            chain: own.chain,
            key: Zeroizing::new("nothing".to_owned()),
        };
        assert!(issue(HOST, &none, now()).is_err());
        assert!(judge_authority(&none).is_err());
    }
}
