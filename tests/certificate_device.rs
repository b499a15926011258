//! A device with an X.509 certificate, on the whole: real API server, gateway, controller and hub.
#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use rehome::api::v1alpha1::Enrollment;
use rehome_testing::device::{Refused, Session, Told, Trust};
use rehome_testing::fleet::Tenant;
use rehome_testing::installation::Hub;
use rehome_testing::{Authority, Cluster, Installation, Issued, expect, expect_ok};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(3);
const ID: &str = "Press-7";

struct Stage {
    installation: Installation,
    tenant: Tenant,
}

impl Stage {
    fn hub(&self) -> &Hub {
        &self.installation.hubs[0]
    }

    fn enrollments(&self) -> Api<Enrollment> {
        self.tenant.namespace.api()
    }

    /// What the Enrollment says about its one authority, once its reason is this.
    async fn authority_is(&self, reason: &str) -> Value {
        expect(&format!("the reason {reason}"), PATIENCE, async || {
            let status = self
                .enrollments()
                .get_status("line")
                .await
                .unwrap()
                .status?;
            let ready = status.conditions.iter().find(|one| one.type_ == "Ready")?;
            let certificate = status.certificates.first()?;
            (ready.reason == reason).then(|| {
                let mut seen = serde_json::to_value(certificate).unwrap();
                seen["message"] = ready.message.clone().into();
                seen
            })
        })
        .await
    }

    fn presenting(&self, issued: &Issued) -> Trust {
        let trust = &self.installation.registrar.trust;
        trust.presenting(&issued.cert_pem, &issued.key_pem).unwrap()
    }

    async fn register(&self, issued: &Issued) -> anyhow::Result<Told> {
        let trust = self.presenting(issued);
        let scope = self.tenant.namespace.name();
        let registrar = &self.installation.registrar;
        let version = "2021-06-01";
        registrar
            .register_presenting(&trust, scope, ID, version)
            .await
    }

    async fn identity(&self) -> Value {
        self.hub().identity(ID).await.unwrap().unwrap()
    }

    async fn connect(&self, issued: &Issued) -> anyhow::Result<Session> {
        let hub = self.hub();
        let trust = self.presenting(issued);
        Session::connect_presenting(&hub.host(), hub.place.mqtt(), &trust, ID).await
    }
}

/// Enrolls the authority, unverified at first, as `docs/attestation.md` tells people to.
async fn verify(stage: &Stage, plant: &Authority, leaf: &Issued) {
    let enrollment = json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
        "metadata": { "name": "line" },
        "spec": {
            "group": {},
            "attestation": { "x509": { "signingCertificates": { "primary": plant.cert_pem() } } },
            "initialTwin": { "tags": { "line": 3 } },
        },
    });
    stage
        .tenant
        .namespace
        .apply(&enrollment.to_string())
        .await
        .unwrap();
    let seen = stage.authority_is("CertificateUnverified").await;
    assert_eq!(seen["verified"], false);
    let code = seen["verificationCode"].as_str().unwrap();
    let message = seen["message"].as_str().unwrap();
    assert!(
        message.contains(code) && message.contains("openssl"),
        "{message}"
    );
    // The gateway's watch may be behind.
    let refused = expect("a refusal that says why", PATIENCE, async || {
        let error = format!("{:#}", stage.register(leaf).await.unwrap_err());
        error
            .contains("possession of its key is not proven")
            .then_some(error)
    })
    .await;
    assert!(refused.contains("401002"), "{refused}");

    let proof = plant.issue(&[code]).unwrap().cert_pem;
    let patch =
        json!({ "spec": { "attestation": { "x509": { "verification": { "primary": proof } } } } });
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    stage
        .enrollments()
        .patch("line", &params, &patch)
        .await
        .unwrap();
    assert_eq!(stage.authority_is("Settled").await["verified"], true);
}

#[tokio::test]
async fn a_device_registers_with_its_certificate_and_rolls_it_on_the_same_hub() {
    let cluster = Cluster::shared().await.unwrap();
    let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
    let installation = Installation::start(&cluster, rehome, &["hub-west"])
        .await
        .unwrap();
    let tenant = Tenant::start(&cluster, &installation, "certificates")
        .await
        .unwrap();
    let stage = Stage {
        installation,
        tenant,
    };
    let plant = Authority::new("Plant CA").unwrap();
    let leaf = plant.issue(&[ID]).unwrap();
    verify(&stage, &plant, &leaf).await;

    let told = expect_ok("the device registers", PATIENCE, async || {
        stage.register(&leaf).await
    })
    .await;
    assert_eq!(
        (
            &*told.status,
            &*told.hub,
            &*told.device_id,
            &*told.substatus
        ),
        ("assigned", &*stage.hub().host(), ID, "initialAssignment")
    );
    let identity = stage.identity().await;
    let authentication = &identity["authentication"];
    assert_eq!(authentication["type"], "selfSigned");
    assert_eq!(
        authentication["x509Thumbprint"]["primaryThumbprint"],
        leaf.thumbprint().unwrap()
    );
    let mut session = stage.connect(&leaf).await.unwrap();
    session.report(&json!({ "nonce": 7 })).await.unwrap();
    let patch = json!({ "tags": { "owner": "maintenance" } });
    stage.hub().patch_twin(ID, &patch).await.unwrap();
    let twin = stage.hub().full_twin(ID).await.unwrap().unwrap();

    let rolled = plant.issue(&[ID]).unwrap();
    let error = stage
        .connect(&rolled)
        .await
        .err()
        .expect("a strange certificate");
    assert_eq!(error.downcast_ref(), Some(&Refused(5)), "{error:#}");
    let again = stage.register(&rolled).await.unwrap();
    assert_eq!(
        (&again.hub, &*again.substatus),
        (&told.hub, "initialAssignment")
    );
    assert_ne!(again.operation_id, told.operation_id);
    let refreshed = stage.identity().await;
    let held = &refreshed["authentication"]["x509Thumbprint"]["primaryThumbprint"];
    assert_eq!(*held, rolled.thumbprint().unwrap());
    assert_eq!(refreshed["generationId"], identity["generationId"]);
    let kept = stage.hub().full_twin(ID).await.unwrap().unwrap();
    for part in ["tags", "properties"] {
        assert_eq!(kept[part], twin[part], "{part}");
    }
    let mut session = stage.connect(&rolled).await.unwrap();
    assert_eq!(session.twin().await.unwrap()["reported"]["nonce"], 7);
    let error = stage
        .connect(&leaf)
        .await
        .err()
        .expect("the old certificate");
    assert_eq!(error.downcast_ref(), Some(&Refused(5)), "{error:#}");

    let Stage {
        installation,
        tenant,
    } = stage;
    tenant.namespace.delete().await.unwrap();
    installation.stop().await.unwrap();
}
