//! What devices prove themselves with, and what their Enrollments are told of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rehome_testing::device::{Key, SimulatedTpm, TpmKind};
use rehome_testing::sdk::{Credential, Transport};
use rehome_testing::{Authority, Issued};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::expectation::{Attestation, Variant};
use super::life::Life;

/// The Secret that holds every key.
const SECRET: &str = "keys";
/// Where in it the seed is of what TPMs are given.
const SEED: &str = "seed";
/// TPMs that are made at the same time.
const TPMS_AT_ONCE: usize = 2;

/// Every credential.
pub(crate) struct Credentials {
    /// Where certificates are.
    directory: PathBuf,
    /// The keys of Enrollments.
    keys: BTreeMap<String, Key>,
    /// Who stands behind the devices of an Enrollment.
    authorities: BTreeMap<String, Chain>,
    /// Of devices that have one, and of those who say that they are one of them.
    tpms: Tpms,
    /// By registration id.
    devices: BTreeMap<String, Credential>,
}

/// By registration id.
pub(crate) type Tpms = BTreeMap<String, Arc<SimulatedTpm>>;

/// A root, and the authority below it that issues.
struct Chain {
    root: Authority,
    issuer: Authority,
}

impl Chain {
    fn new(name: &str) -> Result<Self> {
        let root = Authority::new(&format!("{name} root"))?;
        let issuer = root.intermediate(&format!("{name} issuer"))?;
        Ok(Self { root, issuer })
    }

    /// A certificate, with the one between it and the root.
    fn issue(&self, common_name: &str) -> Result<Issued> {
        let leaf = self.issuer.issue(&[common_name])?;
        Ok(Issued {
            cert_pem: leaf.cert_pem + &self.issuer.cert_pem(),
            ..leaf
        })
    }
}

impl Credentials {
    /// None yet; certificates will be in this directory.
    pub(crate) fn new(directory: &Path, tpms: Tpms) -> Self {
        Self {
            directory: directory.to_owned(),
            keys: BTreeMap::new(),
            authorities: BTreeMap::new(),
            tpms,
            devices: BTreeMap::new(),
        }
    }

    /// Gives a device its credential. Says what its Enrollment is told, unless that was said for
    /// another device of the group.
    pub(crate) fn enroll(&mut self, variant: Variant<'_>, life: Life) -> Result<Option<Value>> {
        let (enrollment, id) = (life.enrollment(variant), life.registration_id(variant));
        let (credential, attestation) = match variant.attestation {
            Attestation::Key => {
                self.add_key(&enrollment)?;
                let key = Credential::Key(self.key(&enrollment)?);
                (key, Some(of_key(&enrollment)))
            }
            Attestation::GroupKey => {
                let is_new = !self.keys.contains_key(&enrollment);
                if is_new {
                    self.add_key(&enrollment)?;
                }
                let key = self.key(&enrollment)?.of_device(&id);
                (Credential::Key(key), is_new.then(|| of_key(&enrollment)))
            }
            Attestation::X509 => {
                let issued = Issued::self_signed(&id)?;
                let attestation = individual(&issued, variant.transport)?;
                (self.write(&id, &issued)?, Some(attestation))
            }
            Attestation::X509Group => {
                let is_new = !self.authorities.contains_key(&enrollment);
                if is_new {
                    let chain = Chain::new(&enrollment)?;
                    self.authorities.insert(enrollment.clone(), chain);
                }
                let chain = &self.authorities[&enrollment];
                let root = chain.root.cert_pem();
                let issued = chain.issue(&id)?;
                let attestation = is_new
                    .then(|| json!({ "x509": { "signingCertificates": { "primary": root } } }));
                (self.write(&id, &issued)?, attestation)
            }
            Attestation::Tpm => {
                let tpm = self.tpm(&id)?;
                let attestation = json!({ "tpm": {
                    "endorsementKey": tpm.tpm().endorsement_key()?,
                    "secretRef": { "name": SECRET, "key": SEED },
                } });
                (Credential::Tpm(tpm), Some(attestation))
            }
        };
        self.devices.insert(id, credential);
        Ok(attestation)
    }

    /// The credential of a device.
    pub(crate) fn of(&self, registration_id: &str) -> Result<Credential> {
        let found = self.devices.get(registration_id).cloned();
        found.with_context(|| format!("{registration_id} has no credential"))
    }

