//! Enrollments with certificates, and a device that presents some.

use rehome::domain::attestation::x509::Thumbprint;
use rehome::domain::object_name::object_name;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::pki::Made;
use crate::amqp_device::{Amqp, Ask, Links};
use crate::device::{ANSWERS, Https, Manner, Mqtt, Said, dial_with, register_path};
use crate::stage::{NAMESPACE, SCOPE, Stage, token};

/// Who registers, unless a row says otherwise.
pub(crate) const ID: &str = "press-7";

/// What the device is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    /// It is registered through the Enrollment of that name, with the leaf that it presented.
    Registered(&'static str),
    /// It is registered with its keys.
    RegisteredByToken(&'static str),
    /// It gets this error code, and a message with these words.
    Refused(u32, &'static str),
    /// It gets this error code over HTTPS and AMQP; MQTT does not let it in.
    NotLetIn(u32, &'static str),
}

pub(crate) struct Scene {
    pub(crate) stage: Stage,
    id: String,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    token: Option<String>,
}

pub(crate) fn scene() -> Scene {
    let stage = Stage::new();
    // The group with keys that every stage has stays only where a row wants it.
    stage.tenants.remove_enrollment(NAMESPACE, "line-3");
    Scene {
        stage,
        id: ID.to_owned(),
        chain: Vec::new(),
        key: None,
        token: None,
    }
}

impl Scene {
    /// An Enrollment with any spec.
    pub(crate) fn enrolled(self, name: &str, spec: &Value) -> Self {
        self.stage.enroll_as(name, spec);
        self
    }

    /// An individual Enrollment, `one`.
    pub(crate) fn individual(self, client_certificates: &Value) -> Self {
        let x509 = json!({ "clientCertificates": client_certificates });
        let spec =
            json!({ "individual": { "registrationId": ID }, "attestation": { "x509": x509 } });
        self.enrolled("one", &spec)
    }

    /// A group whose authority is verified.
    pub(crate) fn group(self, name: &str, primary: &Made) -> Self {
        self.group_with(name, &json!({}), primary, None)
    }

    pub(crate) fn disabled_group(self, name: &str, primary: &Made) -> Self {
        self.group_with(
            name,
            &json!({ "provisioningStatus": "Disabled" }),
            primary,
            None,
        )
    }

    pub(crate) fn group_with(
        self,
        name: &str,
        spec: &Value,
        primary: &Made,
        secondary: Option<&Made>,
    ) -> Self {
        let uid = format!("uid-{name}");
        let mut x509 = json!({
            "signingCertificates": { "primary": primary.pem() },
            "verification": { "primary": primary.proof(&uid) },
        });
        if let Some(secondary) = secondary {
            x509["signingCertificates"]["secondary"] = secondary.pem().into();
            x509["verification"]["secondary"] = secondary.proof(&uid).into();
        }
        let mut spec = spec.clone();
        spec["group"] = json!({});
        spec["attestation"] = json!({ "x509": x509 });
        self.enrolled(name, &spec)
    }

    /// A group whose authority is not verified.
    pub(crate) fn unverified_group(self, name: &str, primary: &Made) -> Self {
        let x509 = json!({ "signingCertificates": { "primary": primary.pem() } });
        self.enrolled(
            name,
            &json!({ "group": {}, "attestation": { "x509": x509 } }),
        )
    }

    pub(crate) fn registers_as(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    pub(crate) fn presents(self, leaf: &Made, others: &[&Made]) -> Self {
        let mut chain = vec![leaf.der.clone()];
        chain.extend(others.iter().map(|made| made.der.clone()));
        self.presents_raw(chain, leaf.private_key())
    }

    pub(crate) fn presents_raw(
        mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        self.chain = chain;
        self.key = Some(key);
        self
    }

    /// With a token of the group that every stage has.
    pub(crate) fn sends_token(self) -> Self {
        let token = token(&self.id);
        self.sends(&token)
    }

    pub(crate) fn sends(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Plays it over all protocols.
    pub(crate) async fn is_told(&self, row: &str, told: Told) {
        let (status, body) = self.over_https().await;
        let mqtt = self.over_mqtt().await;
        let (amqp_status, amqp) = self.over_amqp().await;
        assert_eq!(amqp_status, status, "{row}: {amqp}");
        assert_eq!(
            (&amqp["errorCode"], &amqp["message"]),
            (&body["errorCode"], &body["message"]),
            "{row}"
        );
        match told {
            Told::Registered(enrollment) | Told::RegisteredByToken(enrollment) => {
                assert_eq!(status, 202, "{row}: {body}");
                assert_eq!(mqtt.as_ref().map(|it| it.0), Some(202), "{row}: {mqtt:?}");
                let name = object_name(&self.id.parse().unwrap());
                let record = self.stage.memory.mirror.get(NAMESPACE, &name).unwrap();
                let request = record.request.as_ref().unwrap();
                assert_eq!(request.enrollment.name, enrollment, "{row}");
                let leaf = self
                    .chain
                    .first()
                    .map(|leaf| Thumbprint::of(leaf).to_string());
                let by_leaf = matches!(told, Told::Registered(_));
                assert_eq!(leaf == Some(request.credential.clone()), by_leaf, "{row}");
            }
            Told::Refused(code, words) | Told::NotLetIn(code, words) => {
                assert_eq!(u32::from(status), code / 1000, "{row}: {body}");
                assert_eq!(body["errorCode"], code, "{row}: {body}");
                let message = body["message"].as_str().unwrap();
                assert!(message.contains(words), "{row}: {message}");
                if matches!(told, Told::NotLetIn(..)) {
                    assert!(mqtt.is_none(), "{row}: {mqtt:?}");
                } else {
                    let (status, said) = mqtt.expect(row);
                    assert_eq!(u32::from(status), code / 1000, "{row}: {said}");
                    assert_eq!(
                        (&said["errorCode"], &said["message"]),
                        (&body["errorCode"], &body["message"]),
                        "{row}"
                    );
                }
                assert_eq!(self.stage.memory.count(), 0, "{row}: nothing is written");
            }
        }
    }

    fn identity(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = self.key.as_ref()?;
        Some((self.chain.clone(), key.clone_key()))
    }

    pub(crate) async fn over_https(&self) -> (u16, Value) {
        let sockets = self.stage.listen().await;
        let mut device = Https::open_as(&sockets, self.identity()).await;
        let line = format!("PUT {}", register_path(&self.id, "2019-03-31"));
        let reply = device
            .request(&line, self.token.as_deref(), "", b"{}")
            .await;
        (reply.status, reply.body)
    }

    /// Without SASL where there is no token, R21.
    pub(crate) async fn over_amqp(&self) -> (u16, Value) {
        let sockets = self.stage.listen().await;
        let stream = dial_with(&sockets, sockets.amqp, true, self.identity()).await;
        let links = Links::like_node(SCOPE, &self.id);
        let links = match &self.token {
            Some(token) => links.with_token(token.clone()),
            None => links,
        };
        let mut device = Amqp::open(stream, &links).await.unwrap();
        match device.try_ask(Ask::register(b"{}")).await {
            Ok(told) => (202, told.body),
            Err(rejection) => {
                let code = rejection.description["errorCode"].as_u64().unwrap();
                let status = u16::try_from(code / 1000).unwrap();
                (status, rejection.description)
            }
        }
    }

    /// Status and body; nothing when CONNECT is refused.
    pub(crate) async fn over_mqtt(&self) -> Option<(u16, Value)> {
        let sockets = self.stage.listen().await;
        let stream = dial_with(&sockets, sockets.mqtt, true, self.identity()).await;
        let manner = Manner {
            password: self.token.clone(),
            ..Manner::of(&self.id)
        };
        let mut device = Mqtt(stream);
        let said = device.try_connect(&manner).await;
        let Said::Connack {
            session_present: 0,
            code,
        } = said
        else {
            panic!("{said:?}");
        };
        if code != 0 {
            assert_eq!(code, 5);
            return None;
        }
        device.subscribe(ANSWERS, 1).await;
        device.register(0, "1", 0).await;
        let (topic, body) = device.answer().await;
        let status = topic.strip_prefix("$dps/registrations/res/").unwrap();
        Some((status[..3].parse().unwrap(), body))
    }
}
