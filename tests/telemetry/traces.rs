//! One trace leads from a device's request through the gateway and the controller to the hubs.

use std::collections::BTreeSet;

use kube::Api;
use rehome::api::v1alpha1::DeviceRegistration;
use rehome_testing::device::{Key, Told};
use rehome_testing::expect_ok;
use rehome_testing::installation::Hub;

use crate::collector::{Collector, Span, SpanKind};
use crate::stage::{PATIENCE, Stage};

async fn traced(collector: &Collector, ratio: &str) -> Stage {
    let endpoint = format!("--trace-endpoint={}", collector.endpoint);
    Stage::with(&[endpoint, format!("--trace-ratio={ratio}")]).await
}

/// The spans of the trace that the gateway began for this operation, once it has calls of all `hubs`.
async fn trace_of(collector: &Collector, told: &Told, hubs: &[String]) -> Vec<Span> {
    expect_ok("the trace", PATIENCE, async || {
        let all = collector.spans();
        let roots = all.iter().filter(|span| {
            span.name == "request"
                && span.attributes["request"] == "register"
                && span.attributes.get("operation") == Some(&told.operation_id)
        });
        // The device is told once more what it was told: such a request has a trace of its own.
        let calls = |trace: &[u8]| -> Vec<Span> {
            all.iter()
                .filter(|span| span.trace == trace)
                .cloned()
                .collect()
        };
        let found = roots.map(|root| calls(&root.trace)).find(|spans| {
            let called: BTreeSet<_> = spans
                .iter()
                .filter_map(|span| span.attributes.get("hub"))
                .collect();
            hubs.iter().all(|hub| called.contains(hub))
        });
        found.ok_or(all)
    })
    .await
}

/// Gateway, controller, hub: each with the one before it as its parent.
fn assert_led(spans: &[Span], registration: &str) {
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    let [root] = roots[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (root.process.as_str(), root.kind),
        ("rehome-gateway", SpanKind::Server)
    );
    assert_eq!(root.attributes["registration"], registration);
    let passes: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "reconcile")
        .collect();
    assert!(!passes.is_empty(), "{spans:?}");
    for pass in &passes {
        assert_eq!(
            (pass.process.as_str(), pass.kind),
            ("rehome-controller", SpanKind::Consumer)
        );
        assert_eq!(pass.parent, root.id);
        assert_eq!(pass.attributes["operation"], root.attributes["operation"]);
    }
    let calls: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "hub_call")
        .collect();
    assert!(!calls.is_empty(), "{spans:?}");
    for call in calls {
        assert_eq!(call.kind, SpanKind::Client);
        let within = passes.iter().any(|pass| pass.id == call.parent);
        assert!(within, "{call:?} in {spans:?}");
    }
}

fn transfers(spans: &[Span]) -> BTreeSet<String> {
    let all = spans
        .iter()
        .filter_map(|span| span.attributes.get("transfer"));
    all.cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_device_to_the_hubs_and_strangers_have_none() {
    let collector = Collector::start().await;
    let stage = traced(&collector, "1").await;
    let device = stage.device("press-7");
    let id = device.registration_id.as_str();
    let hosts: Vec<_> = stage.installation.hubs.iter().map(Hub::host).collect();

    let mut stranger = stage.device("stranger");
    stranger.key = Key::random().unwrap();
    let refused = stage
        .tenant
        .register(&stage.installation.registrar, &stranger);
    refused.await.unwrap_err();

    let told = stage.register(&device).await;
    let spans = trace_of(&collector, &told, &hosts[..1]).await;
    assert_led(&spans, id);
    let creates: Vec<_> = spans
        .iter()
        .filter(|span| {
            span.attributes
                .get("call")
                .is_some_and(|call| call == "Create")
        })
        .collect();
    assert_eq!(creates.len(), 1, "{spans:?}");
    assert_eq!(creates[0].attributes["outcome"], "ok");

    let told = stage.moved(&device).await;
    let spans = trace_of(&collector, &told, &hosts).await;
    assert_led(&spans, id);
    let moved = transfers(&spans);
    assert_eq!(moved.len(), 1, "{spans:?}");
    // What a person wants is not what the device asked for.
    stage.moved_by_a_person(&device).await;

    // What is not yet sent is sent at the end.
    stage.installation.stop().await.unwrap();
    let named: Vec<_> = collector
        .spans()
        .into_iter()
        .filter(|span| {
            let id = span.attributes.get("registration");
            id.is_some_and(|id| *id == stranger.registration_id)
        })
        .collect();
    assert!(named.is_empty(), "{named:?}");
    assert_eq!(transfers(&collector.spans()), moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_leaves_no_trace() {
    let collector = Collector::start().await;
    let stage = traced(&collector, "0").await;
    let device = stage.device("press-7");
    stage.register(&device).await;
    let records: Api<DeviceRegistration> = stage.tenant.namespace.api();
    let record = records.get(&device.registration_id).await.unwrap();
    assert_eq!(record.spec.request.unwrap().traceparent, None);
    stage.installation.stop().await.unwrap();
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}
