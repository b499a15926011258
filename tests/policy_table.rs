//! The policy table, on the whole: real gateway, controller, API server and hubs as processes, and
//! a device and a back end that use them as theirs would.
#![cfg(test)]

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rehome::api::v1alpha1::{
    ConditionType, DeviceRegistration, Enrollment, IoTHub, RegistrationState, is_true,
};
use rehome_testing::device::{Applicant, Key, Protocol, Refused, Session, Told};
use rehome_testing::installation::{Hub, Twin};
use rehome_testing::{Cluster, Installation, Namespace, expect, expect_ok};
use serde_json::{Value, json};
use tokio::task::LocalSet;

/// Longest wait for anything: the machine may be busy, and the cluster with what other tests left.
const PATIENCE: Duration = Duration::from_mins(3);
/// Longest time for a hub to end a connection.
const DROP: Duration = Duration::from_secs(10);

/// A policy, and the api-version that the device speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    MigrateData,
    ResetData,
    Never,
    AbsentAndOldDevice,
    AbsentAndNewDevice,
}

const POLICIES: [Policy; 5] = [
    Policy::MigrateData,
    Policy::ResetData,
    Policy::Never,
    Policy::AbsentAndOldDevice,
    Policy::AbsentAndNewDevice,
];

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    number: usize,
    policy: Policy,
    in_group: bool,
    hub_changes: bool,
    protocol: Protocol,
}

/// What the Azure page "IoT Hub Device reprovisioning concepts" says about a line.
struct Expected {
    moves: bool,
    substatus: &'static str,
    keeps_twin: bool,
}

/// Where it ended.
struct Seen {
    hub: String,
    substatus: String,
    keeps_twin: bool,
}

/// What the lines share.
struct Floor {
    installation: Installation,
    namespace: Namespace,
}

/// A line's own objects and values.
struct Case<'a> {
    row: Row,
    floor: &'a Floor,
    id: String,
    /// Of the Enrollment: the device's own, or the group's.
    keys: [Key; 2],
    /// What device and back end write into the twin.
    nonce: String,
}

impl Policy {
    fn spec(self) -> Option<&'static str> {
        match self {
            Self::MigrateData => Some("MigrateData"),
            Self::ResetData => Some("ResetData"),
            Self::Never => Some("Never"),
            Self::AbsentAndOldDevice | Self::AbsentAndNewDevice => None,
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::AbsentAndOldDevice => "2017-11-15",
            Self::MigrateData | Self::ResetData | Self::Never | Self::AbsentAndNewDevice => {
                "2019-03-31"
            }
        }
    }
}

impl Row {
    fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for policy in POLICIES {
            for in_group in [false, true] {
                for hub_changes in [true, false] {
                    for protocol in [Protocol::Https, Protocol::Mqtt] {
                        let number = rows.len() + 1;
                        rows.push(Self {
                            number,
                            policy,
                            in_group,
                            hub_changes,
                            protocol,
                        });
                    }
                }
            }
        }
        rows
    }

    fn expected(self) -> Expected {
        let expected = |moves, substatus, keeps_twin| Expected {
            moves,
            substatus,
            keeps_twin,
        };
        match (self.policy, self.hub_changes) {
            (Policy::MigrateData | Policy::AbsentAndNewDevice, true) => {
                expected(true, "deviceDataMigrated", true)
            }
            (Policy::MigrateData | Policy::AbsentAndNewDevice, false)
            | (Policy::Never | Policy::AbsentAndOldDevice, _) => {
                expected(false, "initialAssignment", true)
            }
            (Policy::ResetData, moves) => expected(moves, "deviceDataReset", false),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>2}  {:<11}  {}  {:<10}  {:<4}  {:<5}",
            self.number,
            self.policy.spec().unwrap_or("absent"),
            self.policy.api_version(),
            if self.in_group { "group" } else { "individual" },
            if self.hub_changes { "east" } else { "west" },
            self.protocol,
        )
    }
}

