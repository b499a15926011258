//! Where the scenarios are played: what they need of a node, apart from Kubernetes itself.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rehome_testing::Cluster;
use rehome_testing::node::{Machine, Node};

/// A cluster of one node, and whoever is outside of it.
pub(crate) struct Place {
    machine: Machine,
    node: Node,
}

impl Place {
    pub(crate) async fn make() -> Result<Self> {
        let machine = Machine::set_up()?;
        let node = Node::start(&machine).await?;
        Ok(Self { machine, node })
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        self.node.cluster()
    }

    /// Brings the images of an archive to the node.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        self.node.import(archive)
    }

    /// Kills the containers of that name, of a container or a pod, by SIGKILL; says how many there were.
    pub(crate) fn kill_container(&self, namespace: &str, name: &str) -> Result<usize> {
        self.node.kill_container(namespace, name)
    }

    /// Takes the power from the node.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        self.node.crash().await
    }

    /// Starts the node again, over what is on its disk.
    pub(crate) async fn boot(&mut self) -> Result<()> {
        self.node.boot().await
    }

    /// Copies what etcd holds.
    pub(crate) async fn back_up(&mut self, to: &Path) -> Result<()> {
        self.node.back_up(to).await
    }

    /// Loses the cluster and makes it anew from a backup.
    pub(crate) async fn restore(&mut self, from: &Path) -> Result<()> {
        self.node.restore(from).await
    }

    /// Gives a server a name, for those who are outside.
    pub(crate) fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        self.machine.name(name, address)
    }

    /// A command that runs `program` outside.
    pub(crate) fn outside(&self, program: &Path) -> Command {
        self.machine.outside(program)
    }
}
