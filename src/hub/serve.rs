//! `rehome hub`: the hub with sockets, files and signals.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::certificates::Authorities;
use super::device::ClientCertificates;
use super::files::{FileError, REFRESH, WatchedFile};
use super::health::{self, Health};
use super::policy::Policies;
use super::source::{Source, Unopened};
use super::{DEFAULT_MAX_DEVICES, Hub, Settings, device, rest};
use crate::clock::Clock;
use crate::wire::tls::{
    AcceptLimits, Accepted, Acceptor, CertificateError, Certificates, Surroundings, listen,
    server_config,
};
use crate::wire::websocket::Handover;

/// From the start of a request to the end of its headers; also how long a connection may idle.
const HEADERS_WITHIN: Duration = Duration::from_mins(2);
const HEADER_BYTES: usize = 32 * 1024;
/// How long connections have to end when the hub is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serve a self-hosted IoT hub: a service API over HTTPS, devices over MQTT and HTTPS.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name under which devices and services reach this hub; its certificate must carry it.
    #[arg(long, env = "REHOME_HUB_HOST_NAME")]
    host_name: String,
    /// File that holds the devices; created where it does not exist.
    #[arg(
        long,
        env = "REHOME_HUB_STORE",
        required_unless_present = "store_postgres",
        conflicts_with = "store_postgres"
    )]
    store: Option<PathBuf>,
    /// File with the connection URL of a PostgreSQL database that holds the devices, instead:
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE`.
    #[arg(long, env = "REHOME_HUB_STORE_POSTGRES", value_name = "FILE")]
    store_postgres: Option<PathBuf>,
    /// PEM file with the server certificate and its chain; read again when it changes.
    #[arg(long, env = "REHOME_HUB_TLS_CERT")]
    tls_cert: PathBuf,
    /// PEM file with the private key of the server certificate.
    #[arg(long, env = "REHOME_HUB_TLS_KEY")]
    tls_key: PathBuf,
    /// JSON file with the shared access policies; read again when it changes.
    #[arg(long, env = "REHOME_HUB_POLICIES")]
    policies: PathBuf,
    /// PEM file with the certificate authorities of devices that are registered as
    /// certificateAuthority; read again when it changes.
    #[arg(long, env = "REHOME_HUB_DEVICE_AUTHORITIES")]
    device_authorities: Option<PathBuf>,
    /// Address of the service API, and for devices over HTTPS (both use port 443).
    #[arg(
        long,
        env = "REHOME_HUB_HTTPS_ADDRESS",
        default_value = "0.0.0.0:10443"
    )]
    https_address: SocketAddr,
    /// Address for devices (they use port 8883).
    #[arg(long, env = "REHOME_HUB_MQTT_ADDRESS", default_value = "0.0.0.0:8883")]
    mqtt_address: SocketAddr,
    /// How many connections of devices are open at once.
    #[arg(long, env = "REHOME_HUB_MAX_CONNECTIONS", default_value_t = 20_000)]
    max_connections: usize,
    /// Address of /livez, /readyz and /metrics (plain HTTP); none when absent.
    #[arg(long, env = "REHOME_HUB_HEALTH_ADDRESS")]
    health_address: Option<SocketAddr>,
    /// How many devices the hub takes.
    #[arg(long, env = "REHOME_HUB_MAX_DEVICES", default_value_t = DEFAULT_MAX_DEVICES)]
    max_devices: u64,
}

/// Why the hub could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the hub's store cannot be used")]
    Store(#[from] Unopened),
    #[error("nothing says where the devices are: set --store or --store-postgres")]
    NoStore,
    #[error("the server certificate cannot be used")]
    Certificate(#[from] CertificateError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0} cannot be listened on for {1}")]
    Listen(SocketAddr, &'static str, #[source] std::io::Error),
    #[error("the hub's store has failed; start the hub again to go on from what is on the disk")]
    StoreFailed,
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
}

/// Serves until the process is told to stop (SIGTERM or SIGINT), then lets connections end.
pub async fn run(options: Options, clock: Arc<dyn Clock>) -> Result<(), RunError> {
    let source = match (options.store, options.store_postgres) {
        (_, Some(url)) => Source::Postgres(url),
        (Some(file), None) => Source::File(file),
        (None, None) => return Err(RunError::NoStore),
    };
    let policies = WatchedFile::<Policies>::read(options.policies)?;
    let authorities = options
        .device_authorities
        .map(WatchedFile::<Authorities>::read)
        .transpose()?;
    let first_authorities = authorities.as_ref().map(WatchedFile::parse).transpose()?;
    let settings = Settings {
        host_name: options.host_name,
        max_devices: options.max_devices,
        policies: policies.parse()?,
        clock,
        random: Arc::new(fill_random),
    };
    let certificates = Certificates::load(&options.tls_cert, &options.tls_key)?;
    let https = server_config(certificates.clone(), &["http/1.1"])?;
    let mqtt = server_config(certificates.clone(), &[])?;
    let https_listener = bind(options.https_address, "the service API")?;
    let mqtt_listener = bind(options.mqtt_address, "devices")?;
    let health_listener = match options.health_address {
        Some(address) => Some(bind(address, "health and metrics")?),
        None => None,
    };
    let (stopping, health) = (watch::Sender::new(false), Arc::new(Health::default()));
    if let Some(listener) = health_listener {
        serve_health(listener, Arc::clone(&health), stopping.subscribe());
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;

    // Before it says that it listens: a store that another process holds must stop the start, or
    // hold it up.
    let store = tokio::select! {
        opened = source.open(&settings.host_name, |why| health.waits_for(why)) => opened?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let hub = Hub::new(store.clone(), settings);
    hub.set_authorities(first_authorities.unwrap_or_default());
    tracing::info!(
        host_name = hub.host_name(),
        https = %options.https_address,
        mqtt = %options.mqtt_address,
        "the hub serves"
    );
    let mut services = Services::new(hub.clone(), stopping);
    services.serve_rest(https_listener, https);
    services.serve_devices(mqtt_listener, mqtt, options.max_connections);
    health.serves(hub.clone());
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = store.broken() => Err(RunError::StoreFailed),
        () = certificates.keep_fresh(REFRESH) => Ok(()),
        () = policies.keep_fresh(|policies| hub.set_policies(policies)) => Ok(()),
        () = keep_authorities_fresh(authorities, &hub) => Ok(()),
        () = part_at_losses(&hub) => Ok(()),
    };
    tracing::info!("the hub stops");
    services.stop().await;
    outcome
}

async fn keep_authorities_fresh(file: Option<WatchedFile<Authorities>>, hub: &Hub) {
    match file {
        Some(file) => file.keep_fresh(|next| hub.set_authorities(next)).await,
        None => std::future::pending().await,
    }
}

/// Ends the connections of devices whenever the store was away: they count on having been told of
/// every write, and of those on their way then nobody knows.
async fn part_at_losses(hub: &Hub) {
    let mut losses = hub.store.losses();
    while losses.changed().await.is_ok() {
        hub.sessions.close_all();
    }
    // A store that never goes away.
    std::future::pending::<()>().await;
}

fn bind(address: SocketAddr, whom: &'static str) -> Result<TcpListener, RunError> {
    listen(address).map_err(|why| RunError::Listen(address, whom, why))
}

#[expect(
    clippy::expect_used,
    reason = "a hub that cannot make unguessable keys must not go on"
)]
fn fill_random(buffer: &mut [u8]) {
    aws_lc_rs::rand::fill(buffer).expect("the system gives randomness");
}

/// The listeners and every connection that came in by them.
struct Services {
    hub: Arc<Hub>,
    /// Becomes true when the hub stops.
    stopping: watch::Sender<bool>,
    /// Each connection holds a clone; all have ended when the receiver sees the end.
    alive: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl Services {
    fn new(hub: Arc<Hub>, stopping: watch::Sender<bool>) -> Self {
        let (alive, ended) = mpsc::channel(1);
        Self {
            hub,
            stopping,
            alive,
            ended,
        }
    }

    fn serve_rest(&mut self, listener: TcpListener, tls: Arc<ServerConfig>) {
        let (hub, router) = (self.hub.clone(), rest::router(self.hub.clone()));
        let limits = AcceptLimits::default();
        self.accept(listener, tls, limits, move |accepted, stopping| {
            serve_http(hub.clone(), accepted, router.clone(), stopping)
        });
    }

    fn serve_devices(&mut self, listener: TcpListener, tls: Arc<ServerConfig>, connections: usize) {
        let limits = AcceptLimits {
            connections,
            ..AcceptLimits::default()
        };
        let hub = self.hub.clone();
        self.accept(listener, tls, limits, move |accepted, _| {
            let certificates = ClientCertificates::from(accepted.peer.certificates);
            device::serve(hub.clone(), accepted.stream, certificates)
        });
    }

    fn accept<F, S>(
        &mut self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        limits: AcceptLimits,
        serve: F,
    ) where
        F: Fn(Accepted, watch::Receiver<bool>) -> S + Clone + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let (alive, stopping) = (self.alive.clone(), self.stopping.subscribe());
        let stop = stopped(stopping.clone());
        let serve = move |accepted| {
            let (alive, served) = (alive.clone(), serve(accepted, stopping.clone()));
            async move {
                served.await;
                drop(alive);
            }
        };
        let surroundings = Surroundings::open(self.hub.metrics.incidents.clone());
        tokio::spawn(Acceptor::new(limits, surroundings).run(listener, tls, serve, stop));
    }

    async fn stop(self) {
        let Self {
            hub,
            stopping,
            alive,
            mut ended,
        } = self;
        drop(alive);
        stopping.send_replace(true);
        hub.sessions.close_all();
        if tokio::time::timeout(GRACE, ended.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// Not among what a stop waits for: it ends with the process.
fn serve_health(listener: TcpListener, health: Arc<Health>, stopping: watch::Receiver<bool>) {
    tokio::spawn(async move {
        let serving = axum::serve(listener, health::router(health));
        if let Err(error) = serving.with_graceful_shutdown(stopped(stopping)).await {
            tracing::error!(%error, "the health endpoints ended");
        }
    });
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that whoever could say it is gone: stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// One HTTPS connection, which a device may turn into a WebSocket with MQTT.
async fn serve_http(
    hub: Arc<Hub>,
    accepted: Accepted,
    router: Router,
    stopping: watch::Receiver<bool>,
) {
    let Accepted { stream, peer } = accepted;
    let certificates = ClientCertificates::from(peer.certificates);
    let handover = Handover::default();
    let attached = (certificates.clone(), handover.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (certificates, handover) = attached.clone();
        request.extensions_mut().insert(certificates);
        request.extensions_mut().insert(handover);
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stopped(stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an HTTPS connection ended early");
    }
    match handover.upgraded().await {
        Ok(None) => {}
        Ok(Some((_, stream))) => device::serve(hub, stream, certificates).await,
        Err(error) => tracing::debug!(%error, "a WebSocket ended before it began"),
    }
}