impl<'a> Case<'a> {
    fn new(row: Row, floor: &'a Floor) -> Self {
        let key = || Key::random().unwrap();
        Self {
            row,
            floor,
            id: format!("press-{}", row.number),
            keys: [key(), key()],
            nonce: key().to_base64(),
        }
    }

    fn west(&self) -> &'a Hub {
        &self.floor.installation.hubs[0]
    }

    fn east(&self) -> &'a Hub {
        &self.floor.installation.hubs[1]
    }

    /// The keys of the device: primary and secondary.
    fn device_keys(&self) -> [Key; 2] {
        self.keys.clone().map(|key| {
            if self.row.in_group {
                key.of_device(&self.id)
            } else {
                key
            }
        })
    }

    fn manifests(&self) -> String {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": self.id, "labels": { "rehome.dev/attestation": "true" } },
            "stringData": {
                "primaryKey": self.keys[0].to_base64(), "secondaryKey": self.keys[1].to_base64(),
            },
        });
        let mut spec = json!({
            "attestation": { "symmetricKey": { "secretRef": { "name": self.id } } },
            "allocation": { "policy": "Static", "hubs": ["hub-west"] },
            "initialTwin": {
                "tags": { "line": 3 }, "properties": { "desired": { "interval": 60 } },
            },
        });
        if let Some(policy) = self.row.policy.spec() {
            spec["reprovisionPolicy"] = policy.into();
        }
        if self.row.in_group {
            spec["group"] = json!({});
        } else {
            spec["individual"] = json!({ "registrationId": self.id });
        }
        let enrollment = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": self.id }, "spec": spec,
        });
        format!("{secret}\n---\n{enrollment}\n")
    }

    async fn register(&self) -> Result<Told, anyhow::Error> {
        let applicant = Applicant {
            scope: self.floor.namespace.name().to_owned(),
            registration_id: self.id.clone(),
            key: self.device_keys()[0].clone(),
            api_version: self.row.policy.api_version().to_owned(),
        };
        let registrar = &self.floor.installation.registrar;
        registrar
            .register(&applicant, self.row.protocol, None)
            .await
    }

    async fn connect(&self, hub: &Hub) -> Result<Session, anyhow::Error> {
        let trust = &self.floor.installation.registrar.trust;
        let key = &self.device_keys()[0];
        Session::connect(&hub.host(), hub.place.mqtt(), trust, &self.id, key).await
    }

    async fn run(&self) -> Seen {
        self.floor.namespace.apply(&self.manifests()).await.unwrap();
        // The gateway learns of the Enrollment by and by.
        let first = expect_ok("the first registration", PATIENCE, || self.register()).await;
        assert_eq!(
            (
                &*first.status,
                &*first.hub,
                &*first.device_id,
                &*first.substatus
            ),
            (
                "assigned",
                &*self.west().host(),
                &*self.id,
                "initialAssignment"
            )
        );
        let mut session = self.connect(self.west()).await.unwrap();
        let twin = session.twin().await.unwrap();
        assert_eq!(twin["desired"]["interval"], 60);
        session
            .report(&json!({ "nonce": self.nonce }))
            .await
            .unwrap();
        let writes = json!({
            "tags": { "owner": self.nonce }, "properties": { "desired": { "interval": 5 } },
        });
        self.west().patch_twin(&self.id, &writes).await.unwrap();
        assert_eq!(session.desired_change().await.unwrap()["interval"], 5);
        let before = self.west().identity(&self.id).await.unwrap().unwrap();
        let twin_before = self.west().full_twin(&self.id).await.unwrap().unwrap();

        self.change_allocation().await;
        let told = expect("a new operation", PATIENCE, async || {
            let told = self.register().await.unwrap();
            (told.operation_id != first.operation_id).then_some(told)
        })
        .await;

        let expected = self.row.expected();
        let home = if expected.moves {
            self.east()
        } else {
            self.west()
        };
        assert_eq!(
            (
                &*told.status,
                &*told.hub,
                &*told.device_id,
                &*told.substatus
            ),
            ("assigned", &*home.host(), &*self.id, expected.substatus)
        );
        let registration = self.check_record(&told).await;
        let identity = self.check_identity(home, &registration).await;
        let is_new = identity["generationId"] != before["generationId"];
        assert_eq!(is_new, expected.moves || !expected.keeps_twin);
        let keeps_twin = self.check_twin(home, &twin_before).await;
        self.check_connections(home, session, is_new).await;
        Seen {
            hub: self
                .floor
                .installation
                .hub_at(&told.hub)
                .unwrap()
                .name
                .clone(),
            substatus: told.substatus,
            keeps_twin,
        }
    }

    /// The operator edits the Enrollment: another hub, or the same one by another rule, so that it
    /// is evaluated again in either case.
    async fn change_allocation(&self) {
        let allocation = if self.row.hub_changes {
            json!({ "policy": "Static", "hubs": ["hub-east"] })
        } else {
            json!({ "policy": "Hashed", "hubs": ["hub-west"] })
        };
        let patch = Patch::Merge(json!({ "spec": { "allocation": allocation } }));
        let enrollments: Api<Enrollment> = self.floor.namespace.api();
        let params = PatchParams::default();
        let patched = enrollments.patch(&self.id, &params, &patch).await.unwrap();
        expect(
            "the controller to see the Enrollment",
            PATIENCE,
            async || {
                let status = enrollments.get_status(&self.id).await.unwrap().status?;
                (status.observed_generation == patched.metadata.generation).then_some(())
            },
        )
        .await;
    }

    async fn check_record(&self, told: &Told) -> DeviceRegistration {
        let registrations: Api<DeviceRegistration> = self.floor.namespace.api();
        let registration = registrations.get(&self.id).await.unwrap();
        let status = registration.status.clone().unwrap();
        assert_eq!(status.state, Some(RegistrationState::Assigned));
        let substatus = serde_json::to_value(status.substatus).unwrap();
        let substatus = substatus.as_str().unwrap();
        // DeviceDataMigrated in the record, deviceDataMigrated to devices.
        assert_eq!(
            substatus[..1].to_lowercase() + &substatus[1..],
            told.substatus
        );
        assert_eq!(status.assigned_hub.as_ref(), Some(&told.hub));
        assert_eq!(status.device_id.as_ref(), Some(&told.device_id));
        assert_eq!(status.operation_id.as_ref(), Some(&told.operation_id));
        assert!(
            status.transfer.is_none() && status.cleanup.is_empty(),
            "{status:?}"
        );
        assert!(
            is_true(&status.conditions, ConditionType::Ready),
            "{status:?}"
        );
        registration
    }

    /// The identity is at its home as recorded, and nowhere else.
    async fn check_identity(&self, home: &Hub, registration: &DeviceRegistration) -> Value {
        for hub in [self.west(), self.east()] {
            let identity = hub.identity(&self.id).await.unwrap();
            let twin = hub.full_twin(&self.id).await.unwrap();
            assert_eq!(identity.is_some(), hub.name == home.name, "{}", hub.name);
            assert_eq!(twin.is_some(), hub.name == home.name, "{}", hub.name);
        }
        let identity = home.identity(&self.id).await.unwrap().unwrap();
        assert_eq!(identity["status"], "enabled");
        let mark = identity["statusReason"].as_str().unwrap();
        let uid = registration.metadata.uid.as_ref().unwrap();
        assert!(mark.starts_with(&format!("rehome {uid} ")), "{mark}");
        let recorded = registration.status.as_ref().unwrap().generation_id.as_ref();
        assert_eq!(
            identity["generationId"].as_str(),
            recorded.map(String::as_str)
        );
        let [primary, secondary] = self.device_keys().map(|key| key.to_base64());
        let keys = json!({ "primaryKey": primary, "secondaryKey": secondary });
        // Not assert_eq: keys must not be shown.
        assert!(
            identity["authentication"]["symmetricKey"] == keys,
            "other keys"
        );
        identity
    }

    /// The twin is what the policy says, to the letter; whether it is the one from before.
    async fn check_twin(&self, home: &Hub, before: &Value) -> bool {
        let full = home.full_twin(&self.id).await.unwrap().unwrap();
        let twin = home.twin(&self.id).await.unwrap().unwrap();
        let versions = |twin: &Value| {
            ["desired", "reported"].map(|part| twin["properties"][part]["$version"].clone())
        };
        let (carried, fresh) = (
            Twin {
                tags: json!({ "line": 3, "owner": self.nonce }),
                desired: json!({ "interval": 5 }),
                reported: json!({ "nonce": self.nonce }),
            },
            Twin {
                tags: json!({ "line": 3 }),
                desired: json!({ "interval": 60 }),
                reported: json!({}),
            },
        );
        if self.row.expected().keeps_twin {
            assert_eq!(twin, carried);
            assert_eq!(versions(&full), versions(before));
        } else {
            assert_eq!(twin, fresh);
        }
        twin == carried
    }

    /// The device gets in where it was told and nowhere else; its first connection is gone if the
    /// identity behind it is.
    async fn check_connections(&self, home: &Hub, mut first: Session, is_gone: bool) {
        if is_gone {
            assert!(first.is_ended(DROP).await, "the old identity is connected");
        } else {
            let twin = first.twin().await.unwrap();
            assert_eq!(twin["reported"]["nonce"], self.nonce);
        }
        let mut session = self.connect(home).await.unwrap();
        let twin = session.twin().await.unwrap();
        let nonce = Value::from(&*self.nonce);
        let reported = Some(&nonce).filter(|_| self.row.expected().keeps_twin);
        assert_eq!(twin["reported"].get("nonce"), reported);
        session.report(&json!({ "again": true })).await.unwrap();
        let other = if home.name == "hub-west" {
            self.east()
        } else {
            self.west()
        };
        let error = self.connect(other).await.err().expect("two homes");
        assert_eq!(error.downcast_ref(), Some(&Refused(5)), "{error:#}");
    }
}

