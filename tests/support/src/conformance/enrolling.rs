//! The Enrollments of the field: written, proven, changed, and known to everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::api::{ListParams, Patch, PatchParams};
use rehome_testing::device::{Applicant, Protocol, Registrar};
use rehome_testing::until;
use serde_json::{Value, json};

use super::credentials::of_key;
use super::floor::{Floor, MINUTE};
use super::life::{HUBS, Life};

/// Longest time for every Enrollment to be seen by the controller.
const TAKEN_UP: Duration = Duration::from_mins(2);
/// Calls to the API server at the same time.
const CALLS: usize = 8;
/// Enrollments that are written after others: whoever knows them knows the others too.
const ENROLLED: &str = "enrolled";
const REALLOCATED: &str = "reallocated";

impl Floor<'_> {
    /// Writes the Secret, and an Enrollment for every device or group.
    pub(crate) async fn enroll(&mut self) -> Result<()> {
        let credentials = &mut self.field.credentials;
        let mut manifests = Vec::new();
        for variant in self.expectation.variants() {
            for life in Life::ALL {
                if let Some(attestation) = credentials.enroll(variant, life)? {
                    manifests.push(life.manifest(variant, &attestation).to_string());
                }
            }
        }
        for service in &self.expectation.services {
            let id = service.answering();
            credentials.add_key(&id)?;
            manifests.push(individual(&id, HUBS[1]).to_string());
        }
        for witness in [ENROLLED, REALLOCATED] {
            credentials.add_key(witness)?;
        }
        let namespace = &self.tenant.namespace;
        namespace.apply(&credentials.secret()?.to_string()).await?;
        stream::iter(manifests)
            .map(anyhow::Ok)
            .try_for_each_concurrent(CALLS, async |manifest| {
                namespace.apply(&manifest).await.map(drop)
            })
            .await?;
        self.prove().await?;
        let gateways = [&self.installation.registrar, &self.strict, &self.fragile];
        self.wait_until_known(ENROLLED, &gateways).await
    }

    /// Gives the Enrollments of these lives another hub, and waits until that is known.
    pub(crate) async fn reallocate(&self, lives: &[Life], hub: &str) -> Result<()> {
        let spec = json!({ "spec": { "allocation": { "hubs": [hub] } } });
        let names: BTreeSet<_> = self
            .expectation
            .variants()
            .flat_map(|variant| lives.iter().map(move |life| life.enrollment(variant)))
            .collect();
        let patches = names.into_iter().map(|name| (name, spec.clone()));
        self.patch(patches.collect()).await?;
        let gateway = &self.installation.registrar;
        self.wait_until_known(REALLOCATED, &[gateway]).await
    }

    /// Has every authority prove that it holds its key, as `docs/attestation.md` tells people to.
    async fn prove(&self) -> Result<()> {
        let credentials = &self.field.credentials;
        let enrollments = self.tenant.objects("Enrollment");
        let mut patches = BTreeMap::new();
        for name in credentials.unproven() {
            let code = until(TAKEN_UP, async || {
                let seen = enrollments.get(name).await?;
                let code = seen.data.pointer("/status/certificates/0/verificationCode");
                let code = code.and_then(Value::as_str).map(str::to_owned);
                code.with_context(|| format!("{name} shows no verification code"))
            });
            let code = code.await.map_err(or_silence)?;
            patches.insert(name.to_owned(), credentials.proof(name, &code)?);
        }
        self.patch(patches).await
    }

    async fn patch(&self, patches: BTreeMap<String, Value>) -> Result<()> {
        let enrollments = &self.tenant.objects("Enrollment");
        stream::iter(patches)
            .map(anyhow::Ok)
            .try_for_each_concurrent(CALLS, async |(name, patch)| {
                let patched = async {
                    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
                    enrollments.patch(&name, &params, &patch).await
                };
                patched.await.map(drop).with_context(|| name.clone())
            })
            .await
    }

    /// Waits until the controller has seen every Enrollment as it is, and these gateways too: a
    /// gateway learns of Enrollments in their order, so it knows all when it knows one more.
    async fn wait_until_known(&self, witness: &str, gateways: &[&Registrar]) -> Result<()> {
        let enrollment = individual(witness, HUBS[0]);
        self.tenant.namespace.apply(&enrollment.to_string()).await?;
        let enrollments = self.tenant.objects("Enrollment");
        let seen = until(TAKEN_UP, async || {
            for enrollment in enrollments.list(&ListParams::default()).await? {
                let seen = enrollment.data["status"]["observedGeneration"].as_i64();
                let name = enrollment.metadata.name.unwrap_or_default();
                ensure!(
                    seen == enrollment.metadata.generation,
                    "the controller has not seen Enrollment {name}"
                );
            }
            anyhow::Ok(())
        });
        seen.await.map_err(or_silence)?;
        let applicant = Applicant {
            scope: self.tenant.namespace.name().to_owned(),
            registration_id: witness.to_owned(),
            key: self.field.credentials.key(witness)?,
            api_version: "2021-06-01".to_owned(),
        };
        for registrar in gateways {
            let known = until(MINUTE, async || {
                registrar.register(&applicant, Protocol::Https, None).await
            });
            known.await.map_err(or_silence)?;
        }
        Ok(())
    }
}

/// An Enrollment of one device with a key, which has its id for its name.
fn individual(id: &str, hub: &str) -> Value {
    json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
        "metadata": { "name": id },
        "spec": {
            "individual": { "registrationId": id },
            "attestation": of_key(id),
            "allocation": { "policy": "Static", "hubs": [hub] },
        },
    })
}

fn or_silence(last: Option<anyhow::Error>) -> anyhow::Error {
    last.unwrap_or_else(|| anyhow!("no answer"))
}