    /// What somebody else has who says that he is this device.
    pub(crate) fn of_impostor(&self, variant: Variant<'_>, id: &str) -> Result<Credential> {
        match variant.attestation {
            Attestation::Key | Attestation::GroupKey => Ok(Credential::Key(Key::random()?)),
            Attestation::X509 => self.write(&impostor(id), &Issued::self_signed(id)?),
            Attestation::X509Group => {
                // Of an authority with the same name.
                let issued = Chain::new(&Life::Impostor.enrollment(variant))?.issue(id)?;
                self.write(&impostor(id), &issued)
            }
            Attestation::Tpm => self.tpm(&impostor(id)).map(Credential::Tpm),
        }
    }

    fn tpm(&self, id: &str) -> Result<Arc<SimulatedTpm>> {
        let found = self.tpms.get(id).cloned();
        found.with_context(|| format!("{id} has no TPM"))
    }

    pub(crate) fn add_key(&mut self, enrollment: &str) -> Result<()> {
        self.keys.insert(enrollment.to_owned(), Key::random()?);
        Ok(())
    }

    pub(crate) fn key(&self, enrollment: &str) -> Result<Key> {
        let found = self.keys.get(enrollment).cloned();
        found.with_context(|| format!("{enrollment} has no key"))
    }

    /// The Secret with every key.
    pub(crate) fn secret(&self) -> Result<Value> {
        let mut entries = Map::new();
        entries.insert(SEED.to_owned(), Key::random()?.to_base64().into());
        for (enrollment, key) in &self.keys {
            entries.insert(format!("{enrollment}.primary"), key.to_base64().into());
            let other = Key::random()?.to_base64();
            entries.insert(format!("{enrollment}.secondary"), other.into());
        }
        Ok(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": SECRET, "labels": { "rehome.dev/attestation": "true" } },
            "stringData": entries,
        }))
    }

    /// The Enrollments whose authority has to prove that it holds its key.
    pub(crate) fn unproven(&self) -> impl Iterator<Item = &str> {
        self.authorities.keys().map(String::as_str)
    }

    /// What an Enrollment is told that shows this verification code.
    pub(crate) fn proof(&self, enrollment: &str, code: &str) -> Result<Value> {
        let chain = self.authorities.get(enrollment).context("no authority")?;
        let proof = chain.root.issue(&[code])?.cert_pem;
        Ok(
            json!({ "spec": { "attestation": { "x509": { "verification": { "primary": proof } } } } }),
        )
    }

    fn write(&self, name: &str, issued: &Issued) -> Result<Credential> {
        let file = |extension: &str| self.directory.join(format!("{name}.{extension}"));
        let (chain, key) = (file("crt"), file("key"));
        std::fs::write(&chain, &issued.cert_pem)?;
        std::fs::write(&key, &issued.key_pem)?;
        Ok(Credential::Certificate { chain, key })
    }
}

/// What an Enrollment with a key is told.
pub(crate) fn of_key(enrollment: &str) -> Value {
    json!({ "symmetricKey": { "secretRef": {
        "name": SECRET,
        "primaryKey": format!("{enrollment}.primary"),
        "secondaryKey": format!("{enrollment}.secondary"),
    } } })
}

/// A device that speaks over WebSocket is enrolled by the thumbprint of its certificate.
fn individual(issued: &Issued, transport: Transport) -> Result<Value> {
    let certificate = match transport {
        Transport::Https | Transport::Mqtt | Transport::Amqp => {
            json!({ "primary": issued.cert_pem })
        }
        Transport::MqttWs | Transport::AmqpWs => {
            json!({ "primaryThumbprint": issued.thumbprint()? })
        }
    };
    Ok(json!({ "x509": { "clientCertificates": certificate } }))
}

/// Every TPM that devices of these kinds need, and one for each who only says that he is one.
pub(crate) async fn start_tpms<'v>(variants: impl Iterator<Item = Variant<'v>>) -> Result<Tpms> {
    let with_tpm = variants.filter(|variant| variant.attestation == Attestation::Tpm);
    let mut ids = Vec::new();
    for variant in with_tpm {
        ids.extend(Life::ALL.map(|life| life.registration_id(variant)));
        ids.push(impostor(&Life::Impostor.registration_id(variant)));
    }
    let starting = ids.into_iter().map(async |id| {
        // Programs make it, which are waited for.
        let start = || Handle::current().block_on(SimulatedTpm::start(TpmKind::Rsa));
        let tpm = tokio::task::spawn_blocking(start).await?;
        anyhow::Ok((id, Arc::new(tpm?)))
    });
    stream::iter(starting)
        .buffer_unordered(TPMS_AT_ONCE)
        .try_collect()
        .await
}

/// The name of what somebody has who says that he is this device.
fn impostor(id: &str) -> String {
    format!("{id}-impostor")
}
