//! The story: a production line whose devices move between two hubs.
//!
//! Each chapter does something as a person, a back end or a device would, and then checks at the
//! API server and at both hubs what has become of it.

mod chapters;
mod keep;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rehome_testing::device::{Applicant, Key};
use rehome_testing::installation::{Hub, Twin};
use rehome_testing::{Cluster, Installation, Namespace, scratch, until};
use serde_json::{Value, json};

use crate::Programs;
use crate::kubectl::Kubectl;
use crate::narration::Narration;
use crate::python::Device;

const MINUTE: Duration = Duration::from_mins(1);
/// Registration id of the device that runs the SDK.
const DEVICE: &str = "press-7";
/// What a device of the line starts with; nothing that happens to it changes that.
const INITIAL_TAGS: &str = r#"{"line":3}"#;
const INITIAL_DESIRED: &str = r#"{"interval":60}"#;

/// Everything that is on.
pub(crate) struct Stage {
    narration: Narration,
    kubectl: Kubectl,
    installation: Installation,
    namespace: Namespace,
    group_key: Key,
    device: Device,
    directory: PathBuf,
    began: Instant,
}

/// Tells it all, and leaves everything on.
pub(crate) async fn tell(programs: &Programs) -> Result<Stage> {
    let mut stage = Stage::set(programs).await?;
    stage.provision().await?;
    stage.migrate().await?;
    stage.reset().await?;
    stage.stay().await?;
    stage.stick().await?;
    println!(
        "\nAll of it is so: {} claims checked in {} s.",
        stage.narration.claims(),
        stage.began.elapsed().as_secs()
    );
    Ok(stage)
}

impl Stage {
    /// The chapters before the device: the operator, two hubs, an enrollment.
    async fn set(programs: &Programs) -> Result<Self> {
        let (began, mut narration) = (Instant::now(), Narration::default());
        narration.chapter("A Kubernetes control plane, the operator and two hubs");
        let cluster = Cluster::shared().await?;
        narration.say("etcd, API server and controller manager run. Installing the chart's CRDs,");
        narration
            .say("Roles and admission policies; starting the operator as its ServiceAccounts.");
        let hubs = ["hub-west", "hub-east"];
        let installation = Installation::start(&cluster, &programs.rehome, &hubs).await?;
        let namespace = cluster.namespace("factory").await?;
        let kubectl = Kubectl {
            program: programs.kube.clone(),
            kubeconfig: cluster.kubeconfig().to_owned(),
            namespace: namespace.name().to_owned(),
        };
        let directory = scratch("demo")?;
        kubectl.show(&["get", "crds", "-o", "name"]).await?;
        let text = hub_manifests(&installation.hubs);
        kubectl
            .apply(&file(&directory, "hubs.yaml", &text)?)
            .await?;
        for hub in hubs {
            let ready = [
                "wait",
                "--for=condition=Ready",
                &format!("iothub/{hub}"),
                "--timeout=60s",
            ];
            kubectl.run(&ready).await?;
        }
        kubectl.show(&["get", "iothubs"]).await?;
        narration.claim(
            "both hubs are reachable with the credentials in their Secrets",
            true,
        )?;

        narration.chapter("One Enrollment for every device of line 3");
        let group_key = Key::random()?;
        let secret = secret_manifest(&group_key)?;
        kubectl
            .apply(&file(&directory, "line-3-keys.yaml", &secret)?)
            .await?;
        let enrollment = enrollment_manifest();
        narration.quote(&enrollment);
        kubectl
            .apply(&file(&directory, "line-3.yaml", &enrollment)?)
            .await?;
        let ready = [
            "wait",
            "--for=condition=Ready",
            "enr/line-3",
            "--timeout=60s",
        ];
        kubectl.run(&ready).await?;
        kubectl.show(&["get", "enrollments"]).await?;

        let ca_file = file(&directory, "ca.crt", installation.registrar.trust.pem())?;
        let applicant = applicant(&namespace, &group_key, DEVICE, "2019-03-31");
        let log = directory.join("device.log");
        let registrar = &installation.registrar;
        let device = Device::start(&programs.python, &applicant, registrar, &ca_file, &log)?;
        Ok(Self {
            narration,
            kubectl,
            installation,
            namespace,
            group_key,
            device,
            directory,
            began,
        })
    }

