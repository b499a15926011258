//! The seam between the hub client and the network: one HTTP request out, one response back.
//!
//! What matters to the caller is whether a request that failed may have acted. Tests put the real
//! hub's router here, with faults injected before and after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, redirect};

/// Most bytes of a response that are read: a page of 100 twins at their largest, and some.
const LARGEST_RESPONSE: usize = 16 * 1024 * 1024;

/// A connection that takes longer than this share of the call's time counts as unreachable, which
/// leaves the rest of it for the answer.
const CONNECT_SHARE: u32 = 3;

/// Sends requests to one hub.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and reads the whole response. Never retries: only the caller knows
    /// whether that is safe.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>>;
}

/// Why there is no response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The request was never sent: it cannot act, now or later.
    #[error("{0}")]
    Unreachable(String),
    /// No response in time. The request may have acted or may act yet.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke after the request went out. It may have acted or may act yet.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// A transport that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportSetupError {
    /// The certificates to trust are not PEM.
    #[error(
        "the hub's authority (connection.caBundle, or ca.crt of its certificate's Secret) is no usable PEM certificate"
    )]
    CaBundle(#[source] reqwest::Error),
    /// The process installed no TLS provider.
    #[error("no TLS provider is installed in this process; `main` installs one at start")]
    NoTlsProvider,
    /// The HTTP client refused its settings.
    #[error("the HTTP client could not be built")]
    Client(#[source] reqwest::Error),
}

/// The way to a hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// `host:port` to connect to instead of where the hub's name leads. The name stays what the
    /// hub's certificate is verified for.
    pub via: Option<String>,
    /// PEM certificates that the hub's must chain to; the system's roots when absent.
    pub ca_bundle: Option<String>,
}

/// HTTPS over the network, one kept-alive pool of connections per hub.
pub struct HttpTransport {
    client: Client,
}

impl HttpTransport {
    /// A transport by that route.
    pub fn new(route: &Route, call_timeout: Duration) -> Result<Self, TransportSetupError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(TransportSetupError::NoTlsProvider);
        }
        let mut builder = Client::builder()
            .https_only(true)
            .http1_only()
            .redirect(redirect::Policy::none())
            .connect_timeout(call_timeout / CONNECT_SHARE)
            .timeout(call_timeout)
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(55))
            .user_agent(concat!("rehome/", env!("CARGO_PKG_VERSION")));
        if let Some(via) = &route.via {
            builder = builder.dns_resolver(Arc::new(Via(via.as_str().into())));
        }
        if let Some(pem) = &route.ca_bundle {
            let roots = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(TransportSetupError::CaBundle)?;
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(TransportSetupError::Client)?;
        Ok(Self { client })
    }

    async fn exchange(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let request = request
            .try_into()
            .map_err(|error: reqwest::Error| TransportError::Unreachable(reason(&error)))?;
        let mut response = self.client.execute(request).await.map_err(classify)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(classify)? {
            if body.len() + chunk.len() > LARGEST_RESPONSE {
                let why = format!("the answer is larger than {LARGEST_RESPONSE} bytes");
                return Err(TransportError::Broken(why));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(body.freeze());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

/// Resolves every name to one `host:port`.
struct Via(Arc<str>);

impl Resolve for Via {
    fn resolve(&self, _: Name) -> Resolving {
        let via = self.0.clone();
        async move {
            let found: Vec<_> = tokio::net::lookup_host(&*via).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        }
        .boxed()
    }
}

impl Transport for HttpTransport {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        self.exchange(request).boxed()
    }
}

/// Only what failed before a connection stood is known not to have been sent.
fn classify(error: reqwest::Error) -> TransportError {
    if error.is_connect() || error.is_builder() {
        TransportError::Unreachable(reason(&error))
    } else if error.is_timeout() {
        TransportError::Timeout
    } else {
        TransportError::Broken(reason(&error.without_url()))
    }
}

/// The innermost cause, which is what a person can act on ("connection refused").
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn transport() -> HttpTransport {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        HttpTransport::new(&Route::default(), Duration::from_millis(900)).unwrap()
    }

    fn request(uri: &str) -> http::Request<Bytes> {
        http::Request::get(uri).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn a_refused_connection_was_never_sent() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let error = transport()
            .send(request(&format!("https://127.0.0.1:{port}/devices/x")))
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Unreachable(_)), "{error:?}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn another_way_to_the_hub_is_taken_whatever_its_name_is() {
        transport();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let via = Some(listener.local_addr().unwrap().to_string());
        let route = Route {
            via,
            ca_bundle: None,
        };
        let way = HttpTransport::new(&route, Duration::from_secs(20)).unwrap();
        let call = way.send(request("https://no-such-host.invalid/devices/x"));
        let (_, came) = tokio::join!(call, async {
            // What comes in is closed at once.
            listener.accept().await.map(|_| ())
        });
        came.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_never_finishes_the_handshake_was_never_sent_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = transport()
            .send(request(&format!("https://127.0.0.1:{port}/devices/x")))
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Unreachable(_)), "{error:?}");
    }

    #[tokio::test]
    async fn plain_http_is_never_spoken() {
        let error = transport()
            .send(request("http://127.0.0.1:1/devices/x"))
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Unreachable(_)), "{error:?}");
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        transport();
        let bundle = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydA==\n-----END CERTIFICATE-----\n";
        let route = Route {
            ca_bundle: Some(bundle.to_owned()),
            via: None,
        };
        let setup = HttpTransport::new(&route, Duration::from_secs(1));
        assert!(setup.is_err());
    }
}
