//! What all scenarios stand on: the installation with its hubs, every Enrollment, and a process for
//! each SDK.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use rehome_testing::device::{Applicant, Key, Protocol, Registrar};
use rehome_testing::fleet::Tenant;
use rehome_testing::installation::{Flags, Hub};
use rehome_testing::sdk::{Credential, Device, Driver, Programs};
use rehome_testing::{Cluster, Installation, PrivateNetwork, Process, scratch, until};
use serde_json::{Map, Value, json};

use super::expectation::{Expectation, Sdk, Variant};
use super::life::{HUBS, Life, SECRET, secret_entries};

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
/// Longest time for every Enrollment to be seen by the controller.
const TAKEN_UP: Duration = Duration::from_mins(2);
/// Names that only the private network knows.
const DOMAIN: &str = "rehome.test";
/// Devices that come back soon shall be new requests, and settled ones shall not be verified.
const GATEWAY: [&str; 2] = ["--resend-window-seconds=1", "--refused-window-seconds=0"];
/// One registration in ten seconds, and two at once.
const STRICT: [&str; 1] = ["--max-registers-per-device=1"];

pub(crate) struct Floor<'a> {
    pub(crate) expectation: &'a Expectation,
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
    /// A gateway that lets devices ask next to nothing.
    pub(crate) strict: Registrar,
    pub(crate) authority: PathBuf,
    pub(crate) field: Field,
    _strict_gateway: Process,
    _cluster: Cluster,
}

/// Everything in the field: who is enrolled with which key, and the processes that run devices.
pub(crate) struct Field {
    id_scope: String,
    keys: BTreeMap<String, Key>,
    drivers: BTreeMap<String, Arc<Driver>>,
}

impl Field {
    /// The device of this kind that leads this life.
    pub(crate) fn device(&self, variant: Variant<'_>, life: Life) -> Result<Device> {
        let driver = self.drivers.get(variant.sdk).context("no such driver")?;
        let registration_id = life.registration_id(variant);
        Ok(Device {
            driver: driver.clone(),
            transport: variant.transport,
            credential: Credential::Key(self.key(variant, life)?),
            registration_id,
            id_scope: self.id_scope.clone(),
        })
    }

    /// The key of a device, derived if it is one of a group.
    pub(crate) fn key(&self, variant: Variant<'_>, life: Life) -> Result<Key> {
        let key = self.keys.get(&life.enrollment(variant));
        let key = key.context("no such Enrollment")?;
        if variant.attestation.is_group() {
            return Ok(key.of_device(&life.registration_id(variant)));
        }
        Ok(key.clone())
    }
}

impl<'a> Floor<'a> {
    /// Starts everything, in a private network.
    pub(crate) async fn start(
        expectation: &'a Expectation,
        programs: &Programs,
        rehome: &Path,
        network: &PrivateNetwork,
    ) -> Result<Self> {
        let cluster = Cluster::shared().await?;
        let flags = Flags {
            gateway: gateway_flags(),
            ..Flags::default()
        };
        let installation =
            Installation::start_with_names(DOMAIN, &cluster, rehome, &HUBS, &flags).await?;
        let strict = STRICT.map(str::to_owned);
        let (strict_gateway, strict) = installation.another_gateway(1, &strict).await?;
        for registrar in [&installation.registrar, &strict] {
            network.name(&registrar.host, registrar.https.ip())?;
        }
        for hub in &installation.hubs {
            network.name(&hub.host(), hub.place.https().ip())?;
        }
        let directory = scratch("devices")?;
        let authority = directory.join("authority.pem");
        std::fs::write(&authority, installation.registrar.trust.pem())?;
        let mut drivers = BTreeMap::new();
        for sdk in &expectation.sdks {
            let program = programs.devices(&sdk.name, &authority)?;
            let driver = Driver::start(&sdk.name, program, &directory)?;
            drivers.insert(sdk.name.clone(), Arc::new(driver));
        }
        let tenant = Tenant::start(&cluster, &installation, "field").await?;
        let field = Field {
            id_scope: tenant.namespace.name().to_owned(),
            keys: BTreeMap::new(),
            drivers,
        };
        let mut floor = Self {
            expectation,
            installation,
            tenant,
            strict,
            authority,
            field,
            _strict_gateway: strict_gateway,
            _cluster: cluster,
        };
        floor.enroll().await?;
        Ok(floor)
    }

