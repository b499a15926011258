//! The server's certificate, re-read when its files change.
//!
//! Content is compared, not modification times: the kubelet swaps a symbolic link, and clocks step.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A server certificate that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate file {path} cannot be read")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no PEM certificate")]
    Chain {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("{path} is empty: it needs the server certificate and its intermediates, as PEM")]
    Empty { path: PathBuf },
    #[error("{path} holds no PEM private key (PKCS#8, SEC1 or PKCS#1)")]
    Key {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("the certificate in {chain} and the key in {key} do not go together")]
    Mismatch {
        chain: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

/// The certificate presented to every client, whatever name it asks for: devices verify the name
/// they dialled, and some old ones send none.
pub struct Certificates {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    certified: Arc<CertifiedKey>,
    digest: Vec<u8>,
}

impl Certificates {
    /// Reads both files.
    pub fn load(chain: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let files = Files::read(chain, key)?;
        let loaded = files.load()?;
        Ok(Arc::new(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            current: ArcSwap::from_pointee(loaded),
        }))
    }

    /// Reads the files again and says whether they were new. The next handshake sees them.
    ///
    /// # Errors
    /// The files cannot be used; the certificate in use stays.
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        let files = Files::read(&self.chain, &self.key)?;
        if files.digest == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(files.load()?));
        Ok(true)
    }

    /// Refreshes for ever. A bad state of the files is logged once, until it changes.
    pub async fn keep_fresh(self: Arc<Self>, every: Duration) {
        let mut complaint = None;
        loop {
            tokio::time::sleep(every).await;
            let this = self.clone();
            // Files may lie on a slow volume; never block the reactor for them.
            let Ok(refreshed) = tokio::task::spawn_blocking(move || this.refresh()).await else {
                continue;
            };
            match refreshed {
                Ok(true) => {
                    tracing::info!(chain = %self.chain.display(), "server certificate reloaded");
                    complaint = None;
                }
                Ok(false) => complaint = None,
                Err(error) => {
                    let text = describe(&error);
                    if complaint.as_ref() != Some(&text) {
                        tracing::warn!("{text}; the certificate in use stays");
                        complaint = Some(text);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}

struct Files<'a> {
    chain: (&'a Path, Vec<u8>),
    key: (&'a Path, Vec<u8>),
    digest: Vec<u8>,
}

impl<'a> Files<'a> {
    fn read(chain: &'a Path, key: &'a Path) -> Result<Self, CertificateError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| CertificateError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let (chain_bytes, key_bytes) = (read(chain)?, read(key)?);
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&chain_bytes.len().to_be_bytes());
        context.update(&chain_bytes);
        context.update(&key_bytes);
        let digest = context.finish().as_ref().to_vec();
        Ok(Self {
            chain: (chain, chain_bytes),
            key: (key, key_bytes),
            digest,
        })
    }

    fn load(&self) -> Result<Loaded, CertificateError> {
        let (chain_path, key_path) = (self.chain.0.to_owned(), self.key.0.to_owned());
        let chain = CertificateDer::pem_slice_iter(&self.chain.1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| CertificateError::Chain {
                path: chain_path.clone(),
                source,
            })?;
        if chain.is_empty() {
            return Err(CertificateError::Empty { path: chain_path });
        }
        let key =
            PrivateKeyDer::from_pem_slice(&self.key.1).map_err(|source| CertificateError::Key {
                path: key_path.clone(),
                source,
            })?;
        let certified =
            CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| {
                CertificateError::Mismatch {
                    chain: chain_path,
                    key: key_path,
                    source,
                }
            })?;
        Ok(Loaded {
            certified: Arc::new(certified),
            digest: self.digest.clone(),
        })
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
