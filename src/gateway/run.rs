//! `rehome gateway`: puts the parts together, and takes them apart in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fronts::{Fronts, Listeners, stopped};
use super::health;
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::options::Options;
use super::registrations::Cluster;
use super::service::Service;
use super::tenants::Tenants;
use super::watch::{Health, SILENCE, Watches};
use crate::clock::Clock;
use crate::cluster::connect::{Clients, ConnectError, Connection};
use crate::random::{Random as _, SystemRandom};
use crate::wire::tls::{Acceptor, CertificateError, Certificates, Surroundings, listen};

/// How long requests that are being served may take after the gateway was asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long devices that connect to a gateway which has just been started may be kept waiting.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// Longest time for one call to the API server: a device is waiting.
const CALL: Duration = Duration::from_secs(5);
/// How often to look for a token that is not there yet.
const LOOK: Duration = Duration::from_millis(500);

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the server certificate cannot be used")]
    Certificate(#[from] CertificateError),
    #[error("TLS cannot be configured")]
    Tls(#[from] rustls::Error),
    #[error("cannot listen on {address} for {what}")]
    Listen {
        what: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the API server cannot be used")]
    Connect(#[from] ConnectError),
    #[error("the process cannot learn when it is to end")]
    Signals(#[source] io::Error),
    #[error("a part of the gateway ended by itself")]
    Ended,
}

/// Runs until the process is asked to end (SIGTERM, SIGINT), then lets what is being served finish.
///
/// # Errors
/// Something that cannot be used: a file, an address, the cluster.
pub async fn run(options: Options, clock: Arc<dyn Clock>) -> Result<(), RunError> {
    let (stopper, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody listens any more when the gateway has ended by itself.
        let _ = stopper.send(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = run_until(options, clock, stop) => ended,
        () = signals => Ok(()),
    }
}

async fn run_until(
    options: Options,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let certificates = Certificates::load(&options.tls_cert, &options.tls_key)?;
    // Bound before the cluster is asked: a port that is taken is said at once.
    let listeners = Listeners {
        https: bind("HTTPS", options.https_listen)?,
        mqtt: bind("MQTT", options.mqtt_listen)?,
        amqp: bind("AMQP", options.amqp_listen)?,
    };
    let health_listener = bind("health", options.health_listen)?;
    let metrics = Arc::new(Metrics::new(clock.clone()));
    let health = Arc::new(Health::new(clock.clone(), SILENCE));
    let mut parts = JoinSet::new();
    let mirror = Arc::new(Mirror::default());
    let router = health::router(health.clone(), metrics.clone(), mirror.clone());
    // Alive while it waits for its token; ready only when everything is known.
    parts.spawn(health::listen(health_listener, router, stop.clone()));
    let clients = tokio::select! {
        clients = connect(&options.connection) => clients?,
        () = stopped(stop.clone()) => return Ok(()),
    };
    let gateway = Gateway {
        clients,
        certificates,
        metrics,
        mirror,
        clock,
        stop,
    };
    gateway.serve(&options, listeners, &health, parts).await
}

/// Connects, once the token is there: in a pod the controller provides it, and starts later.
async fn connect(connection: &Connection) -> Result<Clients, ConnectError> {
    if let Some(file) = &connection.token_file {
        let mut waited = false;
        while tokio::fs::metadata(file).await.is_err() {
            if !waited {
                tracing::info!(token_file = %file.display(), "waiting for the token");
                waited = true;
            }
            sleep(LOOK).await;
        }
    }
    connection.clients(CALL).await
}

struct Gateway {
    clients: Clients,
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
    mirror: Arc<Mirror>,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
}

impl Gateway {
    async fn serve(
        self,
        options: &Options,
        listeners: Listeners,
        health: &Arc<Health>,
        mut parts: JoinSet<()>,
    ) -> Result<(), RunError> {
        let bounds = options.bounds();
        let networks = bounds.settings.networks.clone();
        let tenants = Arc::new(Tenants::default());
        if !options.namespaces.is_empty() {
            tenants.update_scopes(|scopes| scopes.fix(options.fixed_scopes()));
        }
        let watches = Watches {
            client: self.clients.watches.clone(),
            namespaces: options.namespaces.clone(),
            tenants: tenants.clone(),
            mirror: self.mirror.clone(),
        };
        let mut watching = watches.start(health);
        let service = Arc::new(Service::new(
            tenants,
            Cluster::new(self.clients.requests.clone(), self.mirror.clone()),
            self.clock.clone(),
            random,
            bounds.settings,
            self.metrics.clone(),
        ));
        let poll = Duration::from_secs(options.tls_poll_seconds);
        parts.spawn(self.certificates.clone().keep_fresh(poll));
        let surroundings = Surroundings {
            networks,
            proxies: options.proxy_protocol_from.clone(),
            incidents: self.metrics.incidents().clone(),
        };
        let fronts = Fronts {
            service,
            certificates: self.certificates.clone(),
            acceptor: Acceptor::new(bounds.accept, surroundings),
            http: bounds.http,
            mqtt: bounds.mqtt,
            amqp: bounds.amqp,
        };
        tokio::select! {
            () = known(health) => {}
            () = stopped(self.stop.clone()) => return Ok(()),
            _ = watching.join_next() => return Err(RunError::Ended),
        }
        let served = fronts.listen(&mut parts, listeners, &self.stop)?;
        tracing::info!(
            https = %options.https_listen,
            mqtt = %options.mqtt_listen,
            amqp = %options.amqp_listen,
            "the gateway serves"
        );
        tokio::select! {
            () = stopped(self.stop.clone()) => {}
            _ = watching.join_next() => return Err(RunError::Ended),
            _ = parts.join_next() => if !*self.stop.borrow() { return Err(RunError::Ended) },
        }
        tracing::info!("the gateway stops");
        if timeout(GRACE, served.ended()).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
        }
        Ok(())
    }
}

/// A number that nobody else has, for ids.
fn random() -> u128 {
    u128::from_be_bytes(SystemRandom.bytes())
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    listen(address).map_err(|source| RunError::Listen {
        what,
        address,
        source,
    })
}

/// Waits until everything is known that devices are judged by: to an SDK, "not enrolled" is final.
/// After a while devices are answered with what is known, so that they hear anything at all.
async fn known(health: &Health) {
    let complete = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while health.check().is_err() {
            looks.tick().await;
        }
    };
    if timeout(KNOWN_WITHIN, complete).await.is_err() {
        tracing::warn!("the gateway serves although it does not know every Enrollment yet");
    }
}
