//! What all scenarios stand on: the installation with its hubs, every Enrollment, and a process for
//! each SDK.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::DynamicObject;
use rehome_testing::device::Registrar;
use rehome_testing::fleet::Tenant;
use rehome_testing::installation::{Flags, Hub};
use rehome_testing::sdk::{Credential, Device, Driver, Programs, Transport};
use rehome_testing::{Cluster, Installation, PrivateNetwork, Process, scratch};
use serde_json::Value;

use super::credentials::{Credentials, start_tpms};
use super::expectation::{Expectation, Sdk, Service, Variant};
use super::life::{HUBS, Life};
use super::restart::Fragile;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
/// Names that only the private network knows.
const DOMAIN: &str = "rehome.test";
/// Devices that come back soon shall be new requests, and settled ones shall not be verified.
const GATEWAY: [&str; 2] = ["--resend-window-seconds=1", "--refused-window-seconds=0"];
/// One registration in ten seconds, and two at once; and it tells whom it has refused.
const STRICT: [&str; 2] = [
    "--max-registers-per-device=1",
    "--log=info,rehome::gateway::service=debug",
];

pub(crate) struct Floor<'a> {
    pub(crate) expectation: &'a Expectation,
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
    /// A gateway that lets devices ask next to nothing.
    pub(crate) strict: Registrar,
    /// The gateway of [`Fragile`].
    pub(crate) fragile: Registrar,
    pub(crate) authority: PathBuf,
    pub(crate) field: Field,
    /// What devices are told, by the name of the hub.
    hosts: BTreeMap<String, String>,
    strict_gateway: Process,
    _cluster: Cluster,
}

/// Everything in the field: what devices prove themselves with, and the processes that run them.
pub(crate) struct Field {
    id_scope: String,
    pub(crate) credentials: Credentials,
    drivers: BTreeMap<String, Arc<Driver>>,
}

impl Field {
    /// The device of this kind that leads this life.
    pub(crate) fn device(&self, variant: Variant<'_>, life: Life) -> Result<Device> {
        let registration_id = life.registration_id(variant);
        Ok(Device {
            driver: self.driver(variant.sdk)?,
            transport: variant.transport,
            credential: self.credentials.of(&registration_id)?,
            registration_id,
            id_scope: self.id_scope.clone(),
        })
    }

    /// The device that answers methods.
    pub(crate) fn answering(&self, service: &Service) -> Result<Device> {
        let registration_id = service.answering();
        Ok(Device {
            driver: self.driver(&service.name)?,
            transport: Transport::Mqtt,
            credential: Credential::Key(self.credentials.key(&registration_id)?),
            registration_id,
            id_scope: self.id_scope.clone(),
        })
    }

    fn driver(&self, name: &str) -> Result<Arc<Driver>> {
        self.drivers.get(name).cloned().context("no such driver")
    }
}

impl<'a> Floor<'a> {
    /// Starts everything, in a private network.
    pub(crate) async fn start(
        expectation: &'a Expectation,
        programs: &Programs,
        rehome: &Path,
        network: &PrivateNetwork,
    ) -> Result<(Self, Fragile)> {
        let cluster = Cluster::shared().await?;
        let gateway = GATEWAY.map(str::to_owned);
        let flags = Flags {
            gateway: gateway.to_vec(),
            ..Flags::default()
        };
        let mut installation =
            Installation::start_with_names(DOMAIN, &cluster, rehome, &HUBS, &flags).await?;
        let strict = STRICT.map(str::to_owned);
        let (strict_gateway, strict) = installation.another_gateway(1, &strict).await?;
        let fragile = installation.replica(2, &gateway).await?;
        for registrar in [&installation.registrar, &strict, &fragile.registrar] {
            network.name(&registrar.host, registrar.https.ip())?;
        }
        let mut hosts = BTreeMap::new();
        for hub in &installation.hubs {
            network.name(&hub.host(), hub.place.https().ip())?;
            hosts.insert(hub.name.clone(), hub.host());
        }
        let directory = scratch("devices")?;
        let authority = directory.join("authority.pem");
        std::fs::write(&authority, installation.registrar.trust.pem())?;
        let mut drivers = BTreeMap::new();
        for name in expectation.programs() {
            let program = programs.devices(name, &authority)?;
            let driver = Driver::start(name, program, &directory)?;
            drivers.insert(name.to_owned(), Arc::new(driver));
        }
        let tenant = Tenant::start(&cluster, &installation, "field").await?;
        let tpms = start_tpms(expectation.variants()).await?;
        let field = Field {
            id_scope: tenant.namespace.name().to_owned(),
            credentials: Credentials::new(&directory, tpms),
            drivers,
        };
        let fragile = Fragile {
            hub: installation.hubs.pop().context("the last hub")?,
            gateway: fragile,
        };
        let mut floor = Self {
            expectation,
            installation,
            tenant,
            strict,
            fragile: fragile.gateway.registrar.clone(),
            authority,
            field,
            hosts,
            strict_gateway,
            _cluster: cluster,
        };
        floor.enroll().await?;
        Ok((floor, fragile))
    }

    /// The host that devices register at.
    pub(crate) fn host(&self) -> &str {
        &self.installation.registrar.host
    }

    pub(crate) fn hub(&self, name: &str) -> Result<&Hub> {
        let found = self.installation.hubs.iter().find(|hub| hub.name == name);
        found.with_context(|| format!("no hub {name}"))
    }

    /// What devices are told that live on this hub.
    pub(crate) fn host_of(&self, hub: &str) -> Result<&str> {
        let found = self.hosts.get(hub).map(String::as_str);
        found.with_context(|| format!("no hub {hub}"))
    }

    pub(crate) fn sdk(&self, variant: Variant<'_>) -> Result<&'a Sdk> {
        let found = self.expectation.sdk(variant.sdk);
        found.with_context(|| format!("no SDK {}", variant.sdk))
    }

    /// How often the strict gateway has refused this device because it asks too often.
    pub(crate) fn refusals(&self, registration_id: &str) -> Result<usize> {
        let of_device = format!("registration={registration_id} ");
        let log = self.strict_gateway.output()?;
        let refused = log.lines().filter(|line| line.contains("asks too often"));
        Ok(refused.filter(|line| line.contains(&of_device)).count())
    }

    /// As [`Field::device`].
    pub(crate) fn device(&self, variant: Variant<'_>, life: Life) -> Result<Device> {
        self.field.device(variant, life)
    }

    /// The registration of a device.
    pub(crate) async fn record(&self, registration_id: &str) -> Result<DynamicObject> {
        let records = self.tenant.objects("DeviceRegistration");
        Ok(records.get(registration_id).await?)
    }
}

/// Members of a record that the scenarios look at.
pub(crate) fn member<'r>(record: &'r DynamicObject, path: &str) -> &'r Value {
    record.data.pointer(path).unwrap_or(&Value::Null)
}
