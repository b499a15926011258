//! More processes of an installation: replicas, and hubs that come later.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{Hub, Installation, Server, registrar};
use crate::device::Registrar;
use crate::process::Process;

/// From this one on, addresses belong to what is started later.
const LATER: u8 = 100;

/// Another replica of the gateway.
pub struct Replica {
    pub process: Process,
    /// Where devices register.
    pub registrar: Registrar,
    /// Where it says how it is, and serves its metrics.
    pub health: SocketAddr,
}

impl Installation {
    /// Starts another replica of the gateway, number `number` of them; after its end it can be
    /// started again in the same place.
    pub async fn replica(&self, number: u8, flags: &[String]) -> Result<Replica> {
        let place = self.addresses.place(LATER + number);
        let name = format!("gateway-{number}");
        let (process, health) = self
            .server()
            .start_gateway(&self.operator, &self.authority, place, &name, flags)
            .await?;
        Ok(Replica {
            process,
            registrar: registrar(place, &self.authority)?,
            health,
        })
    }

    /// As [`Self::replica`], for those who do not look how it is.
    pub async fn another_gateway(
        &self,
        number: u8,
        flags: &[String],
    ) -> Result<(Process, Registrar)> {
        let replica = self.replica(number, flags).await?;
        Ok((replica.process, replica.registrar))
    }

    /// Kills the gateway and starts it again in the same place.
    pub async fn restart_gateway(&mut self, flags: &[String]) -> Result<()> {
        self.gateway.kill()?;
        let place = self.addresses.place(2);
        (self.gateway, self.gateway_health) = self
            .server()
            .start_gateway(&self.operator, &self.authority, place, "gateway", flags)
            .await?;
        Ok(())
    }

    /// How many requests the gateway has answered since it was started: those whose labels contain
    /// each of these texts, such as `operation="poll"`.
    pub async fn gateway_answers(&self, labels: &[&str]) -> Result<u64> {
        let url = format!("http://{}/metrics", self.gateway_health);
        let response = reqwest::get(&url).await.with_context(|| url.clone())?;
        let text = response.error_for_status()?.text().await?;
        let of_requests = |line: &&str| line.starts_with("rehome_gateway_requests_total{");
        let mut count = 0;
        for line in text.lines().filter(of_requests) {
            if labels.iter().all(|label| line.contains(label)) {
                let (_, number) = line.rsplit_once(' ').context("a counter has a value")?;
                count += number.parse::<u64>()?;
            }
        }
        Ok(count)
    }

    /// Starts another controller; it waits for the Lease unless the flags say otherwise.
    pub async fn another_controller(&self, name: &str, flags: &[String]) -> Result<Process> {
        let server = self.server();
        server.start_controller(&self.operator, name, flags).await
    }

    /// Starts another hub, number `number` of those that come later.
    pub async fn another_hub(&self, name: &str, number: u8) -> Result<Hub> {
        let place = self.addresses.place(2 * LATER + number);
        Hub::start(name, place, &self.server(), &self.authority).await
    }

    fn server(&self) -> Server<'_> {
        Server {
            binary: &self.binary,
            directory: &self.directory,
        }
    }
}
