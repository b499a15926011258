//! More processes of an installation: replicas, and hubs that come later.

use anyhow::Result;

use super::{Hub, Installation, Place, Server};
use crate::device::Registrar;
use crate::process::Process;

/// From this one on, addresses belong to what is started later.
const LATER: u8 = 100;

impl Installation {
    /// Starts another replica of the gateway, number `number` of them.
    pub async fn another_gateway(
        &self,
        number: u8,
        flags: &[String],
    ) -> Result<(Process, Registrar)> {
        let replica = self.replica(number, flags).await?;
        Ok((replica.process, replica.registrar))
    }

    /// Where replica number `number` is, and what it is called.
    pub(super) fn replica_place(&self, number: u8) -> (Place, String) {
        let place = self.addresses.place(LATER + number);
        (place, format!("gateway-{number}"))
    }

    /// Starts another controller; it waits for the Lease unless the flags say otherwise.
    pub async fn another_controller(&self, name: &str, flags: &[String]) -> Result<Process> {
        let server = self.server();
        let (controller, _) = server.start_controller(&self.operator, name, flags).await?;
        Ok(controller)
    }

    /// Starts another hub, number `number` of those that come later.
    pub async fn another_hub(&self, name: &str, number: u8) -> Result<Hub> {
        let place = self.addresses.place(2 * LATER + number);
        Hub::start(name, place, &self.server(), &self.authority).await
    }

    pub(super) fn server(&self) -> Server<'_> {
        Server {
            binary: &self.binary,
            directory: &self.directory,
        }
    }
}
