//! An installation with two hubs, and a group of devices that lives on one of them.

use std::path::Path;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use rehome_testing::device::{Applicant, Told};
use rehome_testing::fleet::{Group, Tenant};
use rehome_testing::installation::Flags;
use rehome_testing::{Cluster, Installation, Process, expect_ok};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
const WEST: &str = "hub-west";
const EAST: &str = "hub-east";

/// Controllers of two tests would work on each other's objects.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct Stage {
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
    pub(crate) group: Group,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Gateway and controller with these flags beside those that they always have.
    pub(crate) async fn with(flags: &[String]) -> Self {
        let turn = TURN.lock().await;
        let cluster = Cluster::shared().await.unwrap();
        let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
        // A device that waits for its move asks more often than devices may.
        let often = "--max-registers-per-device=1000".to_owned();
        let flags = Flags {
            controller: flags.into(),
            gateway: flags.iter().cloned().chain([often]).collect(),
        };
        let installation = Installation::start_with(&cluster, rehome, &[WEST, EAST], &flags);
        let installation = installation.await.unwrap();
        let tenant = Tenant::start(&cluster, &installation, "telemetry");
        let tenant = tenant.await.unwrap();
        let group = Group::new("line", Some("MigrateData"), &[WEST]).unwrap();
        tenant.enroll(&group, &installation).await.unwrap();
        Self {
            installation,
            tenant,
            group,
            _turn: turn,
        }
    }

    pub(crate) fn device(&self, name: &str) -> Applicant {
        self.tenant.device(&self.group, name)
    }

    pub(crate) async fn register(&self, device: &Applicant) -> Told {
        let registrar = &self.installation.registrar;
        self.tenant.register(registrar, device).await.unwrap()
    }

    /// Has the group live on the other hub, and the device ask until it does.
    pub(crate) async fn moved(&self, device: &Applicant) -> Told {
        let patch = Patch::Merge(json!({ "spec": { "allocation": { "hubs": [EAST] } } }));
        let enrollments = self.tenant.objects("Enrollment");
        let params = PatchParams::default();
        let patched = enrollments.patch(&self.group.name, &params, &patch).await;
        patched.unwrap();
        let east = self.installation.hubs[1].host();
        expect_ok("the device to move", PATIENCE, async || {
            let told = self.register(device).await;
            if told.hub == east {
                Ok(told)
            } else {
                Err(told)
            }
        })
        .await
    }

    /// Has the device live where it lived before, and waits until it does.
    pub(crate) async fn moved_by_a_person(&self, device: &Applicant) {
        let wish = json!({ "id": "back", "mode": "MigrateData", "hub": WEST });
        let patch = Patch::Merge(json!({ "spec": { "reprovision": wish } }));
        let records = self.tenant.objects("DeviceRegistration");
        let (name, params) = (&device.registration_id, PatchParams::default());
        records.patch(name, &params, &patch).await.unwrap();
        let west = self.installation.hubs[0].host();
        expect_ok("the device to be back", PATIENCE, async || {
            let record = records.get(name).await.unwrap();
            let status = &record.data["status"];
            let is_back = status["assignedHub"] == west && status["state"] == "Assigned";
            is_back.then_some(()).ok_or_else(|| status.clone())
        })
        .await;
    }
}

/// The lines of a process that logs JSON, all of which must be that.
pub(crate) fn lines(process: &Process) -> Vec<Value> {
    let output = process.output().unwrap();
    // The last line may not be whole yet.
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parsed = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    whole.lines().map(parsed).collect()
}
