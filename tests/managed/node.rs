//! A node as far as tests need one: it says how pods are, and runs the hub of one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams};
use rehome_testing::{Process, expect_ok, scratch};
use serde_json::{Value, json};

use super::world::{PATIENCE, World, free_address};

impl World {
    /// Writes a pod's status as a kubelet does.
    pub(crate) async fn pod_is(&self, hub: &str, ready: bool, container: Value) {
        let name = format!("iothub-{hub}-0");
        let pod: Pod = self.there(&name).await;
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone();
        let mut status = json!({ "name": "hub", "image": image, "imageID": "",
            "ready": ready, "restartCount": 0 });
        for (key, value) in container.as_object().unwrap() {
            status[key] = value.clone();
        }
        let verdict = if ready { "True" } else { "False" };
        let conditions = ["Ready", "ContainersReady"].map(|type_| {
            json!({ "type": type_, "status": verdict, "lastTransitionTime": "2026-01-01T00:00:00Z" })
        });
        let change = json!({ "status": { "phase": if ready { "Running" } else { "Pending" },
            "conditions": conditions, "containerStatuses": [status] } });
        let params = PatchParams::default();
        let api = self.namespace.api::<Pod>();
        api.patch_status(&name, &params, &Patch::Merge(&change))
            .await
            .unwrap();
    }

    pub(crate) async fn pod_runs(&self, hub: &str) {
        self.pod_is(hub, true, json!({ "state": { "running": {} } }))
            .await;
    }

    pub(crate) async fn pod_waits(&self, hub: &str, reason: &str, last: Value) {
        let state = json!({ "waiting": { "reason": reason, "message": "as the kubelet says" } });
        self.pod_is(hub, false, json!({ "state": state, "lastState": last }))
            .await;
    }

    /// Waits until the `StatefulSet` controller has replaced the pod by one with that image.
    pub(crate) async fn pod_with_image(&self, hub: &str, image: &str) {
        let name = format!("iothub-{hub}-0");
        expect_ok("a new pod", PATIENCE, async || {
            let pod = self.find::<Pod>(&name).await;
            let found = pod
                .as_ref()
                .and_then(|pod| pod.spec.as_ref()?.containers[0].image.clone());
            if found.as_deref() == Some(image) {
                Ok(())
            } else {
                Err(found)
            }
        })
        .await;
    }

    /// Runs what the pod of the hub `west` says, with its Secrets as files, where the controller
    /// expects its Service.
    pub(crate) async fn run_west(&self) -> Process {
        let pod: Pod = self.there("iothub-west-0").await;
        let root = scratch("pod").unwrap();
        let mounts = self.mount(&pod, &root).await;
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let arguments = container.args.as_ref().unwrap().iter();
        let arguments = arguments.map(|argument| placed(argument, &mounts, self.west));
        let environment: [(&str, &str); 0] = [];
        let log = root.join("hub.log");
        let binary = env!("CARGO_BIN_EXE_rehome");
        let mut hub = Process::spawn("hub", binary, arguments, environment, log).unwrap();
        hub.wait_for_line("the hub serves", PATIENCE).await.unwrap();
        hub
    }

    /// Each mount path and the folder that stands for it.
    async fn mount(&self, pod: &Pod, root: &Path) -> Vec<(String, PathBuf)> {
        let spec = pod.spec.as_ref().unwrap();
        let mut mounts = Vec::new();
        for mount in spec.containers[0].volume_mounts.iter().flatten() {
            let folder = root.join(&mount.name);
            std::fs::create_dir_all(&folder).unwrap();
            let mut volumes = spec.volumes.iter().flatten();
            let volume = volumes.find(|volume| volume.name == mount.name).unwrap();
            if let Some(source) = &volume.secret {
                let secret: Secret = self.there(source.secret_name.as_ref().unwrap()).await;
                let data = secret.data.unwrap();
                let items = source.items.iter().flatten();
                let mut files: Vec<_> = items.map(|item| (&item.path, &item.key)).collect();
                if source.items.is_none() {
                    files.extend(data.keys().map(|key| (key, key)));
                }
                for (file, key) in files {
                    std::fs::write(folder.join(file), &data[key].0).unwrap();
                }
            } else if let Some(source) = &volume.config_map {
                // Nobody has made it.
                assert_eq!(source.optional, Some(true), "{volume:?}");
            } else {
                assert!(volume.persistent_volume_claim.is_some(), "{volume:?}");
            }
            mounts.push((mount.mount_path.clone(), folder));
        }
        mounts
    }
}

/// An argument with paths and addresses of this machine.
fn placed(argument: &str, mounts: &[(String, PathBuf)], west: SocketAddr) -> String {
    let mut argument = argument.to_owned();
    for (path, folder) in mounts {
        argument = argument.replace(path, &folder.display().to_string());
    }
    match argument.split_once("=0.0.0.0:") {
        Some(("--https-address", _)) => format!("--https-address={west}"),
        Some((flag, _)) => format!("{flag}={}", free_address()),
        None => argument,
    }
}
