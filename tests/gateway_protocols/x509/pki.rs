//! Certificates of every kind, good and bad.

use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};
use rehome::domain::attestation::x509::{Thumbprint, verification_code};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key.
pub(crate) struct Made {
    params: CertificateParams,
    key: KeyPair,
    pub(super) der: CertificateDer<'static>,
}

/// An authority that issued itself.
pub(super) fn root(common_name: &str) -> Made {
    root_with(common_name, &PKCS_ECDSA_P256_SHA256)
}

pub(super) fn root_with(common_name: &str, algorithm: &'static SignatureAlgorithm) -> Made {
    let params = authority(common_name);
    let key = KeyPair::generate_for(algorithm).unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    Made { params, key, der }
}

/// A device's certificate that it issued itself.
pub(super) fn self_signed(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = named(common_name);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    Made { params, key, der }
}

pub(super) fn becomes_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

impl Made {
    pub(super) fn pem(&self) -> String {
        pem(&self.der)
    }

    pub(super) fn thumbprint(&self) -> Thumbprint {
        Thumbprint::of(&self.der)
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes()).unwrap()
    }

    /// Issues a device's certificate.
    pub(super) fn issue(&self, common_name: &str) -> Self {
        self.issue_as(common_name, |_| {})
    }

    pub(super) fn issue_as(
        &self,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        self.issue_for(named(common_name), &PKCS_ECDSA_P256_SHA256, change)
    }

    pub(super) fn issue_with(
        &self,
        common_name: &str,
        algorithm: &'static SignatureAlgorithm,
    ) -> Self {
        self.issue_for(named(common_name), algorithm, |_| {})
    }

    /// Issues an authority's certificate.
    pub(super) fn authority(&self, common_name: &str) -> Self {
        self.authority_as(common_name, |_| {})
    }

    pub(super) fn authority_as(
        &self,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        self.issue_for(authority(common_name), &PKCS_ECDSA_P256_SHA256, change)
    }

    /// The same certificate issued again: other bytes, the same key.
    pub(super) fn renewed_by(&self, issuer: &Self) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        let certificate = self.params.signed_by(&self.key, &issuer);
        certificate.unwrap().der().clone()
    }

    /// Proof of possession for an Enrollment of that uid.
    pub(super) fn proof(&self, uid: &str) -> String {
        self.issue(&verification_code(uid, &self.thumbprint()))
            .pem()
    }

    fn issue_for(
        &self,
        mut params: CertificateParams,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        Self { params, key, der }
    }
}

/// What rcgen does not make, the `openssl` program does: it runs each command in one directory.
pub(super) struct OpenSsl(tempfile::TempDir);

impl OpenSsl {
    pub(super) fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.write("ca.ext", "basicConstraints=critical,CA:TRUE\n");
        this.write("leaf.ext", "basicConstraints=CA:FALSE\n");
        this
    }

    /// With the files of an authority, `{name}.pem` and `{name}.key`.
    pub(super) fn knowing(self, name: &str, made: &Made) -> Self {
        self.write(&format!("{name}.pem"), &made.pem());
        self.write(&format!("{name}.key"), &made.key.serialize_pem());
        self
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.path().join(file), text).unwrap();
    }

    pub(super) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    pub(super) fn der(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.read(file).as_bytes()).unwrap()
    }

    pub(super) fn key(&self, file: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.read(file).as_bytes()).unwrap()
    }

    /// Runs a shell command line there.
    pub(super) fn run(&self, line: &str) {
        let output = Command::new("sh")
            .args(["-ec", line])
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    /// Whether a client with this certificate and key gets through the handshake.
    pub(super) fn shakes_hands(&self, port: u16, certificate: &str, key: &str) -> bool {
        let line = format!(
            "printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -quiet -tls1_2 -cipher DEFAULT@SECLEVEL=0 -connect 127.0.0.1:{port} \
             -cert {certificate} -key {key}"
        );
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(self.0.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).contains("HTTP/1.1 404")
    }
}

pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn authority(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    becomes_authority(&mut params);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}
