//! `rehome controller`: what runs, in which order, and how it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use futures::stream::{self, StreamExt as _};
use futures::{FutureExt as _, TryFuture};
use jiff::SignedDuration;
use kube::Resource;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::context::{Context, Parts};
use super::health::Health;
use super::hub_clients::NetworkTransports;
use super::triggers::{self, Queues, Triggers};
use super::{counters, enrollment, gateway_access, hub, registration, status, sweep};
use crate::clock::Clock;
use crate::cluster::connect::{Clients, ConnectError, Connection};
use crate::cluster::lease::{HeldLease, LeaseClaim};
use crate::cluster::token::{ServiceAccountRef, keep_token};
use crate::cluster::watch::{Scope, Watched};
use crate::random::{Random, SystemRandom};

/// Longest that one request to the API server may take.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// How long passes have to end when the process is told to stop.
const GRACE: Duration = Duration::from_secs(15);
/// Hubs that are connected to at the same time.
const CONNECTING: usize = 8;

/// Keep hubs, enrollments and device registrations as their objects say: the operator.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Namespace to serve; may be given several times. All namespaces when absent.
    #[arg(long = "namespace", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// ServiceAccount of the gateway, which is granted the attestation Secrets. Nobody is when
    /// absent.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway_service_account: Option<ServiceAccountRef>,
    /// Directory in which to keep a token of the gateway's ServiceAccount (file `token`).
    #[arg(long, value_name = "DIRECTORY", requires = "gateway_service_account")]
    gateway_token_dir: Option<PathBuf>,
    /// Namespace of the Lease; that of the pod or of the kubeconfig's context when absent.
    #[arg(long)]
    lease_namespace: Option<String>,
    /// Name of the Lease.
    #[arg(long, default_value = "rehome-controller")]
    lease_name: String,
    /// Act without the Lease. For tests: two active controllers do no harm, but double the work.
    #[arg(long)]
    no_leader_election: bool,
    /// Name of this process in events and in the Lease.
    #[arg(long, env = "POD_NAME", default_value = "rehome-controller")]
    instance: String,
    /// Address of /livez, /readyz and /metrics (plain HTTP); none when absent.
    #[arg(long, value_name = "ADDRESS")]
    health_listen: Option<SocketAddr>,
    /// Longest that one call to a hub may take, such as 20s.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    hub_call_timeout: Duration,
    #[command(flatten)]
    hosting: hub::Hosting,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the API server.
    #[error("the API server cannot be used")]
    Connect(#[from] ConnectError),
    /// The health endpoints cannot be served.
    #[error("{0} cannot be listened on for health and metrics")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    /// Another process may act now.
    #[error("the lease is lost; another process acts now")]
    LeaseLost,
    /// Something that must not end did.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

type Stop = Shared<BoxFuture<'static, ()>>;

/// Runs until the process is told to stop (SIGTERM or SIGINT) or loses the lease.
pub async fn run(options: Options, clock: Arc<dyn Clock>) -> Result<(), RunError> {
    let stop = stop_signal()?;
    let clients = options.connection.clients(API_TIMEOUT).await?;
    let health = Health::default();
    let mut background = JoinSet::new();
    if let Some(address) = options.health_listen {
        let serving = health.clone().serve(address).await;
        let serving = serving.map_err(|error| RunError::Listen(address, error))?;
        background.spawn(serving.map(|()| "the health endpoint"));
    }
    if let (Some(account), Some(directory)) =
        (&options.gateway_service_account, &options.gateway_token_dir)
    {
        // Every replica's gateway needs a token, not only that of the one that acts.
        let client = clients.requests.clone();
        let keeping = keep_token(client, account.clone(), directory.clone(), clock.clone());
        background.spawn(keeping.map(|()| "the keeper of the gateway's token"));
    }
    let random = Arc::new(SystemRandom);
    let Some(mut lease) = options
        .lease(&clients, &clock, random.as_ref(), stop.clone())
        .await
    else {
        return Ok(());
    };
    let parts = Parts {
        clients,
        scope: Scope::of(options.namespaces),
        clock,
        random,
        transports: Arc::new(NetworkTransports),
        call_timeout: options.hub_call_timeout,
        hosting: options.hosting,
        instance: options.instance,
    };
    let acting = act(parts, options.gateway_service_account, health, stop);
    let ended = tokio::select! {
        biased;
        () = lost(lease.as_mut()) => return Err(RunError::LeaseLost),
        Some(what) = background.join_next() => {
            Err(RunError::Ended(what.unwrap_or("a background task")))
        }
        ended = acting => ended,
    };
    if let Some(lease) = lease {
        lease.release().await;
    }
    ended
}

impl Options {
    /// The lease, `Some(None)` when none is needed, or `None` when told to stop before it is ours.
    async fn lease(
        &self,
        clients: &Clients,
        clock: &Arc<dyn Clock>,
        random: &dyn Random,
        stop: Stop,
    ) -> Option<Option<HeldLease>> {
        if self.no_leader_election {
            return Some(None);
        }
        let client = clients.requests.clone();
        let namespace = self.lease_namespace.clone();
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let unique = uuid::Builder::from_random_bytes(random.bytes()).into_uuid();
        let identity = format!("{}_{unique}", self.instance);
        let claim = LeaseClaim::new(
            client,
            &namespace,
            &self.lease_name,
            &identity,
            clock.clone(),
        );
        tokio::select! {
            lease = claim.acquire() => Some(Some(lease)),
            () = stop => None,
        }
    }
}

async fn lost(lease: Option<&mut HeldLease>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}

/// Everything that only one process should do.
async fn act(
    parts: Parts,
    gateway: Option<ServiceAccountRef>,
    health: Health,
    stop: Stop,
) -> Result<(), RunError> {
    let scope = parts.scope.clone();
    let (triggers, queues) = Triggers::new();
    let (ctx, watches, event_writer) = Context::new(parts, triggers);
    health.acts(ctx.clone());
    let mut endless = JoinSet::new();
    endless.spawn(watches.run().map(|()| "the watches"));
    endless.spawn(event_writer.map(|()| "the writer of events"));
    tokio::select! {
        () = ctx.synced() => {}
        () = stop.clone() => return Ok(()),
        Some(what) = endless.join_next() => {
            return Err(RunError::Ended(what.unwrap_or("a watch")));
        }
    }
    let Queues {
        hubs,
        enrollments,
        registrations,
        access,
    } = queues;
    endless.spawn(counters::publish(ctx.clone()).map(|()| "the counters"));
    endless.spawn(sweep::run(ctx.clone()).map(|()| "the sweep"));
    if let Some(gateway) = gateway {
        let keeping = gateway_access::keep(ctx.clone(), gateway, scope, access);
        endless.spawn(keeping.map(|()| "the keeper of the gateway's grants"));
    }
    // A registration that needs a hub must not find it without a client only because we started.
    connect_hubs(&ctx).await;
    let stores = ctx.stores.clone();
    let drive_hubs = Driven::new(hub::reconcile, status::retry, 16);
    let drive_enrollments = Driven::new(enrollment::reconcile, status::retry, 16);
    let drive_registrations = Driven::new(registration::reconcile, registration::on_error, 64);
    let mut controllers = JoinSet::new();
    controllers.spawn(drive_hubs.run(stores.hubs, hubs, &ctx, &stop));
    controllers.spawn(drive_enrollments.run(stores.enrollments, enrollments, &ctx, &stop));
    controllers.spawn(drive_registrations.run(stores.registrations, registrations, &ctx, &stop));
    tracing::info!("the controller acts");
    until_told(stop, &mut endless, &mut controllers).await?;
    tracing::info!("the controller stops; passes under way may end");
    let all_ended = async { while controllers.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::warn!("passes are still under way; they are broken off, which is safe");
    }
    Ok(())
}

/// Waits until told to stop; what ends before that is a failure.
async fn until_told(
    stop: Stop,
    endless: &mut JoinSet<&'static str>,
    controllers: &mut JoinSet<()>,
) -> Result<(), RunError> {
    tokio::select! {
        // Controllers are told to stop as well: one that has is no failure.
        biased;
        () = stop => Ok(()),
        Some(what) = endless.join_next() => {
            Err(RunError::Ended(what.unwrap_or("a background task")))
        }
        Some(_) = controllers.join_next() => Err(RunError::Ended("a controller")),
    }
}

async fn connect_hubs(ctx: &Arc<Context>) {
    stream::iter(ctx.stores.hubs.state())
        .for_each_concurrent(CONNECTING, |hub| {
            let ctx = ctx.clone();
            async move { hub::connect(&hub, &ctx).await }
        })
        .await;
}

/// One kind's reconciler.
struct Driven<K, F: TryFuture> {
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
    retry: fn(Arc<K>, &F::Error, Arc<Context>) -> Action,
    /// Objects worked on at the same time; passes wait for hubs most of their time.
    concurrency: u16,
}

impl<K, F> Driven<K, F>
where
    K: Watched + Resource<DynamicType = ()>,
    F: TryFuture<Ok = Action> + Send + 'static,
    F::Error: std::error::Error + Send + 'static,
{
    fn new(
        reconcile: fn(Arc<K>, Arc<Context>) -> F,
        retry: fn(Arc<K>, &F::Error, Arc<Context>) -> Action,
        concurrency: u16,
    ) -> Self {
        Self {
            reconcile,
            retry,
            concurrency,
        }
    }

    /// Works off the queue until told to stop and the passes under way have ended. The watches run
    /// by themselves and tell the queue what to look at.
    fn run(
        self,
        store: Store<K>,
        queue: UnboundedReceiver<ObjectRef<K>>,
        ctx: &Arc<Context>,
        stop: &Stop,
    ) -> impl Future<Output = ()> + Send + use<K, F> {
        Controller::for_stream(stream::pending(), store)
            .reconcile_on(triggers::stream(queue))
            .with_config(Config::default().concurrency(self.concurrency))
            .graceful_shutdown_on(stop.clone())
            .run(self.reconcile, self.retry, ctx.clone())
            .for_each(|_| async {})
    }
}

fn stop_signal() -> Result<Stop, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(told.boxed().shared())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    let parsed = Duration::try_from(parsed).map_err(|error| format!("{error}"))?;
    if parsed < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// A controller that has ended before anybody looks.
    async fn ended() -> JoinSet<()> {
        let mut controllers = JoinSet::new();
        let controller = controllers.spawn(ready(()));
        while !controller.is_finished() {
            tokio::task::yield_now().await;
        }
        controllers
    }

    #[tokio::test]
    async fn a_controller_that_is_quick_to_stop_is_no_failure() {
        // Often, because what is ready first would otherwise be chosen by chance.
        for _ in 0..64 {
            let told: Stop = ready(()).boxed().shared();
            let outcome = until_told(told, &mut JoinSet::new(), &mut ended().await).await;
            assert!(outcome.is_ok(), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_controller_that_nobody_told_to_stop_is_one() {
        let never: Stop = pending().boxed().shared();
        let outcome = until_told(never, &mut JoinSet::new(), &mut ended().await).await;
        assert!(matches!(outcome, Err(RunError::Ended("a controller"))));
    }
}
