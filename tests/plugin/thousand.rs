//! A hub is added to a thousand registrations: what the plan names is what the controller moves.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::stream::{self, StreamExt as _};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment};
use rehome_testing::device::Applicant;
use rehome_testing::fleet::Group;
use rehome_testing::installation::Hub;
use rehome_testing::{expect, expect_ok, show};
use serde_json::{Value, json};

use super::cluster::{Floor, PATIENCE};
use super::people::Person;

/// Devices that ask at the same time.
const AT_ONCE: usize = 24;
/// Devices that are told to move, rather than coming by themselves.
const TRIGGERED: usize = 5;

/// Where each device lives, by registration id.
type Homes = BTreeMap<String, String>;

pub(crate) async fn a_plan_names_exactly_the_devices_that_move(floor: &Floor) {
    let devices = settle(floor).await;
    let before = homes(floor).await;
    assert_eq!(before.len(), 1000, "registrations");
    let installation = &floor.installation;
    let north = installation.another_hub("hub-north", 1).await.unwrap();
    let manifest: Vec<_> = north.manifests().iter().map(Value::to_string).collect();
    let file = installation.directory.join("north.yaml");
    std::fs::write(&file, manifest.join("\n---\n")).unwrap();
    let file = file.display().to_string();
    let viewer = Person::with_role(&floor.tenant.namespace, "view").await;
    let editor = Person::with_role(&floor.tenant.namespace, "edit").await;

    let begin = Instant::now();
    let planned = plan(&viewer, &editor, &file).await;
    let took = begin.elapsed() / 2;
    refusals(&editor, &file, floor).await;
    assert_eq!(homes(floor).await, before, "nothing moves by planning");

    floor.tenant.add_hub(&north).await.unwrap();
    would_move(floor, planned.len()).await;
    move_them(floor, &editor, &north, &planned, &devices).await;

    let after = homes(floor).await;
    let moved = after.iter().filter(|(id, home)| before[*id] != **home);
    let moved: BTreeMap<_, _> = moved.map(|(id, home)| (id.clone(), home.clone())).collect();
    let expected = planned.keys().map(|id| (id.clone(), north.host()));
    assert_eq!(moved, expected.collect(), "what moved is what was planned");
    let count = moved.len();
    show(format!(
        "{count} of 1000 devices were planned to move and moved; a plan took {took:?}"
    ));
    let again = viewer.asks(&["plan", "-f", &file]).await;
    assert_eq!(again["moves"], json!([]), "nothing is left to move");
    let status = viewer.types(&["status"]).await;
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.out.lines().count() < 30, "{}", status.out);
    assert!(status.out.contains("hub-north"), "{}", status.out);
}

