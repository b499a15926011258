//! From a listening socket to an authenticated byte stream, bounded at every step.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Admission, Slot};
use crate::wire::incidents::{Incident, Incidents};
use crate::wire::networks::Networks;
use crate::wire::proxy;
use crate::wire::rate::Rate;

/// Bounds on connections. One [`Acceptor`] may serve several listeners; they share its bounds.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// From TCP accept to the end of the handshake.
    pub handshake_within: Duration,
    /// Handshakes under way at once; more wait, within the same time.
    pub handshakes: usize,
    /// Of these, of one client: one that shakes hands slowly must not keep out all others.
    pub handshakes_per_client: usize,
    /// Open connections in all; one more is dropped.
    pub connections: usize,
    /// Open connections of one client, as [`Networks`] counts clients. Generous, because a fleet
    /// behind one NAT, or behind a load balancer that hides addresses, is one client.
    pub per_client: usize,
    /// New connections of one client. A handshake costs us more than it costs a client that throws
    /// the answer away; a fleet that comes back after an outage must still get in.
    pub new_of_client: Rate,
    /// How much of one processor the handshakes of one client may take, in percent, from 1 to 100.
    pub handshake_percent: u32,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_within: Duration::from_secs(10),
            handshakes: 2048,
            handshakes_per_client: 256,
            connections: 20_000,
            per_client: 4096,
            new_of_client: Rate {
                burst: 2000,
                per_ten_seconds: 2000,
            },
            handshake_percent: 10,
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

/// Where a server stands.
pub struct Surroundings {
    /// How clients are told apart, and which of them are not limited.
    pub networks: Arc<Networks>,
    /// Load balancers: what comes from there must begin with a PROXY protocol header, and the
    /// address in it counts. From anywhere else such a header is no TLS and ends the connection.
    pub proxies: Vec<IpNet>,
    /// Where trouble is counted and said.
    pub incidents: Arc<Incidents>,
}

impl Surroundings {
    /// Open to everybody, without load balancers.
    pub fn open(incidents: Arc<Incidents>) -> Self {
        Self {
            networks: Arc::default(),
            proxies: Vec::new(),
            incidents,
        }
    }
}

/// Connections that wait to be accepted, as far as the system allows so many: more than one client
/// can open while it is being turned away. When there is no place, the system drops the first packet
/// of a device without a word, which it sends again after a second.
const WAITING: u32 = 4096;

/// Listens for what an [`Acceptor`] accepts, even if connections of a server that was here before have
/// not ended yet.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Connections that are turned away are kept open for a moment: a client that opens another as soon as
/// one is closed is slowed down, at the cost of so many descriptors.
const TURNED_AWAY: usize = 1024;
/// How long that is.
const MOMENT: Duration = Duration::from_secs(1);

/// Connections for which there is no place, the oldest first. Dropping one closes it.
#[derive(Default)]
struct TurnedAway(VecDeque<(Instant, TcpStream)>);

impl TurnedAway {
    fn take(&mut self, tcp: TcpStream) {
        if self.0.len() == TURNED_AWAY {
            self.0.pop_front();
        }
        self.0.push_back((Instant::now() + MOMENT, tcp));
    }

    /// Waits until the oldest is due, and closes it. Losing this future loses nothing.
    async fn close_next(&mut self) {
        let Some((due, _)) = self.0.front() else {
            return std::future::pending().await;
        };
        sleep_until(*due).await;
        self.0.pop_front();
    }
}

/// A connection before its handshake, which has a place among all.
enum Newcomer {
    /// Of a client that counts.
    Client(Slot),
    /// From a load balancer, which has yet to say for whom it speaks.
    Behind(OwnedSemaphorePermit),
}

/// Admits connections and shakes hands.
pub struct Acceptor {
    limits: AcceptLimits,
    admission: Arc<Admission>,
    handshakes: Semaphore,
    surroundings: Surroundings,
}

