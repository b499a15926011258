//! One device and those who look after it.

use rehome_testing::fleet::Group;

use super::cluster::Floor;
use super::people::{Person, run};

const LINE: &str = "line-3";
/// Registered by `Tenant::enroll`.
const PIONEER: &str = "line-3-pioneer";

/// Whoever may view sees the state, and why, and may change nothing.
pub(crate) async fn looking(floor: &Floor) {
    let viewer = Person::with_role(&floor.tenant.namespace, "view").await;
    let empty = viewer.types(&["status"]).await;
    assert_eq!(empty.code, 0, "{empty:?}");
    assert!(
        empty.out.contains("none: no device may register"),
        "{empty:?}"
    );

    let group = Group::new(LINE, Some("MigrateData"), &["hub-west"]).unwrap();
    floor
        .tenant
        .enroll(&group, &floor.installation)
        .await
        .unwrap();
    let status = viewer.types(&["status"]).await;
    assert_eq!(status.code, 0, "{status:?}");
    for part in [
        "hub-west",
        "hub-east",
        LINE,
        "1 in all: 1 assigned",
        "Nothing is stuck",
    ] {
        assert!(status.out.contains(part), "{part}: {status:?}");
    }
    assert!(
        !status.out.contains('\u{1b}'),
        "colours off a terminal: {status:?}"
    );
    let coloured = viewer.types(&["status", "--color", "always"]).await;
    assert!(coloured.out.contains('\u{1b}'), "{coloured:?}");
    let yaml = viewer.types(&["status", "-o", "yaml"]).await;
    let yaml: serde_json::Value = serde_saphyr::from_str(&yaml.out).unwrap();
    assert_eq!(yaml["registrations"]["Assigned"], 1, "{yaml}");

    let explained = viewer.types(&["explain", &PIONEER.to_uppercase()]).await;
    assert_eq!(explained.code, 0, "{explained:?}");
    for part in [
        "Assigned, InitialAssignment",
        "line-3 (group)",
        "1. hub-west (weight 1), its home",
        "it is told hub-west again, and nothing is written",
        "registered for the first time",
    ] {
        assert!(explained.out.contains(part), "{part}: {explained:?}");
    }
    // The record is as it was before somebody looked: nothing is written by looking.
    let unknown = viewer.types(&["explain", "press-0"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown.err.contains("there is no registration press-0"),
        "{unknown:?}"
    );
    let refused = viewer.types(&["reprovision", PIONEER]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused
            .err
            .contains("kubectl auth can-i patch deviceregistrations"),
        "{refused:?}"
    );
    let everywhere = viewer.types(&["status", "-A"]).await;
    assert_eq!(everywhere.code, 1, "{everywhere:?}");
    assert!(
        everywhere
            .err
            .contains("cannot list iothubs in any namespace"),
        "{everywhere:?}"
    );
    let logs = viewer.types(&["logs", PIONEER]).await;
    assert_eq!(logs.code, 1, "{logs:?}");
    assert!(
        logs.err
            .contains("cannot list pods in namespace rehome-system"),
        "{logs:?}"
    );
}

/// Whoever may edit moves a device, and sees how it ends.
pub(crate) async fn moving(floor: &Floor) {
    let editor = Person::with_role(&floor.tenant.namespace, "edit").await;
    let nonsense = editor
        .types(&["reprovision", PIONEER, "--hub", "hub-east"])
        .await;
    assert_eq!(nonsense.code, 1, "{nonsense:?}");
    assert!(nonsense.err.contains("--hub needs --mode"), "{nonsense:?}");

    let stays = editor.types(&["reprovision", PIONEER, "--wait"]).await;
    assert_eq!(stays.code, 0, "{stays:?}");
    assert!(stays.out.contains("SameHub: stays at"), "{stays:?}");

    let moved = [
        "reprovision",
        PIONEER,
        "--mode",
        "migrate-data",
        "--hub",
        "hub-east",
        "--wait",
    ];
    let moved = editor.types(&moved).await;
    assert_eq!(moved.code, 0, "{moved:?}");
    assert!(moved.out.contains("Moved: moved from"), "{moved:?}");
    let east = &floor.installation.hubs[1];
    assert!(east.identity(PIONEER).await.unwrap().is_some());
    let explained = editor.types(&["explain", PIONEER]).await;
    // The operator's wish stands: allocation is not asked again while nothing changes.
    for part in [
        "at hub-east",
        "it is told hub-east again",
        "Moved",
        "MigrateData",
    ] {
        assert!(explained.out.contains(part), "{part}: {explained:?}");
    }

    // No such hub: the wish waits, and waiting for it is in vain.
    let waits = [
        "reprovision",
        PIONEER,
        "--mode",
        "migrate-data",
        "--hub",
        "hub-nort",
        "--wait",
        "--timeout",
        "5",
    ];
    let waits = editor.types(&waits).await;
    assert_eq!(waits.code, 2, "{waits:?}");
    assert!(
        waits.out.contains("is not done yet: HubNotFound"),
        "{waits:?}"
    );
    let status = editor.types(&["status"]).await;
    assert_eq!(status.code, 2, "{status:?}");
    assert!(
        status
            .out
            .contains(&format!("devreg/{PIONEER}: HubNotFound")),
        "{status:?}"
    );
    let back = [
        "reprovision",
        PIONEER,
        "--mode",
        "migrate-data",
        "--hub",
        "hub-west",
        "--wait",
    ];
    assert_eq!(editor.types(&back).await.code, 0);
    assert_eq!(editor.types(&["status"]).await.code, 0);
}

/// A device registers with the key that the plugin prints.
pub(crate) async fn keys(floor: &Floor) {
    let editor = Person::with_role(&floor.tenant.namespace, "edit").await;
    let viewer = Person::with_role(&floor.tenant.namespace, "view").await;
    let group = Group::new("line-4", Some("MigrateData"), &["hub-west"]).unwrap();
    floor
        .tenant
        .enroll(&group, &floor.installation)
        .await
        .unwrap();
    let device = floor.tenant.device(&group, "Press.7");
    let id = device.registration_id.clone();
    let printed = editor
        .types(&["device-key", &id, "--enrollment", "line-4"])
        .await;
    assert_eq!(printed.code, 0, "{}", printed.err);
    // Not assert_eq: keys must not be shown.
    assert!(
        printed.out == format!("{}\n", device.key.to_base64()),
        "another key"
    );
    assert!(printed.err.is_empty(), "{}", printed.err);
    let offline = run(
        &["device-key", &id, "--group-key-file", "-"],
        &group.key.to_base64(),
    )
    .await;
    assert!(
        offline.out == printed.out && offline.code == 0,
        "{}",
        offline.err
    );
    let told = floor
        .tenant
        .register(&floor.installation.registrar, &device)
        .await
        .unwrap();
    assert_eq!(told.status, "assigned");

    let refused = viewer
        .types(&["device-key", &id, "--enrollment", "line-4"])
        .await;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (1, ""),
        "{}",
        refused.err
    );
    assert!(
        refused.err.contains("cannot get secrets"),
        "{}",
        refused.err
    );
    let broken = run(&["device-key", &id, "--group-key-file", "-"], "no key").await;
    assert_eq!((broken.code, broken.out.as_str()), (1, ""));
    assert!(
        broken.err.contains("not base64") && !broken.err.contains("no key\n"),
        "{}",
        broken.err
    );
}