#[tokio::test]
async fn every_policy_does_what_the_table_says() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &["hub-west", "hub-east"]);
    let floor = Arc::new(Floor {
        installation: installation.await.unwrap(),
        namespace: cluster.namespace("policies").await.unwrap(),
    });
    for manifest in floor.installation.hubs.iter().flat_map(Hub::manifests) {
        floor.namespace.apply(&manifest.to_string()).await.unwrap();
    }
    let hubs: Api<IoTHub> = floor.namespace.api();
    for hub in ["hub-west", "hub-east"] {
        expect(&format!("{hub} to be ready"), PATIENCE, async || {
            let status = hubs.get_status(hub).await.unwrap().status?;
            is_true(&status.conditions, ConditionType::Ready).then_some(())
        })
        .await;
    }

    let begin = Instant::now();
    let rows = Row::all();
    // A task for each row, so that one that fails does not keep the others from the table.
    let tasks = LocalSet::new();
    let outcomes = join_all(rows.iter().map(|&row| {
        let floor = floor.clone();
        tasks.spawn_local(async move { Case::new(row, &floor).run().await })
    }));
    let outcomes = tasks.run_until(outcomes).await;
    let mut table = String::from(
        " #  policy       api-version enrollment  wants protocol → hub       substatus           twin\n",
    );
    for (row, outcome) in rows.iter().zip(&outcomes) {
        let end = outcome.as_ref().map_or_else(
            |_| "FAILED".to_owned(),
            |seen| {
                let twin = if seen.keeps_twin { "kept" } else { "initial" };
                format!("{:<8}  {:<18}  {twin}", seen.hub, seen.substatus)
            },
        );
        table.push_str(&[&row.to_string(), "    → ", &end, "\n"].concat());
    }
    // Not print: the table is wanted when the test passes, too.
    let seconds = begin.elapsed().as_secs();
    let count = outcomes.len();
    let mut stderr = std::io::stderr();
    write!(stderr, "\n{table}{count} rows in {seconds} s\n").unwrap();
    assert_eq!(count, 40);
    let failed: Vec<_> = rows
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome.is_err())
        .map(|(row, _)| row.number)
        .collect();
    assert_eq!(failed, [0; 0], "rows that failed; each said why above");
    let floor = Arc::into_inner(floor).unwrap();
    floor.installation.stop().await.unwrap();
}
