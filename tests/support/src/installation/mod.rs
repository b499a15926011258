//! Rehome as its chart installs it, on a test cluster: the chart's kinds, Roles and policies, and
//! the product's own processes with the rights of their own `ServiceAccount`s.
//!
//! What a Deployment would start is started here as processes of this machine; each server has an
//! address of its own, since device SDKs know only the standard ports.

mod addresses;
mod calls;
mod census;
mod hub;
mod more;
mod replica;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use addresses::Addresses;
pub use addresses::Place;
pub use calls::Calls;
pub use hub::{Hub, Twin};
pub use replica::Replica;

use crate::certificates::Authority;
use crate::chart::Operator;
use crate::cluster::Cluster;
use crate::device::{Registrar, Trust};
use crate::network::{free_port, loopback};
use crate::process::Process;
use crate::warden::scratch;

/// Longest time for a process to serve.
const START: Duration = Duration::from_mins(1);
/// Longest time for a process to end when it is asked to.
const END: Duration = Duration::from_secs(20);

/// A running controller and gateway, and hubs for devices to live on.
pub struct Installation {
    pub operator: Operator,
    pub controller: Process,
    /// Where the controller says how it is, and serves its metrics.
    pub controller_health: SocketAddr,
    pub gateway: Process,
    /// Where the gateway says how it is, and serves its metrics.
    pub gateway_health: SocketAddr,
    pub hubs: Vec<Hub>,
    /// Where devices register.
    pub registrar: Registrar,
    /// Logs, certificates and the hubs' stores.
    pub directory: PathBuf,
    addresses: Addresses,
    authority: Authority,
    binary: PathBuf,
}

/// Flags beyond those that every installation has.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub controller: Vec<String>,
    pub gateway: Vec<String>,
}

/// What the processes have in common.
struct Server<'a> {
    binary: &'a Path,
    directory: &'a Path,
}

impl Installation {
    /// Installs the chart on `cluster` and starts the program `rehome` as controller, as gateway
    /// and as a hub for each of the names.
    pub async fn start(cluster: &Cluster, rehome: &Path, hubs: &[&str]) -> Result<Self> {
        Self::start_with(cluster, rehome, hubs, &Flags::default()).await
    }

    /// As [`Self::start`], with these flags besides.
    pub async fn start_with(
        cluster: &Cluster,
        rehome: &Path,
        hubs: &[&str],
        flags: &Flags,
    ) -> Result<Self> {
        Self::start_at(Addresses::claim(None)?, cluster, rehome, hubs, flags).await
    }

    /// As [`Self::start_with`], with names in `domain` for the servers. Whoever calls this tells the
    /// resolver of them.
    pub async fn start_with_names(
        domain: &'static str,
        cluster: &Cluster,
        rehome: &Path,
        hubs: &[&str],
        flags: &Flags,
    ) -> Result<Self> {
        let addresses = Addresses::claim(Some(domain))?;
        Self::start_at(addresses, cluster, rehome, hubs, flags).await
    }

    async fn start_at(
        addresses: Addresses,
        cluster: &Cluster,
        rehome: &Path,
        hubs: &[&str],
        flags: &Flags,
    ) -> Result<Self> {
        let directory = scratch("installation")?;
        let server = Server {
            binary: rehome,
            directory: &directory,
        };
        let operator = cluster.install_operator().await?;
        let authority = Authority::new("Rehome test CA")?;
        let (controller, controller_health) = server
            .start_controller(&operator, "controller", &flags.controller)
            .await?;
        let place = addresses.place(2);
        let (gateway, gateway_health) = server
            .start_gateway(&operator, &authority, place, "gateway", &flags.gateway)
            .await?;
        let mut running = Vec::new();
        for (number, name) in (3..).zip(hubs) {
            let place = addresses.place(number);
            running.push(Hub::start(name, place, &server, &authority).await?);
        }
        let registrar = registrar(place, &authority)?;
        Ok(Self {
            operator,
            controller,
            controller_health,
            gateway,
            gateway_health,
            hubs: running,
            registrar,
            directory,
            addresses,
            authority,
            binary: rehome.to_owned(),
        })
    }

