//! Log lines say which device, operation and move they are about, never a secret, and as much as is
//! wanted now.

use rehome_testing::device::Protocol;
use rehome_testing::installation::Hub;
use rehome_testing::scratch;
use serde_json::Value;

use crate::stage::{PATIENCE, Stage, lines};

/// What the line says it is about, if that is a device: the runtime's own span may stand around ours.
fn subject(line: &Value) -> &Value {
    let mut spans = line["spans"].as_array().into_iter().flatten();
    let found = spans.find(|span| span["registration"].is_string());
    found.unwrap_or(&Value::Null)
}

/// Lines that are about this device and say `message`, or anything if that is empty.
fn about<'a>(lines: &'a [Value], id: &'a str, message: &'a str) -> Vec<&'a Value> {
    let says = |line: &&Value| {
        let said = line["fields"]["message"].as_str().unwrap_or_default();
        subject(line)["registration"] == id && said.contains(message)
    };
    lines.iter().filter(says).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_say_which_operation_and_which_move_they_are_about() {
    let flags = ["--log-format=json", "--log=debug"].map(str::to_owned);
    let stage = Stage::with(&flags).await;
    let device = stage.device("press-7");
    let id = device.registration_id.as_str();
    let first = stage.register(&device).await;
    let second = stage.moved(&device).await;
    assert_ne!(first.operation_id, second.operation_id);

    let gateway = lines(&stage.installation.gateway);
    let accepted = about(&gateway, id, "accepted");
    let operations: Vec<_> = accepted
        .iter()
        .map(|line| subject(line)["operation"].as_str().unwrap())
        .collect();
    for told in [&first, &second] {
        assert!(operations.contains(&&*told.operation_id), "{operations:?}");
    }

    let controller = lines(&stage.installation.controller);
    let of_operation = |operation: &str| -> Vec<&Value> {
        let subjects = about(&controller, id, "").into_iter().map(subject);
        subjects
            .filter(|about| about["operation"] == operation)
            .collect()
    };
    let assigned = of_operation(&first.operation_id);
    assert!(!assigned.is_empty(), "nothing about the first assignment");
    let is_move = |about: &&Value| about["transfer"].is_string();
    assert!(
        !assigned.iter().any(is_move),
        "an assignment is no move: {assigned:?}"
    );
    let moved = of_operation(&second.operation_id);
    assert!(moved.iter().any(is_move), "{moved:?}");
    stage.installation.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_hold_no_secret_however_much_is_logged() {
    let mut stage = Stage::with(&["--log=trace".to_owned()]).await;
    let device = stage.device("press-7");
    for protocol in Protocol::ALL {
        let registrar = &stage.installation.registrar;
        registrar.register(&device, protocol, None).await.unwrap();
    }
    stage.moved(&device).await;
    let installation = &mut stage.installation;
    for process in [&mut installation.gateway, &mut installation.controller] {
        let everything = process.wait_for_line("TRACE", PATIENCE);
        everything.await.unwrap();
    }
    let hubs = stage.installation.hubs.iter();
    let connections: Vec<_> = hubs.map(Hub::connection_string).collect();
    let keys = connections.iter().map(|connection| {
        let (_, key) = connection.split_once("SharedAccessKey=").unwrap();
        key.to_owned()
    });
    let device_keys = [stage.group.key.to_base64(), device.key.to_base64()];
    // Tokens of devices, of the controller at hubs, and of both at the API server.
    let tokens = ["SharedAccessSignature sr=", "eyJhbGciOi"].map(str::to_owned);
    let secrets: Vec<_> = keys.chain(device_keys).chain(tokens).collect();
    for process in [&stage.installation.gateway, &stage.installation.controller] {
        let output = process.output().unwrap();
        // Not the secret itself: a failure must not show it either.
        let shown: Vec<_> = secrets.iter().map(|it| output.contains(it)).collect();
        assert!(
            !shown.contains(&true),
            "{}: {shown:?}",
            process.log().display()
        );
    }
    stage.installation.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_changes_while_they_run() {
    let filter = scratch("filter").unwrap().join("filter");
    let from = format!("--log-from={}", filter.display());
    let mut stage = Stage::with(&["--log-format=json".to_owned(), from]).await;
    stage.register(&stage.device("quiet")).await;
    std::fs::write(&filter, "info,rehome::registry=debug,rehome::gateway=debug").unwrap();
    let installation = &mut stage.installation;
    for process in [&mut installation.gateway, &mut installation.controller] {
        let changed = process.wait_for_line("what is logged has changed", PATIENCE);
        changed.await.unwrap();
    }
    let loud = stage.device("loud");
    stage.register(&loud).await;
    let mut stranger = stage.device("stranger");
    stranger.scope = "nowhere".into();
    let told = stage
        .tenant
        .register(&stage.installation.registrar, &stranger);
    told.await.unwrap_err();

    let gateway = lines(&stage.installation.gateway);
    let refused = gateway.iter().filter(|line| {
        let said = line["fields"]["message"].as_str().unwrap_or_default();
        said.contains("no enrollment of this ID scope")
    });
    let refused: Vec<_> = refused.collect();
    assert!(!refused.is_empty());
    // Nobody has proved to be that device.
    let named = refused
        .iter()
        .any(|line| line.to_string().contains("stranger"));
    assert!(!named, "{refused:?}");
    let controller = lines(&stage.installation.controller);
    let called = |id: &str| about(&controller, id, "called the hub").len();
    assert_eq!(called(&stage.device("quiet").registration_id), 0);
    assert!(called(&loud.registration_id) > 0);
    stage.installation.stop().await.unwrap();
}
