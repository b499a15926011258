//! Devices with certificates of one authority, enrolled as `docs/attestation.md` tells people to.

use anyhow::{Context, Result, anyhow, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{API_VERSION, TAKEN_UP, Tenant, allocation, hosts, initial_twin};
use crate::certificates::{Authority, Issued};
use crate::device::Trust;
use crate::installation::Installation;
use crate::wait::until;

/// A group of devices whose certificates one authority issued, and the hubs for them.
pub struct Plant {
    pub name: String,
    pub hubs: Vec<String>,
    pub policy: Option<&'static str>,
    authority: Authority,
}

impl Plant {
    /// With an authority of its own.
    pub fn new(name: &str, policy: Option<&'static str>, hubs: &[&str]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            hubs: hubs.iter().map(|&hub| hub.to_owned()).collect(),
            policy,
            authority: Authority::new(&format!("Authority of {name}"))?,
        })
    }

    /// The certificate of a device of the plant.
    pub fn certificate(&self, registration_id: &str) -> Result<Issued> {
        self.authority.issue(&[registration_id])
    }

    fn manifest(&self) -> Value {
        let certificates = json!({ "primary": self.authority.cert_pem() });
        let mut spec = json!({
            "group": {},
            "attestation": { "x509": { "signingCertificates": certificates } },
            "allocation": allocation(&self.hubs),
            "initialTwin": initial_twin(),
        });
        if let Some(policy) = self.policy {
            spec["reprovisionPolicy"] = policy.into();
        }
        json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": self.name }, "spec": spec,
        })
    }
}

impl Tenant {
    /// Applies the plant's Enrollment, proves that its authority's key is ours, and waits until a
    /// first device of it, the pioneer, is told one of its hubs.
    pub async fn enroll_plant(&self, plant: &Plant, installation: &Installation) -> Result<()> {
        let manifest = plant.manifest();
        self.namespace.apply(&manifest.to_string()).await?;
        let status = self.certificate_of(plant, "verificationCode").await?;
        let code = status["verificationCode"].as_str();
        let proof = plant.authority.issue(&[code.context("no code")?])?.cert_pem;
        let proof = json!({ "x509": { "verification": { "primary": proof } } });
        let patch = Patch::Merge(json!({ "spec": { "attestation": proof } }));
        let params = PatchParams::default();
        let enrollments = self.objects("Enrollment");
        enrollments.patch(&plant.name, &params, &patch).await?;
        let registration_id = format!("{}-pioneer", plant.name);
        let issued = plant.certificate(&registration_id)?;
        let trust = &installation.registrar.trust;
        let trust = trust.presenting(&issued.cert_pem, &issued.key_pem)?;
        let hosts = hosts(&plant.hubs, installation);
        until(TAKEN_UP, async || {
            let told = self.arrive(installation, &trust, &registration_id).await?;
            ensure!(hosts.contains(&told), "the pioneer was told {told:?}");
            Ok(())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow!("no answer")))
        .with_context(|| format!("group {} is not taken up", plant.name))
    }

    async fn arrive(
        &self,
        installation: &Installation,
        trust: &Trust,
        registration_id: &str,
    ) -> Result<String> {
        let scope = self.namespace.name();
        let registrar = &installation.registrar;
        let told = registrar.register_presenting(trust, scope, registration_id, API_VERSION);
        Ok(told.await?.hub)
    }

    /// What the Enrollment's status says of its authority, once it says that much.
    async fn certificate_of(&self, plant: &Plant, member: &str) -> Result<Value> {
        let enrollments = self.objects("Enrollment");
        until(TAKEN_UP, async || {
            let seen = enrollments.get(&plant.name).await?;
            let certificate = &seen.data["status"]["certificates"][0];
            ensure!(!certificate[member].is_null(), "no {member} yet");
            Ok(certificate.clone())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow!("no answer")))
        .with_context(|| format!("the status of Enrollment {}", plant.name))
    }
}