impl Acceptor {
    /// With its own bounds, to be shared by listeners that should share them.
    pub fn new(limits: AcceptLimits, surroundings: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            limits,
            admission: Admission::new(limits, surroundings.networks.clone()),
            handshakes: Semaphore::new(limits.handshakes),
            surroundings,
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
        let mut turned_away = TurnedAway::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                () = turned_away.close_next() => continue,
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
            // Before a task is spawned: one connection too many costs next to nothing.
            let Some(newcomer) = self.admit(address.ip()) else {
                turned_away.take(tcp);
                continue;
            };
            let (this, config, serve) = (self.clone(), config.clone(), serve.clone());
            tokio::spawn(async move {
                if let Some(accepted) = this.receive(tcp, address, config, newcomer).await {
                    serve(accepted).await;
                }
            });
        }
    }

    /// Gives a connection its place, if there is one.
    fn admit(&self, address: IpAddr) -> Option<Newcomer> {
        let Some(connection) = self.admission.connection() else {
            self.note(Incident::TooManyConnections, address);
            return None;
        };
        if self.is_proxy(address) {
            return Some(Newcomer::Behind(connection));
        }
        let slot = self.slot(connection, address)?;
        Some(Newcomer::Client(slot))
    }

    fn slot(&self, connection: OwnedSemaphorePermit, address: IpAddr) -> Option<Slot> {
        let slot = self.admission.client(connection, address);
        if slot.is_none() {
            self.note(Incident::TooManyOfClient, address);
        }
        slot
    }

    /// Everything before the protocol: whom the connection is from, whether there is room for it,
    /// and the handshake, all within one time.
    async fn receive(
        &self,
        mut tcp: TcpStream,
        address: SocketAddr,
        config: Arc<ServerConfig>,
        newcomer: Newcomer,
    ) -> Option<Accepted> {
        let deadline = Instant::now() + self.limits.handshake_within;
        let (address, mut slot) = match newcomer {
            Newcomer::Client(slot) => (address, slot),
            Newcomer::Behind(connection) => {
                let source = self.source(&mut tcp, address, deadline).await?;
                (source, self.slot(connection, source.ip())?)
            }
        };
        let tls = match timeout_at(deadline, self.shake_hands(tcp, config, &slot)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake failed");
                // One that leaves is no incident: health checks do.
                if error.kind() == io::ErrorKind::InvalidData {
                    self.note(Incident::FailedHandshake, address.ip());
                }
                return None;
            }
            Err(_) => {
                self.note(Incident::SlowHandshake, address.ip());
                return None;
            }
        };
        slot.has_shaken_hands();
        let (_, session) = tls.get_ref();
        let peer = Peer {
            address,
            certificates: session.peer_certificates().unwrap_or_default().into(),
            server_name: session.server_name().map(str::to_owned),
        };
        let stream = Stream { tls, _slot: slot };
        Some(Accepted { stream, peer })
    }

    /// Whom a load balancer speaks for: itself, if it says so.
    async fn source(
        &self,
        tcp: &mut TcpStream,
        address: SocketAddr,
        deadline: Instant,
    ) -> Option<SocketAddr> {
        match timeout_at(deadline, proxy::read(tcp)).await {
            Ok(Ok(source)) => Some(source.unwrap_or(address)),
            // Many load balancers look for life by opening a connection and closing it.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Ok(Err(_)) | Err(_) => {
                self.note(Incident::BadProxyHeader, address.ip());
                None
            }
        }
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        slot: &Slot,
    ) -> io::Result<TlsStream<TcpStream>> {
        // Answers are small and a device waits for each.
        tcp.set_nodelay(true)?;
        let _permit = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp).await?;
        in_turns(slot, hello.into_stream(config)).await
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let proxies = &self.surroundings.proxies;
        proxies.iter().any(|network| network.contains(&address))
    }

    fn note(&self, incident: Incident, address: IpAddr) {
        self.surroundings.incidents.note(incident, address);
    }
}

/// Computes each step of `work` in a turn of the client, and waits for the client without one.
async fn in_turns<F: Future>(slot: &Slot, work: F) -> F::Output {
    let mut work = pin!(work);
    loop {
        let turn = slot.turn().await;
        let step = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        drop(turn);
        if let Poll::Ready(done) = step {
            return done;
        }
        woken().await;
    }
}

/// Ends when the task is woken, which whoever was polled before will do.
async fn woken() {
    let mut asleep = false;
    poll_fn(|_| {
        if std::mem::replace(&mut asleep, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
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
