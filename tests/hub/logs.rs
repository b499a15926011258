//! What a hub logs changes while it runs.

use super::device::{KEY, OTHER_KEY, connected, create};
use super::process::{HubProcess, POLICY_KEY};

#[tokio::test]
async fn what_is_logged_changes_while_it_runs() {
    let mut hub = HubProcess::start().await;
    let service = hub.service();
    for id in ["at-first", "in-detail", "still", "unseen", "seen"] {
        create(&hub, &service, id).await;
    }
    connected(&hub, "at-first").await;
    hub.log_only(Some("rehome=debug\n"));
    hub.says("what is logged has changed filter=\"rehome=debug\"")
        .await;
    connected(&hub, "in-detail").await;
    hub.says("a device connected client=in-detail").await;

    hub.log_only(Some("debugg"));
    let told = hub.says("debugg").await;
    assert!(
        told.contains("is no level") && told.contains("what is logged stays as it was"),
        "{told}"
    );
    connected(&hub, "still").await;
    hub.says("a device connected client=still").await;

    hub.log_only(None);
    hub.says("what is logged has changed filter=\"info\"").await;
    connected(&hub, "unseen").await;
    hub.log_only(Some("trace"));
    hub.says("what is logged has changed filter=\"trace\"")
        .await;
    connected(&hub, "seen").await;
    hub.says("a device connected client=seen").await;
    // Libraries as well.
    hub.says("DEBUG rustls::").await;
    let log = hub.log();
    for id in ["at-first", "unseen"] {
        assert!(!log.contains(&format!("client={id}")), "{log}");
    }
    // However much is logged.
    let secrets = [POLICY_KEY, KEY, OTHER_KEY, "SharedAccessSignature sr="];
    let shown = secrets.map(|secret| log.contains(secret));
    assert_eq!(shown, [false; 4]);
    assert!(hub.terminate().await);
}
