//! What the fleet lives on: the installation with two gateways and three hubs, and the groups that
//! devices belong to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use kube::api::{Patch, PatchParams};
use rehome_testing::device::{Key, Trust};
use rehome_testing::fleet::{Group as KeyGroup, Plant, Tenant};
use rehome_testing::installation::{Flags, Replica};
use rehome_testing::{Cluster, Installation, PrivateNetwork, scratch, until};
use serde_json::json;
use tokio::sync::Mutex;

use super::PATIENCE;
use super::course::hub_of;

pub(crate) const HUBS: [&str; 3] = ["hub-west", "hub-east", "hub-north"];
/// Groups of devices, which move as a whole.
pub(crate) const GROUPS: usize = 8;
/// Those whose devices have certificates; the others have keys.
pub(crate) const PLANTS: [usize; 3] = [2, 5, 7];
const POLICY: Option<&str> = Some("MigrateData");
/// Names that only the private network knows.
const DOMAIN: &str = "rehome.test";

pub(crate) struct Ground {
    pub(crate) cluster: Cluster,
    pub(crate) installation: Installation,
    /// The second gateway, which the run kills.
    pub(crate) replica: Mutex<Replica>,
    pub(crate) tenant: Tenant,
    pub(crate) groups: Vec<Group>,
    /// Where hubs take devices, by host name.
    pub(crate) hubs: Arc<BTreeMap<String, SocketAddr>>,
    /// The authority of all servers in PEM, and certificates of devices.
    pub(crate) directory: PathBuf,
}

pub(crate) enum Group {
    Keys(KeyGroup),
    Plant(Box<Plant>),
}

/// What a device proves itself with.
pub(crate) enum Credential {
    Key(Key),
    /// In PEM, with its key.
    Certificate(rehome_testing::Issued),
}

impl Group {
    fn new(number: usize) -> Result<Self> {
        let hub = HUBS[hub_of(number, 0)];
        Ok(if PLANTS.contains(&number) {
            Self::Plant(Box::new(Plant::new(
                &format!("plant-{number}"),
                POLICY,
                &[hub],
            )?))
        } else {
            Self::Keys(KeyGroup::new(&format!("line-{number}"), POLICY, &[hub])?)
        })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Keys(group) => &group.name,
            Self::Plant(plant) => &plant.name,
        }
    }

    /// That of a new device.
    pub(crate) fn credential(&self, registration_id: &str) -> Result<Credential> {
        Ok(match self {
            Self::Keys(group) => Credential::Key(group.key.of_device(registration_id)),
            Self::Plant(plant) => Credential::Certificate(plant.certificate(registration_id)?),
        })
    }
}

impl Ground {
    /// Starts everything, in a private network.
    pub(crate) async fn start(rehome: &Path, network: &PrivateNetwork) -> Result<Self> {
        let cluster = Cluster::private().await?;
        // The product as it is installed: every limit and window is the default.
        let flags = Flags::default();
        let installation =
            Installation::start_with_names(DOMAIN, &cluster, rehome, &HUBS, &flags).await?;
        let replica = installation.replica(1, &[]).await?;
        for registrar in [&installation.registrar, &replica.registrar] {
            network.name(&registrar.host, registrar.https.ip())?;
        }
        for hub in &installation.hubs {
            network.name(&hub.host(), hub.place.https().ip())?;
        }
        let directory = scratch("fleet")?;
        std::fs::write(authority(&directory), installation.registrar.trust.pem())?;
        let tenant = Tenant::start(&cluster, &installation, "soak").await?;
        let groups: Vec<_> = (0..GROUPS).map(Group::new).collect::<Result<_>>()?;
        for group in &groups {
            match group {
                Group::Keys(group) => tenant.enroll(group, &installation).await?,
                Group::Plant(plant) => tenant.enroll_plant(plant, &installation).await?,
            }
        }
        let hubs = installation.hubs.iter();
        let hubs = hubs.map(|hub| (hub.host(), hub.place.mqtt())).collect();
        Ok(Self {
            cluster,
            replica: Mutex::new(replica),
            tenant,
            groups,
            hubs: Arc::new(hubs),
            directory,
            installation,
        })
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.installation.registrar.trust
    }

    /// Where the authority of all servers stands in PEM.
    pub(crate) fn authority(&self) -> PathBuf {
        authority(&self.directory)
    }

    /// Gives a group another hub, and waits until the controller knows.
    pub(crate) async fn reallocate(&self, group: &Group, hub: &str) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "allocation": { "hubs": [hub] } } }));
        let enrollments = self.tenant.objects("Enrollment");
        let name = group.name();
        enrollments
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        until(PATIENCE, async || {
            let seen = enrollments.get(name).await?;
            let generation = seen.data["status"]["observedGeneration"].as_i64();
            ensure!(generation == seen.metadata.generation, "not seen yet");
            Ok(())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow!("no answer")))
        .with_context(|| format!("Enrollment {name}, which moves to {hub}"))
    }

    /// Ends everything in good order.
    pub(crate) async fn stop(self) -> Result<()> {
        drop(self.replica);
        self.installation.stop().await
    }
}

fn authority(directory: &Path) -> PathBuf {
    directory.join("authority.pem")
}
