//! Where the scenarios are played: what they need of a node, apart from Kubernetes itself.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Result, bail};
use clap::ValueEnum;
use rehome_testing::Cluster;
use rehome_testing::node::{Kind, Machine, Node, kind_image};

use crate::scenarios::NOT_ON_KIND;

/// Which place is asked for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Asked {
    /// A node on a machine of namespaces
    Own,
    /// A node of kind, in Docker
    Kind,
}

/// A cluster of one node, and whoever is outside of it.
pub(crate) enum Place {
    Own(Box<(Machine, Node)>),
    Kind(Box<Kind>),
}

impl Asked {
    /// Runs this program again where the place can be made, and sees that nothing is left; `None` to the
    /// program that runs there already.
    pub(crate) fn enter(self) -> Result<Option<ExitStatus>> {
        match self {
            Self::Own => Machine::enter(),
            Self::Kind => Kind::enter(),
        }
    }

    /// What a run that went well leaves on this machine.
    pub(crate) fn leaves(self) -> &'static str {
        match self {
            Self::Own => "nothing is left on this machine",
            Self::Kind => {
                "the cluster and the routes to it are gone; Docker keeps the node's image and kind's network"
            }
        }
    }

    /// Why a scenario is not played there, if it is not.
    pub(crate) fn lacks(self, scenario: &str) -> Option<&'static str> {
        let mut lacking = NOT_ON_KIND.iter();
        let found = lacking.find(|(name, _)| *name == scenario);
        found.filter(|_| self == Self::Kind).map(|(_, why)| *why)
    }
}

impl Place {
    /// Makes it, with that Kubernetes where there is a choice.
    pub(crate) async fn make(asked: Asked, kubernetes: Option<&str>) -> Result<Self> {
        Ok(match asked {
            Asked::Own => {
                let machine = Machine::set_up()?;
                let node = Node::start(&machine).await?;
                Self::Own(Box::new((machine, node)))
            }
            Asked::Kind => Self::Kind(Box::new(Kind::start(kind_image(kubernetes)?).await?)),
        })
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        match self {
            Self::Own(own) => own.1.cluster(),
            Self::Kind(kind) => kind.cluster(),
        }
    }

    /// Brings the images of an archive to the node.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        match self {
            Self::Own(own) => own.1.import(archive),
            Self::Kind(kind) => kind.import(archive),
        }
    }

    /// Kills the containers of that name, of a container or a pod, by SIGKILL; says how many there were.
    pub(crate) fn kill_container(&self, namespace: &str, name: &str) -> Result<usize> {
        match self {
            Self::Own(own) => own.1.kill_container(namespace, name),
            Self::Kind(kind) => kind.kill_container(namespace, name),
        }
    }

    /// Takes the power from the node.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        match self {
            Self::Own(own) => own.1.crash().await,
            Self::Kind(kind) => kind.crash().await,
        }
    }

    /// Starts the node again, over what is on its disk.
    pub(crate) async fn boot(&mut self) -> Result<()> {
        match self {
            Self::Own(own) => own.1.boot().await,
            Self::Kind(kind) => kind.boot().await,
        }
    }

    /// The node whose etcd can be stopped and replaced.
    pub(crate) fn own(&mut self) -> Result<&mut Node> {
        match self {
            Self::Own(own) => Ok(&mut own.1),
            Self::Kind(_) => bail!("etcd of a kind node cannot be stopped by itself"),
        }
    }

    /// Gives a server a name, for those who are outside.
    pub(crate) fn name(&self, name: &str, address: IpAddr) -> Result<()> {
        match self {
            Self::Own(own) => own.0.name(name, address),
            Self::Kind(kind) => kind.name(name, address),
        }
    }

    /// A command that runs `program` outside. Of a kind node this very machine is outside.
    pub(crate) fn outside(&self, program: &Path) -> Command {
        match self {
            Self::Own(own) => own.0.outside(program),
            Self::Kind(_) => Command::new(program),
        }
    }
}
