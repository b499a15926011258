//! Trust in one certificate, whoever issued it and for whatever name: an installation's may be for
//! names outside the cluster, by an authority that only devices know.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem};

/// A certificate that cannot be expected.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file is not there, or something else.
    #[error("{path} holds no PEM certificate")]
    File {
        /// Where it should be.
        path: PathBuf,
        /// Why it is none.
        source: pem::Error,
    },
    /// The cryptographic provider offers no TLS (it always does).
    #[error("TLS cannot be configured")]
    Tls(#[from] Error),
}

/// Takes connections only to servers that hold the key of the first certificate in the file.
pub(super) fn only(path: &Path) -> Result<ClientConfig, CertificateError> {
    let certificate = CertificateDer::from_pem_file(path);
    let certificate = certificate.map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })?;
    let provider = Arc::new(default_provider());
    let verifier = Only {
        certificate,
        provider: provider.clone(),
    };
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if shown.as_ref() == self.certificate.as_ref() {
            return Ok(ServerCertVerified::assertion());
        }
        let why = "the server shows another certificate than the one that its Secret holds";
        Err(Error::General(why.to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
