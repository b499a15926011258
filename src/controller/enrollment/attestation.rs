//! Whether devices can prove who they are: the Secret with the keys, or the certificates.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};

use crate::api::v1alpha1::{ATTESTATION_LABEL, CertificateStatus, Enrollment, Reason, X509Spec};
use crate::cluster::apply::bounded;
use crate::controller::context::Context;
use crate::controller::status::{Error, Verdict};
use crate::domain::attestation::x509::{Proof, X509};
use crate::domain::attestation::{Attestation, SharedKeys, Unusable};

/// What keeps devices from proving who they are.
pub(super) async fn problem(
    enrollment: &Enrollment,
    ctx: &Context,
    namespace: &str,
) -> Result<Option<Verdict>, Error> {
    let attestation = &enrollment.spec.attestation;
    if let Some(x509) = &attestation.x509 {
        return Ok(unusable_certificate(enrollment, x509));
    }
    let Some(name) = attestation.secret() else {
        return Ok(None);
    };
    let hubs = ctx.directory.hubs_of_secret(namespace, name);
    if let Some(hub) = hubs.first() {
        let message = format!(
            "Secret {name} holds the credentials of IoTHub {hub}; use another Secret for the \
             devices' keys, because the gateway may read it"
        );
        return Ok(Some(Verdict::no(Reason::SecretIsHubCredential, message)));
    }
    match ctx.secret(namespace, name) {
        Some(secret) => Ok(unusable_secret(enrollment, name, &secret)),
        None => unlabelled(enrollment, name, ctx, namespace).await.map(Some),
    }
}

/// The certificates as they were read; those that cannot be are in the condition.
pub(super) fn certificates(enrollment: &Enrollment) -> Vec<CertificateStatus> {
    let x509 = enrollment.spec.attestation.x509.as_ref();
    x509.and_then(|x509| X509::read(x509, &enrollment.uid().unwrap_or_default()).ok())
        .map(|x509| x509.describe())
        .unwrap_or_default()
}

fn unusable_certificate(enrollment: &Enrollment, x509: &X509Spec) -> Option<Verdict> {
    let x509 = match X509::read(x509, &enrollment.uid().unwrap_or_default()) {
        Ok(x509) => x509,
        Err(error) => {
            return Some(Verdict::no(
                Reason::CertificateInvalid,
                format!("x509.{error}"),
            ));
        }
    };
    let unproven = |proof| match proof {
        Proof::Given => None,
        Proof::Missing => Some(String::new()),
        Proof::Wrong(why) => Some(format!(
            " The certificate in x509.verification is no proof: {why}."
        )),
    };
    x509.authorities().iter().find_map(|authority| {
        let why = unproven(authority.proof())?;
        let CertificateStatus { name, verification_code, .. } = authority.describe();
        let code = verification_code.unwrap_or_default();
        let message = format!(
            "x509.signingCertificates.{name} vouches for no device until you prove that you hold its \
             key: put a certificate with the common name {code}, signed by it, into \
             x509.verification.{name}. For example: openssl req -new -newkey rsa:2048 -nodes -keyout \
             verify.key -subj /CN={code} -out verify.csr && openssl x509 -req -in verify.csr -CA \
             ca.pem -CAkey ca.key -CAcreateserial -days 30 -out verify.pem.{why}"
        );
        Some(Verdict::no(Reason::CertificateUnverified, message))
    })
}

fn unusable_secret(enrollment: &Enrollment, name: &str, secret: &Secret) -> Option<Verdict> {
    let nothing = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&nothing);
    let uid = enrollment.uid().unwrap_or_default();
    match Attestation::read(&enrollment.spec, &uid, data) {
        Err(error @ Unusable::EndorsementKey(_)) => Some(Verdict::no(
            Reason::EndorsementKeyInvalid,
            error.to_string(),
        )),
        Err(error) => Some(Verdict::no(
            Reason::SecretInvalid,
            format!("Secret {name}: {error}"),
        )),
        Ok(Attestation::SymmetricKey(SharedKeys::Individual(keys) | SharedKeys::Group(keys)))
            if keys.primary.to_base64() == keys.secondary.to_base64() =>
        {
            let wanted = enrollment.spec.attestation.symmetric_key.as_ref();
            let (primary, secondary) = wanted.map_or(("", ""), |keys| {
                (
                    keys.secret_ref.primary_key(),
                    keys.secret_ref.secondary_key(),
                )
            });
            let message = format!(
                "Secret {name}: {primary} and {secondary} are the same key; two different ones \
                 allow rotation without an interruption"
            );
            Some(Verdict::no(Reason::SecretInvalid, message))
        }
        Ok(_) => None,
    }
}

/// The watch shows labelled Secrets only: this one has no label, or is not there.
async fn unlabelled(
    enrollment: &Enrollment,
    name: &str,
    ctx: &Context,
    namespace: &str,
) -> Result<Verdict, Error> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(ctx.client.clone(), namespace);
    let found = bounded(api.get_metadata_opt(name)).await;
    let found =
        found.map_err(|error| Error::new("reading the Secret", &enrollment.name_any(), error))?;
    if found.is_some() {
        let message = format!(
            "Secret {name} is not labelled {ATTESTATION_LABEL}=true; label it to let the gateway \
             read it"
        );
        return Ok(Verdict::no(Reason::SecretNotLabelled, message));
    }
    let attestation = &enrollment.spec.attestation;
    let content = match (&attestation.symmetric_key, &attestation.tpm) {
        (Some(keys), _) => format!(
            "the keys {} and {} (base64 of 16 to 64 random bytes each)",
            keys.secret_ref.primary_key(),
            keys.secret_ref.secondary_key()
        ),
        (None, Some(tpm)) => {
            format!(
                "the key {} (base64 of 32 to 64 random bytes)",
                tpm.secret_ref.key()
            )
        }
        (None, None) => String::new(),
    };
    let message = format!(
        "Secret {name} does not exist; create it with {content} and the label \
         {ATTESTATION_LABEL}=true"
    );
    Ok(Verdict::no(Reason::SecretMissing, message))
}