    /// The host that devices register at.
    pub(crate) fn host(&self) -> &str {
        &self.installation.registrar.host
    }

    pub(crate) fn hub(&self, name: &str) -> Result<&Hub> {
        let found = self.installation.hubs.iter().find(|hub| hub.name == name);
        found.with_context(|| format!("no hub {name}"))
    }

    pub(crate) fn sdk(&self, variant: Variant<'_>) -> Result<&'a Sdk> {
        let found = self.expectation.sdk(variant.sdk);
        found.with_context(|| format!("no SDK {}", variant.sdk))
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

    /// Gives the Enrollments of these lives another hub, and waits until that is known.
    pub(crate) async fn reallocate(&self, lives: &[Life], hub: &str) -> Result<()> {
        let enrollments = self.tenant.objects("Enrollment");
        let patch = json!({ "spec": { "allocation": { "hubs": [hub] } } });
        let names: BTreeSet<_> = self
            .expectation
            .variants()
            .flat_map(|variant| lives.iter().map(move |life| life.enrollment(variant)))
            .collect();
        for name in names {
            let params = PatchParams::default();
            enrollments
                .patch(&name, &params, &Patch::Merge(&patch))
                .await?;
        }
        self.wait_until_known("reallocated").await
    }

    /// The Secret, and an Enrollment for every device or group.
    async fn enroll(&mut self) -> Result<()> {
        let (mut entries, mut manifests) = (Map::new(), BTreeMap::new());
        for variant in self.expectation.variants() {
            for life in Life::ALL {
                let name = life.enrollment(variant);
                if manifests.contains_key(&name) {
                    continue;
                }
                let (key, other) = (Key::random()?, Key::random()?);
                entries.extend(secret_entries(&name, &key, &other));
                manifests.insert(name.clone(), life.manifest(variant, life.first_hub()));
                self.field.keys.insert(name, key);
            }
        }
        for name in ["enrolled", "reallocated", "restarted"] {
            let (key, other) = (Key::random()?, Key::random()?);
            entries.extend(secret_entries(name, &key, &other));
            self.field.keys.insert(name.to_owned(), key);
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": SECRET, "labels": { "rehome.dev/attestation": "true" } },
            "stringData": entries,
        });
        self.tenant.namespace.apply(&secret.to_string()).await?;
        for manifest in manifests.values() {
            self.tenant.namespace.apply(&manifest.to_string()).await?;
        }
        self.wait_until_known("enrolled").await
    }

    /// Waits until the controller has seen every Enrollment as it is, and each gateway too: a
    /// gateway learns of Enrollments in their order, so it knows all when it knows one more.
    async fn wait_until_known(&self, witness: &str) -> Result<()> {
        let enrollment = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": witness },
            "spec": {
                "individual": { "registrationId": witness },
                "attestation": { "symmetricKey": { "secretRef": {
                    "name": SECRET,
                    "primaryKey": format!("{witness}.primary"),
                    "secondaryKey": format!("{witness}.secondary"),
                } } },
                "allocation": { "policy": "Static", "hubs": [HUBS[0]] },
            },
        });
        self.tenant.namespace.apply(&enrollment.to_string()).await?;
        let enrollments = self.tenant.objects("Enrollment");
        until(TAKEN_UP, async || {
            for enrollment in enrollments.list(&ListParams::default()).await? {
                let seen = enrollment.data["status"]["observedGeneration"].as_i64();
                let name = enrollment.metadata.name.unwrap_or_default();
                ensure!(
                    seen == enrollment.metadata.generation,
                    "the controller has not seen Enrollment {name}"
                );
            }
            anyhow::Ok(())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))?;
        let applicant = Applicant {
            scope: self.tenant.namespace.name().to_owned(),
            registration_id: witness.to_owned(),
            key: self.field.keys[witness].clone(),
            api_version: "2021-06-01".to_owned(),
        };
        for registrar in [&self.installation.registrar, &self.strict] {
            until(MINUTE, async || {
                registrar.register(&applicant, Protocol::Https, None).await
            })
            .await
            .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))?;
        }
        Ok(())
    }
}

/// What the gateway is started with, and started again with.
pub(crate) fn gateway_flags() -> Vec<String> {
    GATEWAY.map(str::to_owned).into()
}

/// Members of a record that the scenarios look at.
pub(crate) fn member<'r>(record: &'r DynamicObject, path: &str) -> &'r Value {
    record.data.pointer(path).unwrap_or(&Value::Null)
}
