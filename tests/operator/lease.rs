//! The lease, against the real API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rehome::clock::{Clock, SystemClock};
use rehome::cluster::lease::LeaseClaim;
use rehome_testing::{Cluster, Namespace};

fn claim(cluster: &Cluster, namespace: &Namespace, who: &str) -> LeaseClaim {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    LeaseClaim::new(
        cluster.client().clone(),
        namespace.name(),
        "lease",
        who,
        clock,
    )
}

#[tokio::test]
async fn one_holds_the_lease_until_it_releases_it_or_falls_silent() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("lease").await.unwrap();
    let api: Api<Lease> = namespace.api();
    let mut first = claim(&cluster, &namespace, "first").acquire().await;
    let second = tokio::spawn(claim(&cluster, &namespace, "second").acquire());

    // Longer than a lease holds: the first renews, so the second must not get it.
    let renewing = tokio::time::timeout(Duration::from_secs(18), first.lost()).await;
    assert!(renewing.is_err(), "a holder that renews keeps the lease");
    assert!(!second.is_finished());
    let holder = async || {
        api.get("lease")
            .await
            .unwrap()
            .spec
            .unwrap()
            .holder_identity
    };
    assert_eq!(holder().await.as_deref(), Some("first"));

    first.release().await;
    let released = Instant::now();
    let silent = second.await.unwrap();
    assert!(
        released.elapsed() < Duration::from_secs(10),
        "a released lease is free at once"
    );
    assert_eq!(holder().await.as_deref(), Some("second"));

    // As after SIGKILL: nobody renews and nobody releases.
    drop(silent);
    let silent_since = Instant::now();
    let mut third = claim(&cluster, &namespace, "third").acquire().await;
    assert!(
        silent_since.elapsed() > Duration::from_secs(14),
        "it may have only been slow"
    );
    assert_eq!(
        api.get("lease")
            .await
            .unwrap()
            .spec
            .unwrap()
            .lease_transitions,
        Some(2)
    );

    // Somebody takes it by force: the holder must notice.
    let stolen = serde_json::json!({"spec": {"holderIdentity": "thief"}});
    let params = kube::api::PatchParams::default();
    api.patch("lease", &params, &kube::api::Patch::Merge(stolen))
        .await
        .unwrap();
    let noticed = tokio::time::timeout(Duration::from_secs(10), third.lost()).await;
    assert!(noticed.is_ok(), "a holder that was replaced stops");
}