    /// Ends everything in good order.
    pub(crate) async fn end(self) -> Result<()> {
        drop(self.device);
        // While the operator is there to let go of what it holds.
        self.namespace.delete().await?;
        self.installation.stop().await
    }

    fn west(&self) -> &Hub {
        &self.installation.hubs[0]
    }

    fn east(&self) -> &Hub {
        &self.installation.hubs[1]
    }

    /// Edits the Enrollment as a person would, and waits until the operator has seen it.
    async fn patch_enrollment(&self, spec: &Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        let arguments = [
            "patch",
            "enrollment",
            "line-3",
            "--type=merge",
            "-p",
            &patch,
        ];
        self.kubectl.show(&arguments).await?;
        self.kubectl.wait_until_seen("enrollment", "line-3").await
    }

    /// Has the device register until that is a new operation: the gateway may learn of an edit a
    /// moment after the controller.
    async fn check_in(&mut self, last: &Value, payload: &str) -> Result<Value> {
        let seen = until(MINUTE, async || {
            let told = self.device.ask(&format!("register {payload}")).await?;
            ensure!(told["operation"] != last["operation"], "no new operation");
            anyhow::Ok(told)
        });
        seen.await
            .map_err(|error| error.unwrap_or_else(|| anyhow::anyhow!("no answer")))
            .context("the device checks in")
    }

    /// Shows a device's twin at both hubs.
    async fn show_twins(&self, device_id: &str) -> Result<()> {
        for hub in &self.installation.hubs {
            match hub.twin(device_id).await? {
                None => println!("  {device_id} at {}: no such device", hub.name),
                Some(Twin {
                    tags,
                    desired,
                    reported,
                }) => {
                    println!("  {device_id} at {}:", hub.name);
                    println!("    tags     {tags}");
                    println!("    desired  {desired}");
                    println!("    reported {reported}");
                }
            }
        }
        Ok(())
    }

    /// Claims that the device has an identity at `home` and none at the other hub.
    async fn claim_only_home(&mut self, device_id: &str, home: &str) -> Result<()> {
        for index in 0..self.installation.hubs.len() {
            let hub = &self.installation.hubs[index];
            let (name, identity) = (hub.name.clone(), hub.identity(device_id).await?);
            if name == home {
                let enabled = identity.is_some_and(|identity| identity["status"] == "enabled");
                self.narration
                    .claim(&format!("{name} has {device_id}, enabled"), enabled)?;
            } else {
                let gone = identity.is_none() && hub.twin(device_id).await?.is_none();
                let what = format!("{name} has neither an identity nor a twin of {device_id}");
                self.narration.claim(&what, gone)?;
            }
        }
        Ok(())
    }

    async fn show_registrations(&self) -> Result<()> {
        self.kubectl.show(&["get", "deviceregistrations"]).await
    }
}

/// The device of that id in the group.
fn applicant(namespace: &Namespace, group: &Key, id: &str, api_version: &str) -> Applicant {
    Applicant {
        scope: namespace.name().to_owned(),
        registration_id: id.to_owned(),
        key: group.of_device(id),
        api_version: api_version.to_owned(),
    }
}

fn file(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// JSON is YAML.
fn hub_manifests(hubs: &[Hub]) -> String {
    let documents = hubs.iter().flat_map(Hub::manifests);
    let documents: Vec<_> = documents.map(|document| document.to_string()).collect();
    documents.join(
        "
---
",
    )
}

fn secret_manifest(key: &Key) -> Result<String> {
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "line-3-keys", "labels": { "rehome.dev/attestation": "true" } },
        "stringData": {
            "primaryKey": key.to_base64(), "secondaryKey": Key::random()?.to_base64(),
        },
    })
    .to_string())
}

fn enrollment_manifest() -> String {
    format!(
        "\
apiVersion: rehome.dev/v1alpha1
kind: Enrollment
metadata:
  name: line-3
spec:
  group: {{}}
  attestation:
    symmetricKey:
      secretRef: {{name: line-3-keys}}
  reprovisionPolicy: MigrateData
  allocation:
    policy: Static
    hubs: [hub-west]
  initialTwin:
    tags: {INITIAL_TAGS}
    properties:
      desired: {INITIAL_DESIRED}
"
    )
}
