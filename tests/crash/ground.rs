//! What all plans share: the API server, the operator's rights, hubs, Enrollments and Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rehome::api::v1alpha1::{ATTESTATION_LABEL, Enrollment, EnrollmentSpec, IoTHub};
use rehome::domain::attestation::Attestation;
use rehome::domain::ids::RegistrationId;
use rehome::domain::object_name::object_name;
use rehome_testing::device::{Tpm, TpmKind};
use rehome_testing::{Authority, Cluster, Namespace};
use serde_json::{Value, json};

use crate::incarnation::Caches;

/// The hubs, by their number in a plan.
pub(crate) const HUBS: [&str; 3] = ["west", "east", "north"];
pub(crate) const WEST: usize = 0;
pub(crate) const EAST: usize = 1;

/// Key of the service policy of every hub.
pub(crate) const SERVICE_KEY: &str = "c2VydmljZS1rZXktb2YtdGhlLWh1Yg==";

pub(crate) struct Ground {
    pub(crate) namespace: Namespace,
    /// People.
    pub(crate) admin: Client,
    /// The operator's ServiceAccount, with the rights of the chart.
    pub(crate) controller: Client,
    /// The gateway's ServiceAccount, with the rights of the chart.
    pub(crate) gateway: Client,
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) secrets: Vec<Secret>,
    /// Issues the certificates of devices that have one.
    pub(crate) authority: Authority,
    /// Of devices that have a TPM.
    pub(crate) tpm: TpmKeys,
    pub(crate) caches: Caches,
}

/// What a TPM shows, in base64.
pub(crate) struct TpmKeys {
    pub(crate) endorsement_key: String,
    pub(crate) storage_root_key: String,
}

pub(crate) fn host_name(hub: &str) -> String {
    format!("{hub}.crash.example")
}

/// Groups by name: what proves who their devices are, hubs, more.
fn enrollments(authority: &Authority) -> Vec<Value> {
    let one = |name: &str, attestation: &Value, hubs: &[&str], more: &Value| {
        let mut spec = json!({
            "group": {},
            "attestation": attestation,
            "allocation": { "hubs": hubs },
            "initialTwin": {
                "tags": { "site": "b" },
                "properties": { "desired": { "rate": 5 } },
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": name }, "spec": spec,
        })
    };
    let secret = |name: &str| json!({ "symmetricKey": { "secretRef": { "name": name } } });
    let (keys, new_keys) = (secret("keys"), secret("new-keys"));
    let x509 = json!({ "x509": { "signingCertificates": { "primary": authority.cert_pem() } } });
    let migrate = json!({ "reprovisionPolicy": "MigrateData" });
    let reset = json!({ "reprovisionPolicy": "ResetData" });
    let proceed = json!({ "reprovisionPolicy": "MigrateData", "sourceUnreachable": "Proceed" });
    vec![
        one("stay-west", &keys, &["west"], &migrate),
        one("to-east", &keys, &["east"], &migrate),
        one("reset-west", &keys, &["west"], &reset),
        one("reset-east", &keys, &["east"], &reset),
        one("rotated", &new_keys, &["west"], &migrate),
        one("anywhere", &keys, &["west", "east"], &migrate),
        one("disaster", &keys, &["east"], &proceed),
        one("x509-stay-west", &x509, &["west"], &migrate),
        one("x509-to-east", &x509, &["east"], &migrate),
        one("x509-reset-west", &x509, &["west"], &reset),
    ]
}

fn secrets() -> Vec<Value> {
    let keys = |name: &str, one: &str, other: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "labels": { ATTESTATION_LABEL: "true" } },
            "stringData": { "primaryKey": one, "secondaryKey": other },
        })
    };
    let seed = |name: &str, seed: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "labels": { ATTESTATION_LABEL: "true" } },
            "stringData": { "seed": seed },
        })
    };
    let mut all = vec![
        seed("seeds", "c2VlZC1mb3ItdGhlLXRwbXMtb2YtbGluZS0zLS0wMDAx"),
        seed("new-seeds", "c2VlZC1mb3ItdGhlLXRwbXMtb2YtbGluZS0zLS0wMDAy"),
        keys(
            "keys",
            "Z3JvdXAta2V5LXByaW1hcnktMQ==",
            "Z3JvdXAta2V5LXNlY29uZGFyeQ==",
        ),
        keys(
            "new-keys",
            "bmV3ZXItZ3JvdXAta2V5LTAwMQ==",
            "bmV3ZXItZ3JvdXAta2V5LTAwMg==",
        ),
    ];
    all.extend(HUBS.map(|hub| {
        let host = host_name(hub);
        let text =
            format!("HostName={host};SharedAccessKeyName=rehome;SharedAccessKey={SERVICE_KEY}");
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("hub-{hub}") },
            "stringData": { "connectionString": text },
        })
    }));
    all
}

