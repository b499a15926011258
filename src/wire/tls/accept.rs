//! From a listening socket to an authenticated byte stream, bounded at every step.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bounds on connections. One [`Acceptor`] may serve several listeners; they share its bounds.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// From TCP accept to the end of the handshake.
    pub handshake_within: Duration,
    /// Handshakes under way at once; more wait, within the same time.
    pub handshakes: usize,
    /// Of these, from one address: one that shakes hands slowly must not keep out all others.
    pub handshakes_per_address: usize,
    /// Open connections in all; one more is dropped.
    pub connections: usize,
    /// Open connections from one IPv4 address or one IPv6 /64. Generous, because a fleet behind one
    /// NAT, or behind a load balancer that hides addresses, is one address.
    pub per_address: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_within: Duration::from_secs(10),
            handshakes: 2048,
            handshakes_per_address: 256,
            connections: 20_000,
            per_address: 4096,
        }
    }
}

/// Who is at the other end, as far as TLS knows.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Leaf first; empty when the client presented none. Possession of the leaf's key is proven,
    /// nothing else is.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// SNI: a hint only, and some clients send none.
    pub server_name: Option<String>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Stream,
    pub peer: Peer,
}

/// Admits connections and shakes hands.
#[derive(Debug)]
pub struct Acceptor {
    limits: AcceptLimits,
    connections: Arc<Semaphore>,
    handshakes: Semaphore,
    addresses: Mutex<HashMap<IpAddr, Open>>,
}

impl Acceptor {
    /// With its own bounds, to be shared by listeners that should share them.
    pub fn new(limits: AcceptLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Semaphore::new(limits.handshakes),
            addresses: Mutex::default(),
        })
    }

    /// Accepts until `stop` resolves, and runs `serve` for each connection in a task of its own.
    /// Connections outlive this call; whoever stops listening decides what becomes of them.
    pub async fn run<F, S>(
        self: Arc<Self>,
        listener: TcpListener,
        config: Arc<ServerConfig>,
        serve: F,
        stop: impl Future<Output = ()>,
    ) where
        F: Fn(Accepted) -> S + Clone + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: give connections a moment to end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(slot) = self.admit(address.ip()) else {
                tracing::debug!(%address, "too many connections; one more was dropped");
                continue;
            };
            let (this, config, serve) = (self.clone(), config.clone(), serve.clone());
            tokio::spawn(async move {
                match this.shake_hands(tcp, address, config, slot).await {
                    Ok(accepted) => serve(accepted).await,
                    Err(error) => tracing::debug!(%address, %error, "TLS handshake failed"),
                }
            });
        }
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        config: Arc<ServerConfig>,
        mut slot: Slot,
    ) -> io::Result<Accepted> {
        // Answers are small and a device waits for each.
        tcp.set_nodelay(true)?;
        let handshake = async {
            let _permit = self.handshakes.acquire().await.map_err(io::Error::other)?;
            TlsAcceptor::from(config).accept(tcp).await
        };
        let tls = timeout(self.limits.handshake_within, handshake).await??;
        slot.has_shaken_hands();
        let (_, connection) = tls.get_ref();
        let peer = Peer {
            address,
            certificates: connection.peer_certificates().unwrap_or_default().into(),
            server_name: connection.server_name().map(str::to_owned),
        };
        Ok(Accepted {
            stream: Stream { tls, _slot: slot },
            peer,
        })
    }

    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let permit = self.connections.clone().try_acquire_owned().ok()?;
        let address = bounded_address(address);
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open = addresses.entry(address).or_default();
        let AcceptLimits {
            per_address,
            handshakes_per_address,
            ..
        } = self.limits;
        if open.all >= per_address || open.shaking >= handshakes_per_address {
            return None;
        }
        open.all += 1;
        open.shaking += 1;
        drop(addresses);
        Some(Slot {
            acceptor: self.clone(),
            address,
            shaking: true,
            _permit: permit,
        })
    }
}

/// Connections of one address.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    shaking: usize,
}

/// One admitted connection; gives its place back when dropped.
#[derive(Debug)]
struct Slot {
    acceptor: Arc<Acceptor>,
    address: IpAddr,
    shaking: bool,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    fn has_shaken_hands(&mut self) {
        self.shaking = false;
        let addresses = &self.acceptor.addresses;
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = addresses.get_mut(&self.address) {
            open.shaking -= 1;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let addresses = &self.acceptor.addresses;
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = addresses.get_mut(&self.address) {
            open.all -= 1;
            open.shaking -= usize::from(self.shaking);
            if open.all == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What counts as one client: an IPv6 subscriber holds a whole /64.
fn bounded_address(address: IpAddr) -> IpAddr {
    if let IpAddr::V6(v6) = address.to_canonical() {
        return IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)));
    }
    address.to_canonical()
}

/// The encrypted stream. A client that drops TCP without `close_notify` simply ended it: that is how
/// devices hang up, and every protocol on top says itself whether it was cut short.
#[derive(Debug)]
pub struct Stream {
    tls: TlsStream<TcpStream>,
    _slot: Slot,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let hung_up = |error: io::Error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                Ok(())
            } else {
                Err(error)
            }
        };
        Pin::new(&mut self.tls)
            .poll_read(cx, buffer)
            .map(|read| read.or_else(hung_up))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