/// Hub by registration id, as the plan names them: the same for whoever asks.
async fn plan(viewer: &Person, editor: &Person, file: &str) -> Homes {
    let seen = viewer.asks(&["plan", "-f", file]).await;
    let notes = seen["notes"].to_string();
    let unjudged = "was not judged by the API server, because you may not";
    assert!(notes.contains(unjudged), "{notes}");
    assert!(notes.contains("assumed to become Ready"), "{notes}");
    let judged = editor.asks(&["plan", "-f", file]).await;
    assert_eq!(judged["moves"], seen["moves"]);
    assert!(!judged["notes"].to_string().contains(unjudged), "{judged}");
    assert_eq!(seen["registrations"], 1000);
    let moves = seen["moves"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let planned: Homes = moves
        .map(|one| (text(&one["registration"]), text(&one["to"])))
        .collect();
    let count = planned.len();
    assert!(
        (150..450).contains(&count),
        "{count} are about a third of the fleet"
    );
    assert!(planned.values().all(|to| to == "hub-north"), "{planned:?}");
    let told = viewer.types(&["plan", "-f", file]).await;
    let heading = format!("{count} devices of 1000 registrations would move");
    assert!(told.out.contains(&heading), "{}", told.out);
    planned
}

/// Some are told to move, and everybody comes by.
async fn move_them(
    floor: &Floor,
    editor: &Person,
    north: &Hub,
    planned: &Homes,
    devices: &[Applicant],
) {
    let mut movers = planned.keys();
    for id in movers.by_ref().take(TRIGGERED) {
        let said = editor.types(&["reprovision", id, "--wait"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("Moved"), "{said:?}");
    }
    // Until the gateway has seen the hub, devices are answered as before.
    let first = movers.next().unwrap();
    let first = devices
        .iter()
        .find(|one| one.registration_id == *first)
        .unwrap();
    expect("the gateway to know the hub", PATIENCE, async || {
        let told = floor.tenant.register(&floor.installation.registrar, first);
        (told.await.unwrap().hub == north.host()).then_some(())
    })
    .await;
    check_in(floor, devices).await;
}

/// What the API server would refuse is refused by the plan, with its words.
async fn refusals(editor: &Person, file: &str, floor: &Floor) {
    let text = std::fs::read_to_string(file)
        .unwrap()
        .replace("hub-north", "hub-west");
    let other = floor.installation.directory.join("immutable.yaml");
    std::fs::write(&other, text).unwrap();
    let refused = editor
        .types(&["plan", "-f", &other.display().to_string()])
        .await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("hostName is immutable"), "{refused:?}");
    let missing = editor.types(&["plan", "-f", "/nonexistent.yaml"]).await;
    assert!(
        missing.err.contains("/nonexistent.yaml cannot be read"),
        "{missing:?}"
    );
}

/// Registrations of all kinds, a thousand with those that are there: most of them may live on any
/// hub and move when they come; some stay by policy, some have one hub.
async fn settle(floor: &Floor) -> Vec<Applicant> {
    let there = homes(floor).await.len();
    let mut devices = Vec::new();
    let kinds = [
        ("fleet", Some("MigrateData"), None, 847 - 3 - there),
        ("kept", Some("Never"), None, 75),
        ("old", None, None, 38),
        ("pinned", Some("MigrateData"), Some("hub-west"), 40),
    ];
    for (name, policy, hub, number) in kinds {
        let hubs: &[&str] = if hub.is_some() {
            &["hub-west"]
        } else {
            &["hub-west", "hub-east"]
        };
        let group = Group::new(name, policy, hubs).unwrap();
        floor
            .tenant
            .enroll(&group, &floor.installation)
            .await
            .unwrap();
        if hub.is_none() {
            any_hub(floor, name).await;
        }
        let mut of_group: Vec<_> = (1..number)
            .map(|number| floor.tenant.device(&group, number))
            .collect();
        if name == "old" {
            for device in &mut of_group {
                "2017-11-15".clone_into(&mut device.api_version);
            }
        }
        devices.extend(of_group);
        devices.push(floor.tenant.device(&group, "pioneer"));
    }
    let missing = 1000 - there - devices.len();
    let group = Group::new("rest", Some("Never"), &["hub-west"]).unwrap();
    floor
        .tenant
        .enroll(&group, &floor.installation)
        .await
        .unwrap();
    devices.push(floor.tenant.device(&group, "pioneer"));
    devices.extend((1..missing).map(|number| floor.tenant.device(&group, number)));
    check_in(floor, &devices).await;
    devices
}

/// Lets a group live on every hub of the namespace.
async fn any_hub(floor: &Floor, name: &str) {
    let enrollments: Api<Enrollment> = floor.tenant.namespace.api();
    let patch = Patch::Merge(json!({ "spec": { "allocation": { "hubs": null } } }));
    enrollments
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Every device registers once.
async fn check_in(floor: &Floor, devices: &[Applicant]) {
    let registering = devices.iter().map(async |device| {
        let told = floor
            .tenant
            .register(&floor.installation.registrar, device)
            .await
            .unwrap();
        assert_eq!(told.status, "assigned", "{}", device.registration_id);
    });
    stream::iter(registering)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
}

/// Where everybody lives, once nobody is on the way.
async fn homes(floor: &Floor) -> Homes {
    let api: Api<DeviceRegistration> = floor.tenant.namespace.api();
    expect_ok("everybody to have a home", PATIENCE, async || {
        let all = api.list(&ListParams::default()).await.unwrap().items;
        let mut homes = Homes::new();
        for one in all {
            let id = one.spec.registration_id.clone();
            let status = one.status.clone().unwrap_or_default();
            match status.assigned_hub {
                Some(hub) if status.transfer.is_none() => drop(homes.insert(id, hub)),
                _ => return Err(format!("{id}: {:?}", one.status)),
            }
        }
        Ok(homes)
    })
    .await
}

/// The controller counts what the plan has named.
async fn would_move(floor: &Floor, planned: usize) {
    let enrollments: Api<Enrollment> = floor.tenant.namespace.api();
    expect_ok("the controller to count the same", PATIENCE, async || {
        let all = enrollments
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let counts = all
            .iter()
            .filter_map(|one| one.status.as_ref()?.registrations);
        let counted: i64 = counts.map(|counts| counts.would_move).sum();
        if usize::try_from(counted).unwrap() == planned {
            Ok(())
        } else {
            Err(counted)
        }
    })
    .await;
}
