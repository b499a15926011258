//! Gateways beside the first one.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{Installation, Place, registrar};
use crate::device::Registrar;
use crate::process::Process;

/// A gateway that can be killed and started again.
pub struct Replica {
    /// Where devices register.
    pub registrar: Registrar,
    pub process: Process,
    /// Where it says how it is, and serves its metrics.
    pub health: SocketAddr,
    place: Place,
    name: String,
    flags: Vec<String>,
}

impl Installation {
    /// Starts another replica of the gateway, number `number` of them.
    pub async fn replica(&self, number: u8, flags: &[String]) -> Result<Replica> {
        let (place, name) = self.replica_place(number);
        let (process, health) = self.start_replica(place, &name, flags).await?;
        Ok(Replica {
            registrar: registrar(place, &self.authority)?,
            process,
            health,
            place,
            name,
            flags: flags.to_owned(),
        })
    }

    async fn start_replica(
        &self,
        place: Place,
        name: &str,
        flags: &[String],
    ) -> Result<(Process, SocketAddr)> {
        let (operator, authority) = (&self.operator, &self.authority);
        let server = self.server();
        server
            .start_gateway(operator, authority, place, name, flags)
            .await
    }
}

impl Replica {
    /// Kills it and starts it again in the same place.
    pub async fn restart(&mut self, installation: &Installation) -> Result<()> {
        self.process.kill()?;
        (self.process, self.health) = installation
            .start_replica(self.place, &self.name, &self.flags)
            .await?;
        Ok(())
    }

    /// How many requests it has answered since it was started: those whose labels contain each of
    /// these texts, such as `operation="poll"`.
    pub async fn answers(&self, labels: &[&str]) -> Result<u64> {
        let url = format!("http://{}/metrics", self.health);
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
}
