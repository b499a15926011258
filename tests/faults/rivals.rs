//! Two of what should be one.

use futures::future::{join, join_all};
use kube::Api;
use kube::api::DeleteParams;
use rehome::api::v1alpha1::{ConditionType, IoTHub};
use rehome_testing::device::{Applicant, Key, Protocol};
use rehome_testing::expect_ok;
use serde_json::json;

use crate::floor::{EAST, Floor, PATIENCE, WEST};

const DEVICES: usize = 12;

pub(crate) async fn two_gateways_begin_one_operation(floor: &mut Floor) {
    let group = floor.group("twice").await;
    // With the windows that every installation has: the later request finds the operation over.
    let (mut first, one) = floor.installation.another_gateway(1, &[]).await.unwrap();
    let (mut second, two) = floor.installation.another_gateway(2, &[]).await.unwrap();
    let pioneer = floor.tenant.device(&group, "pioneer");
    for gateway in [&one, &two] {
        expect_ok("another gateway", PATIENCE, async || {
            let told = floor.tenant.register(gateway, &pioneer).await;
            told.map_err(|error| format!("{error:#}"))
        })
        .await;
    }
    let both = (0..DEVICES).map(async |number| {
        let device = floor.tenant.device(&group, number);
        let (here, there) = join(
            one.register(&device, Protocol::Https, None),
            two.register(&device, Protocol::Mqtt, None),
        )
        .await;
        let (here, there) = (here.unwrap(), there.unwrap());
        assert_eq!(here, there, "two answers");
        assert_eq!(here.status, "assigned");
        let identity = floor.hub(WEST).identity(&device.registration_id).await;
        assert!(identity.unwrap().is_some(), "{}", device.registration_id);
    });
    join_all(both).await;
    first.kill().unwrap();
    second.kill().unwrap();
}

pub(crate) async fn two_active_controllers_do_no_harm(floor: &mut Floor) {
    let flags = ["--no-leader-election", "--hub-call-timeout=2s"].map(str::to_owned);
    let second = floor.installation.another_controller("second", &flags);
    let mut second = second.await.unwrap();
    let group = floor.group("doubled").await;
    let names: Vec<_> = (0..DEVICES).map(|number| number.to_string()).collect();
    let newcomers = names.iter().map(|name| floor.newcomer(&group, name));
    let devices = join_all(newcomers).await;
    for hub in [EAST, WEST] {
        floor.retarget(&group, hub).await;
        let moving = devices
            .iter()
            .map(|device| floor.register(&device.applicant));
        for told in join_all(moving).await {
            let told = told.unwrap();
            assert_eq!(
                (&*told.status, told.hub),
                ("assigned", floor.hub(hub).host())
            );
        }
        for device in &devices {
            floor.lives_at(device, hub).await;
        }
    }
    assert!(second.ended().unwrap().is_none(), "the second has ended");
    second.kill().unwrap();
}

pub(crate) async fn a_hub_under_two_names_is_refused(floor: &mut Floor) {
    let namespace = &floor.tenant.namespace;
    let [secret, mut hub] = floor.hub(WEST).manifests();
    hub["metadata"]["name"] = "hub-alias".into();
    namespace.apply(&secret.to_string()).await.unwrap();
    namespace.apply(&hub.to_string()).await.unwrap();
    refuses(floor, "hub-alias", "HostTaken").await;
    // Under another host name the hub does not accept its own credentials.
    let mut secret = secret;
    let string = floor.hub(WEST).connection_string();
    let host = format!("HostName={};", floor.hub(WEST).host());
    let string = string.replace(&host, "HostName=alias.test;");
    secret["metadata"]["name"] = "alias-credentials".into();
    secret["stringData"] = json!({ "connectionString": string });
    hub["metadata"]["name"] = "hub-other-alias".into();
    hub["spec"]["hostName"] = "alias.test".into();
    hub["spec"]["connection"]["connectionStringSecretRef"]["name"] = "alias-credentials".into();
    namespace.apply(&secret.to_string()).await.unwrap();
    namespace.apply(&hub.to_string()).await.unwrap();
    refuses(floor, "hub-other-alias", "HubUnauthorized").await;
    let hubs: Api<IoTHub> = namespace.api();
    for name in ["hub-alias", "hub-other-alias"] {
        hubs.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

async fn refuses(floor: &Floor, hub: &str, reason: &str) {
    let hubs: Api<IoTHub> = floor.tenant.namespace.api();
    expect_ok(reason, PATIENCE, async || {
        let status = hubs
            .get_status(hub)
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        let ready = status.conditions.into_iter();
        let ready = ready
            .filter(|one| one.type_ == ConditionType::Ready.as_str())
            .find(|one| one.status == "False" && one.reason == reason);
        ready.ok_or("not refused")
    })
    .await;
}

pub(crate) async fn a_device_id_belongs_to_one_registration(floor: &mut Floor) {
    let keys = [Key::random().unwrap(), Key::random().unwrap()];
    let applicants = ["first", "second"].map(|name| format!("claimant-{name}"));
    for (id, key) in applicants.iter().zip(&keys) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": id, "labels": { "rehome.dev/attestation": "true" } },
            "stringData": { "primaryKey": key.to_base64(), "secondaryKey": key.to_base64() },
        });
        let enrollment = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": id },
            "spec": {
                "individual": { "registrationId": id, "deviceId": "shared" },
                "attestation": { "symmetricKey": { "secretRef": { "name": id } } },
                "allocation": { "policy": "Static", "hubs": [WEST] },
            },
        });
        let manifests = format!("{secret}\n---\n{enrollment}\n");
        floor.tenant.namespace.apply(&manifests).await.unwrap();
    }
    let mut told = Vec::new();
    for (id, key) in applicants.iter().zip(&keys) {
        let applicant = Applicant {
            scope: floor.tenant.namespace.name().to_owned(),
            registration_id: id.clone(),
            key: key.clone(),
            api_version: "2021-06-01".to_owned(),
        };
        let answer = expect_ok("an answer", PATIENCE, async || {
            let told = floor.register(&applicant).await;
            told.map_err(|error| format!("{error:#}"))
        });
        told.push(answer.await);
    }
    assert_eq!(
        (&*told[0].status, &*told[0].device_id),
        ("assigned", "shared")
    );
    assert_eq!(told[1].status, "failed");
    let identity = floor.hub(WEST).identity("shared").await.unwrap().unwrap();
    // Not assert_eq: keys must not be shown.
    let keys_there = &identity["authentication"]["symmetricKey"];
    assert!(
        keys_there["primaryKey"] == keys[0].to_base64(),
        "the second took over"
    );
}