    /// The hub that devices are told by this name.
    pub fn hub_at(&self, host: &str) -> Result<&Hub> {
        let found = self.hubs.iter().find(|hub| hub.host() == host);
        found.with_context(|| format!("no hub is called {host:?}"))
    }

    /// Ends everything in good order; an error if a process does not end when it is asked to.
    pub async fn stop(mut self) -> Result<()> {
        // The servers before the controller, which gives up its Lease.
        self.gateway.terminate(END).await?;
        self.controller.terminate(END).await?;
        for hub in &mut self.hubs {
            hub.process.terminate(END).await?;
        }
        Ok(())
    }
}

impl Server<'_> {
    async fn start_controller(
        &self,
        operator: &Operator,
        name: &str,
        flags: &[String],
    ) -> Result<(Process, SocketAddr)> {
        let health = SocketAddr::from((loopback(1), free_port(loopback(1))?));
        let arguments = [
            "controller".to_owned(),
            format!("--kubeconfig={}", operator.controller.kubeconfig.display()),
            format!(
                "--gateway-service-account={}/rehome-gateway",
                operator.namespace
            ),
            format!("--gateway-token-dir={}", self.token_directory()?.display()),
            format!("--lease-namespace={}", operator.namespace),
            format!("--health-listen={health}"),
        ];
        let mut process = self.spawn(name, &arguments, flags)?;
        process.wait_for_port(health, START).await?;
        // The gateway's token, which it needs to start.
        let token = self.token_directory()?.join("token");
        process
            .wait_until("the gateway's token", START, async |_| {
                Ok(token.is_file().then_some(()))
            })
            .await?;
        Ok((process, health))
    }

    async fn start_gateway(
        &self,
        operator: &Operator,
        authority: &Authority,
        place: Place,
        name: &str,
        flags: &[String],
    ) -> Result<(Process, SocketAddr)> {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory)?;
        self.write_certificate(&directory, authority, place)?;
        let file = |name: &str| directory.join(name).display().to_string();
        let health = SocketAddr::from((loopback(1), free_port(loopback(1))?));
        let token = self.token_directory()?.join("token");
        let arguments = [
            "gateway".to_owned(),
            // Where the API server is; who the gateway is there, the token says.
            format!("--kubeconfig={}", operator.gateway.kubeconfig.display()),
            format!("--token-file={}", token.display()),
            format!("--https-listen={}", place.https()),
            format!("--mqtt-listen={}", place.mqtt()),
            format!("--amqp-listen={}", place.amqp()),
            format!("--health-listen={health}"),
            format!("--tls-cert={}", file("tls.crt")),
            format!("--tls-key={}", file("tls.key")),
        ];
        let mut process = self.spawn(name, &arguments, flags)?;
        process.wait_for_port(place.https(), START).await?;
        process.wait_for_port(place.mqtt(), START).await?;
        process.wait_for_port(place.amqp(), START).await?;
        Ok((process, health))
    }

    fn token_directory(&self) -> Result<PathBuf> {
        let directory = self.directory.join("gateway-token");
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    fn spawn(&self, name: &str, arguments: &[String], flags: &[String]) -> Result<Process> {
        let arguments = arguments.iter().chain(flags);
        let log = self.directory.join(format!("{name}.log"));
        Process::spawn(name, self.binary, arguments, [("", ""); 0], log)
    }

    /// A certificate for a server that is known by its address.
    fn write_certificate(&self, to: &Path, authority: &Authority, place: Place) -> Result<()> {
        let issued = authority.issue(&[place.host()])?;
        std::fs::write(to.join("tls.crt"), issued.cert_pem)?;
        std::fs::write(to.join("tls.key"), issued.key_pem)?;
        Ok(())
    }
}

fn registrar(place: Place, authority: &Authority) -> Result<Registrar> {
    Ok(Registrar {
        host: place.host(),
        https: place.https(),
        mqtt: place.mqtt(),
        amqp: place.amqp(),
        trust: Trust::new(&authority.cert_pem())?,
    })
}
