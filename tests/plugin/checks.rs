//! What `check` finds, and skips.

use jiff::SignedDuration;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rehome::api::v1alpha1::Enrollment;
use rehome::clock::{Clock as _, SystemClock};
use rehome_testing::{expect, expect_ok};
use serde_json::json;

use super::cluster::{Floor, PATIENCE};
use super::people::Person;

/// The gateway's certificate is found by the operator's Deployment, as the chart makes it.
pub(crate) async fn certificates(floor: &Floor) {
    let namespace = &floor.tenant.namespace;
    let administrator = Person::administrator(&floor.cluster, namespace);
    let labels = json!({ "app.kubernetes.io/name": "rehome" });
    // Nobody has to run: it is the specification that names the Secret.
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "rehome", "labels": labels },
        "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": {
                "containers": [{ "name": "controller", "image": "none" }],
                "volumes": [{ "name": "tls", "secret": { "secretName": "gateway-tls" } }],
            },
        } },
    });
    namespace.apply(&deployment.to_string()).await.unwrap();
    let operator = ["check", "--operator-namespace", namespace.name()];
    let missing = administrator.types(&operator).await;
    assert_eq!(missing.code, 2, "{missing:?}");
    let what = "certificate of the gateway (Secret gateway-tls)";
    assert_eq!(result_of(&missing.out, what), "FAILED", "{}", missing.out);
    for (days, result, code) in [(90, "passed", 0), (10, "warning", 0), (-1, "FAILED", 2)] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "gateway-tls" },
            "stringData": { "tls.crt": certificate_that_ends_in(days) },
        });
        namespace.apply(&secret.to_string()).await.unwrap();
        let said = administrator.types(&operator).await;
        assert_eq!(said.code, code, "{days}: {said:?}");
        assert_eq!(result_of(&said.out, what), result, "{days}: {}", said.out);
    }
    let nobody = administrator
        .types(&["logs", "--operator-namespace", namespace.name()])
        .await;
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(
        nobody
            .err
            .contains("no pod labelled app.kubernetes.io/name=rehome"),
        "{nobody:?}"
    );
}

/// How the check of that name ended.
fn result_of<'a>(report: &'a str, what: &str) -> &'a str {
    let of_it = |line: &'a str| {
        let (result, rest) = line.trim_start().split_once(' ')?;
        rest.trim_start().starts_with(what).then_some(result)
    };
    report.lines().find_map(of_it).unwrap_or("no such check")
}

fn certificate_that_ends_in(days: i32) -> String {
    let end = SystemClock::start().now() + SignedDuration::from_hours(24 * i64::from(days));
    let date = end.to_zoned(jiff::tz::TimeZone::UTC).date();
    let mut parameters = rcgen::CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
    let part = |number: i8| u8::try_from(number).unwrap();
    parameters.not_after =
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()));
    let key = rcgen::KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem()
}

/// Checks find what is wrong, and skip what is not theirs to see.
pub(crate) async fn checking(floor: &Floor) {
    let administrator = Person::administrator(&floor.cluster, &floor.tenant.namespace);
    let viewer = Person::with_role(&floor.tenant.namespace, "view").await;
    let well = administrator.types(&["check"]).await;
    assert_eq!(well.code, 0, "{well:?}");
    for what in ["Kubernetes", "clock"] {
        assert_eq!(result_of(&well.out, what), "passed", "{}", well.out);
    }
    for part in [
        "as version 0.1.0 defines it",
        "IoTHub hub-west",
        "there, and labelled for attestation",
        "caBundle",
    ] {
        assert!(well.out.contains(part), "{part}: {}", well.out);
    }
    let seen = viewer.types(&["check"]).await;
    assert_eq!(seen.code, 0, "{seen:?}");
    for part in [
        "served; you may not read CRDs",
        "you may not read Secrets",
        "no: not for you are reprovision",
    ] {
        assert!(seen.out.contains(part), "{part}: {}", seen.out);
    }

    let unlabelled = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "line-5" },
        "stringData": { "primaryKey": "YSBwcmltYXJ5IGtleSwgdHdlbnR5", "secondaryKey": "YSBzZWNvbmRhcnkga2V5IG9mIGl0" },
    });
    let enrollment = json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment", "metadata": { "name": "line-5" },
        "spec": { "group": {}, "attestation": { "symmetricKey": { "secretRef": { "name": "line-5" } } } },
    });
    let namespace = &floor.tenant.namespace;
    namespace
        .apply(&format!("{unlabelled}\n---\n{enrollment}\n"))
        .await
        .unwrap();
    expect("the check to fail", PATIENCE, async || {
        let ill = administrator.types(&["check"]).await;
        let told = ill.out.contains("SecretNotLabelled")
            && result_of(&ill.out, "Secret line-5") == "FAILED";
        (ill.code == 2 && told).then_some(())
    })
    .await;
    let status = viewer.types(&["status"]).await;
    assert_eq!(status.code, 2, "{status:?}");
    let next = format!(
        "next:  kubectl label secret line-5 rehome.dev/attestation=true -n {}",
        namespace.name()
    );
    assert!(status.out.contains(&next), "{status:?}");
    // What the plugin says to type helps.
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = namespace.api();
    let label = json!({ "metadata": { "labels": { "rehome.dev/attestation": "true" } } });
    secrets
        .patch("line-5", &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    expect_ok("nothing to be stuck", PATIENCE, async || {
        let status = viewer.types(&["status"]).await;
        if status.code == 0 {
            Ok(())
        } else {
            Err(status.out)
        }
    })
    .await;
    let enrollments: Api<Enrollment> = namespace.api();
    enrollments
        .delete("line-5", &DeleteParams::default())
        .await
        .unwrap();
}
