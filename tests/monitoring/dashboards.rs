//! Every query of every dashboard has an answer while devices register, move and are refused.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use rehome_testing::device::{Applicant, Key, Protocol, Registrar, Session, Told};
use rehome_testing::fleet::{Group, Tenant};
use rehome_testing::{Cluster, Installation, until};
use serde_json::{Value, json};

use crate::prometheus::Prometheus;
use crate::shipped;

const HUBS: [&str; 2] = ["hub-west", "hub-east"];
/// Longest time for every query to have had an answer.
const PATIENCE: Duration = Duration::from_mins(2);
/// What Grafana puts in for the window of a rate.
const WINDOW: &str = "10s";

/// Each query of the dashboards, and the panel that asks it.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(shipped("dashboards")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let name = format!("{}, {}", dashboard["title"], panel["title"]);
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                queries.push((name.clone(), query.replace("$__rate_interval", WINDOW)));
            }
        }
    }
    assert!(queries.len() > 30, "{} queries", queries.len());
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboards_has_an_answer() {
    let cluster = Cluster::private().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &HUBS).await.unwrap();
    let tenant = Tenant::start(&cluster, &installation, "seen")
        .await
        .unwrap();
    let group = Group::new("line", Some("MigrateData"), &[HUBS[0]]).unwrap();
    tenant.enroll(&group, &installation).await.unwrap();
    let prometheus = Prometheus::start(&installation).await.unwrap();

    let over = AtomicBool::new(false);
    let asking = async {
        let mut open = queries();
        let asked = until(PATIENCE, async || {
            let mut unanswered = Vec::new();
            for (panel, query) in std::mem::take(&mut open) {
                if prometheus.ask(&query).await?.is_empty() {
                    unanswered.push((panel, query));
                }
            }
            open = unanswered;
            ensure!(open.is_empty(), "without an answer: {open:#?}");
            Ok(())
        });
        let asked = asked.await;
        over.store(true, Ordering::Relaxed);
        asked.map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))
    };
    let (asked, lived) = tokio::join!(asking, live(&installation, &tenant, &group, &over));
    lived.unwrap();
    asked.unwrap();
    prometheus.stop().await.unwrap();
    installation.stop().await.unwrap();
}

/// Devices register over every protocol, one is refused, one reports from its hub, and all move.
async fn live(at: &Installation, tenant: &Tenant, group: &Group, over: &AtomicBool) -> Result<()> {
    let registrar = &at.registrar;
    for round in 0_usize.. {
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        for protocol in Protocol::ALL {
            let device = tenant.device(group, format!("{protocol}-{round}"));
            register(registrar, &device, protocol).await?;
        }
        let device = tenant.device(group, "rover");
        let told = register(registrar, &device, Protocol::Https).await?;
        telemetry(at, &device, &told.hub).await?;
        let stranger = Applicant {
            key: Key::random()?,
            ..device
        };
        let refused = tenant.register(registrar, &stranger).await;
        ensure!(refused.is_err(), "a stranger was let in");
        let hub = HUBS[(round + 1) % HUBS.len()];
        let patch = json!({ "spec": { "allocation": { "hubs": [hub], "policy": "Static" } } });
        let enrollments = tenant.objects("Enrollment");
        enrollments
            .patch(&group.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    Ok(())
}

/// To the end, as devices do it: one that is told to come later does.
async fn register(at: &Registrar, device: &Applicant, protocol: Protocol) -> Result<Told> {
    let told = until(PATIENCE, async || at.register(device, protocol, None).await);
    told.await
        .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))
}

async fn telemetry(at: &Installation, device: &Applicant, host: &str) -> Result<()> {
    let hub = at.hub_at(host)?;
    let trust = &at.registrar.trust;
    let id = &device.registration_id;
    let mut session = Session::connect(host, hub.place.mqtt(), trust, id, &device.key)
        .await
        .with_context(|| format!("{id} at {host}"))?;
    session.send(&json!({ "speed": 3 })).await?;
    session.close().await
}
