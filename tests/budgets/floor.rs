//! The installation that is measured: nobody else uses its API server.

use std::path::Path;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use kube::Api;
use kube::api::ListParams;
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment, IoTHub, RegistrationState};
use rehome_testing::device::{Applicant, Told};
use rehome_testing::fleet::{Group, Tenant};
use rehome_testing::installation::Flags;
use rehome_testing::{Cluster, Installation, expect_ok};

pub(crate) const WEST: &str = "hub-west";
pub(crate) const EAST: &str = "hub-east";
/// Devices that ask at the same time.
const AT_ONCE: usize = 16;
/// Longest time for everything to come to rest.
const REST: Duration = Duration::from_mins(2);

pub(crate) struct Floor {
    pub(crate) cluster: Cluster,
    pub(crate) installation: Installation,
    pub(crate) tenant: Tenant,
}

impl Floor {
    /// Repetitions are new requests at once, so that they cost what they cost after a minute.
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::private().await.unwrap();
        let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
        let flags = Flags {
            gateway: ["resend", "refused"]
                .map(|window| format!("--{window}-window-seconds=0"))
                .into(),
            ..Flags::default()
        };
        let installation = Installation::start_with(&cluster, rehome, &[WEST, EAST], &flags)
            .await
            .unwrap();
        let tenant = Tenant::start(&cluster, &installation, "budgets")
            .await
            .unwrap();
        Self {
            cluster,
            installation,
            tenant,
        }
    }

    /// A group with devices that are not registered yet, apart from its pioneer.
    pub(crate) async fn group(&self, name: &str, policy: &'static str, devices: usize) -> Group {
        let group = Group::new(name, Some(policy), &[WEST]).unwrap();
        self.tenant
            .enroll(&group, &self.installation)
            .await
            .unwrap();
        assert!(devices > 0);
        group
    }

    pub(crate) fn devices(&self, group: &Group, count: usize) -> Vec<Applicant> {
        (0..count)
            .map(|number| self.tenant.device(group, number))
            .collect()
    }

    /// Every device registers, and is told its hub.
    pub(crate) async fn register(&self, devices: &[Applicant]) -> Vec<Told> {
        let registering = devices.iter().map(async |device| {
            let told = self.tenant.register(&self.installation.registrar, device);
            let told = told.await.unwrap();
            assert_eq!(told.status, "assigned", "{}", device.registration_id);
            told
        });
        stream::iter(registering).buffered(AT_ONCE).collect().await
    }

    /// Waits until no device is on its way and every status shows the final counts.
    pub(crate) async fn rest(&self) {
        let all = ListParams::default();
        let registrations: Api<DeviceRegistration> = self.tenant.namespace.api();
        let enrollments: Api<Enrollment> = self.tenant.namespace.api();
        let hubs: Api<IoTHub> = self.tenant.namespace.api();
        expect_ok("everything to come to rest", REST, async || {
            let registrations = registrations.list(&all).await.unwrap().items;
            let statuses: Vec<_> = registrations
                .iter()
                .map(|one| one.status.clone().unwrap_or_default())
                .collect();
            for (one, status) in registrations.iter().zip(&statuses) {
                let assigned = status.state == Some(RegistrationState::Assigned);
                let current = status.observed_generation == one.metadata.generation;
                if !assigned || !current || status.transfer.is_some() || !status.cleanup.is_empty()
                {
                    return Err(format!("{:?}: {status:?}", one.metadata.name));
                }
            }
            for enrollment in enrollments.list(&all).await.unwrap() {
                let uid = enrollment.metadata.uid.clone().unwrap();
                let of = registrations.iter().filter(|one| {
                    let request = one.spec.request.as_ref();
                    request.is_some_and(|request| request.enrollment.uid == uid)
                });
                let expected = i64::try_from(of.count()).unwrap();
                let counts = enrollment.status.and_then(|status| status.registrations);
                if counts
                    .as_ref()
                    .is_none_or(|counts| counts.assigned != expected)
                {
                    return Err(format!("{:?}: {counts:?}", enrollment.metadata.name));
                }
            }
            for hub in hubs.list(&all).await.unwrap() {
                let of = statuses.iter().filter(|status| {
                    let home = status.home.as_ref();
                    home.is_some_and(|home| Some(&home.uid) == hub.metadata.uid.as_ref())
                });
                let expected = i64::try_from(of.count()).unwrap();
                let shown = hub.status.and_then(|status| status.assigned_devices);
                if shown != Some(expected) {
                    return Err(format!("{:?}: {shown:?}", hub.metadata.name));
                }
            }
            Ok(())
        })
        .await;
    }
}