fn iot_hubs() -> Vec<Value> {
    let one = |hub: &str| {
        json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub", "metadata": { "name": hub },
            "spec": {
                "hostName": host_name(hub),
                "connection": { "connectionStringSecretRef": { "name": format!("hub-{hub}") } },
            },
        })
    };
    HUBS.map(one).to_vec()
}

impl Ground {
    pub(crate) async fn lay() -> Result<Arc<Self>> {
        let cluster = Cluster::shared().await?;
        let operator = cluster.install_operator().await?;
        let namespace = cluster.namespace("crash").await?;
        let authority = Authority::new("Plant CA")?;
        let groups = enrollments(&authority);
        for object in secrets().into_iter().chain(groups).chain(iot_hubs()) {
            namespace.apply(&object.to_string()).await?;
        }
        let controller = operator.controller.client;
        let hubs: Api<IoTHub> = Api::namespaced(controller.clone(), namespace.name());
        for hub in HUBS {
            // What the hub controller finds out; it has tests of its own.
            let status = json!({ "status": {
                "guarantees": ["etags-unique", "fence", "versions", "modules"],
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                    "lastTransitionTime": "2026-03-01T07:00:00Z",
                }],
            } });
            let patch = Patch::Merge(&status);
            hubs.patch_status(hub, &PatchParams::default(), &patch)
                .await?;
        }
        let api: Api<Enrollment> = namespace.api();
        for group in api.list(&ListParams::default()).await?.items {
            if group.spec.attestation.x509.is_some() {
                verify(&api, &group, &authority).await?;
            }
        }
        let enrollments = api.list(&ListParams::default()).await?.items;
        let tpm = Tpm::start(TpmKind::Ecc).await?;
        let tpm = TpmKeys {
            endorsement_key: tpm.endorsement_key()?,
            storage_root_key: tpm.storage_root_key()?,
        };
        let secrets: Api<Secret> = namespace.api();
        let secrets = secrets.list(&ListParams::default()).await?.items;
        let caches = Caches::fill(&controller, namespace.name()).await?;
        Ok(Arc::new(Self {
            admin: cluster.client().clone(),
            gateway: operator.gateway.client,
            controller,
            namespace,
            enrollments,
            secrets,
            authority,
            tpm,
            caches,
        }))
    }

    pub(crate) fn enrollment(&self, name: &str) -> Result<&Enrollment> {
        let mut all = self.enrollments.iter();
        all.find(|known| known.name_any() == name)
            .with_context(|| format!("no Enrollment {name}"))
    }

    /// What an Enrollment knows of its devices.
    pub(crate) fn attestation(&self, enrollment: &Enrollment) -> Result<Attestation> {
        let spec = &enrollment.spec;
        let uid = enrollment.uid().context("no uid")?;
        let wanted = spec.attestation.secret();
        let mut all = self.secrets.iter();
        let secret = all.find(|known| Some(known.name_any().as_str()) == wanted);
        let data = secret.and_then(|secret| secret.data.clone());
        Ok(Attestation::read(spec, &uid, &data.unwrap_or_default())?)
    }

    /// Makes or changes the Enrollment of one device's TPM: placed like a group, with the seed of
    /// that Secret.
    pub(crate) async fn enroll_tpm(
        &self,
        id: &RegistrationId,
        like: &str,
        seeds: &str,
    ) -> Result<Enrollment> {
        let attestation = json!({ "tpm": {
            "endorsementKey": self.tpm.endorsement_key, "secretRef": { "name": seeds },
        } });
        let individual = json!({ "registrationId": id.as_str() });
        let spec = EnrollmentSpec {
            group: None,
            individual: serde_json::from_value(individual)?,
            attestation: serde_json::from_value(attestation)?,
            ..self.enrollment(like)?.spec.clone()
        };
        let name = object_name(id);
        let enrollment = Enrollment::new(&name, spec);
        let params = PatchParams::apply("people").force();
        let api: Api<Enrollment> = self.namespace.api();
        Ok(api
            .patch(&name, &params, &Patch::Apply(&enrollment))
            .await?)
    }
}

/// Proves to a group that somebody holds its authority's key, as its status asks for it.
async fn verify(api: &Api<Enrollment>, group: &Enrollment, authority: &Authority) -> Result<()> {
    let uid = group.uid().context("no uid")?;
    let attestation = Attestation::read(&group.spec, &uid, &BTreeMap::new())?;
    let Attestation::X509(x509) = attestation else {
        bail!("no authority");
    };
    for described in x509.describe() {
        let code = described.verification_code.context("no code")?;
        let proof = authority.issue(&[code])?.cert_pem;
        let proof = json!({ "spec": { "attestation": { "x509": {
            "verification": { "primary": proof },
        } } } });
        let params = PatchParams::default();
        api.patch(&group.name_any(), &params, &Patch::Merge(&proof))
            .await?;
    }
    Ok(())
}
