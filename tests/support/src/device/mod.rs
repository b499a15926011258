//! A device in the field: it registers at a gateway and lives at a hub.
//!
//! Speaks the documented protocols with code of its own and shares none with the product, so that
//! no mistake is on both sides. Knows neither Kubernetes nor the product's processes.

pub mod amqp;
mod asking;
mod channel;
mod key;
mod line;
mod mqtt;
mod registration;
mod session;
mod tpm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use channel::Conversation;
pub use key::Key;
pub use line::{Line, Reply};
pub use mqtt::Refused;
pub use registration::{Applicant, Protocol, Registrar, Told, Unregistered};
pub use session::Session;
pub use tpm::{SimulatedTpm, Tpm, TpmApplicant, TpmHeldKey, TpmKind};

use crate::cluster::install_tls_provider;

/// Longest time for an answer to an HTTPS request.
const PATIENCE: Duration = Duration::from_secs(30);

/// The certificate authority that a client was told to trust.
#[derive(Clone)]
pub struct Trust {
    pem: String,
    tls: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts nobody but this authority.
    pub fn new(ca_pem: &str) -> Result<Self> {
        install_tls_provider();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.context("the CA is not PEM")?)?;
        }
        let tls = ClientConfig::builder().with_root_certificates(roots);
        Ok(Self {
            pem: ca_pem.to_owned(),
            tls: Arc::new(tls.with_no_client_auth()),
        })
    }

    /// Trusts the same authority, and presents these certificates, leaf first, with the leaf's key.
    pub fn presenting(&self, chain_pem: &str, key_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes());
        let chain = chain
            .collect::<Result<_, _>>()
            .context("the chain is not PEM")?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("no key in PEM")?;
        let tls = ClientConfig::builder().with_root_certificates(roots);
        Ok(Self {
            pem: self.pem.clone(),
            tls: Arc::new(tls.with_client_auth_cert(chain, key)?),
        })
    }

    /// The authority in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// A client for the server of that name, wherever it listens.
    pub fn http_client(&self, host: &str, address: SocketAddr) -> Result<reqwest::Client> {
        let roots = reqwest::Certificate::from_pem_bundle(self.pem.as_bytes())?;
        let client = reqwest::Client::builder()
            .tls_certs_only(roots)
            .resolve(host, address)
            .timeout(PATIENCE)
            .build();
        client.context("no HTTP client")
    }
}

/// A connection to the server of that name, wherever it listens.
async fn dial(
    host: &str,
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned())?;
    Ok(TlsConnector::from(tls.clone()).connect(name, tcp).await?)
}
