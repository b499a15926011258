//! How devices of an Enrollment prove who they are, as it stands in the spec.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a device proves who it is: exactly one of `symmetricKey`, `x509` and `tpm`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("[has(self.symmetricKey), has(self.x509), has(self.tpm)].filter(given, given).size() == 1").message("set exactly one of symmetricKey, x509 and tpm"),
    validation = Rule::new("has(self.symmetricKey) == has(oldSelf.symmetricKey) && has(self.x509) == has(oldSelf.x509)").message("the kind of attestation cannot change; create another Enrollment"),
)]
#[serde(rename_all = "camelCase")]
pub struct AttestationSpec {
    /// Shared keys: an individual's own, or a group's from which each device's are derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symmetric_key: Option<SymmetricKeySpec>,

    /// Certificates: an individual's own, or the authorities that issue a group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509: Option<X509Spec>,

    /// A TPM 2.0 and its endorsement key. For individual Enrollments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmSpec>,
}

/// TPM attestation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TpmSpec {
    /// Public part of the TPM's endorsement key: base64 of its `TPM2B_PUBLIC`, as
    /// `tpm2_readpublic -f tss` writes it and SDKs print it.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9+/]+={0,2}$')").message("endorsementKey must be base64 of a TPM2B_PUBLIC, on one line"))]
    #[schemars(length(max = 2048))]
    pub endorsement_key: String,
    /// Secret in the same namespace, labelled `rehome.dev/attestation=true`, that holds the seed from
    /// which the device's keys follow.
    pub secret_ref: TpmSecretRef,
}

/// Where the seed is. One Secret may serve many Enrollments.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TpmSecretRef {
    /// Name of the Secret.
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("name must be a Secret's name: lower-case letters, digits, - and ."))]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Data key of the seed (base64 of 32 to 64 random bytes); `seed` when absent.
    #[x_kube(validation = Rule::new(r"self.matches('^[-._a-zA-Z0-9]+$')").message("key must be a data key of the Secret: letters, digits and - . _"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
}

/// Symmetric key attestation.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SymmetricKeySpec {
    /// Secret in the same namespace, labelled `rehome.dev/attestation=true`, that holds the keys.
    pub secret_ref: SymmetricKeySecretRef,
}

/// Where the two keys are. One Secret may hold the keys of many Enrollments.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("(has(self.primaryKey) ? self.primaryKey : 'primaryKey') != (has(self.secondaryKey) ? self.secondaryKey : 'secondaryKey')").message("primaryKey and secondaryKey must name two different keys of the Secret"))]
#[serde(rename_all = "camelCase")]
pub struct SymmetricKeySecretRef {
    /// Name of the Secret.
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("name must be a Secret's name: lower-case letters, digits, - and ."))]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Data key of the primary key (base64 of 16 to 64 bytes); `primaryKey` when absent.
    #[x_kube(validation = Rule::new(r"self.matches('^[-._a-zA-Z0-9]+$')").message("primaryKey must be a data key of the Secret: letters, digits and - . _"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub primary_key: Option<String>,
    /// Data key of the secondary key; `secondaryKey` when absent.
    #[x_kube(validation = Rule::new(r"self.matches('^[-._a-zA-Z0-9]+$')").message("secondaryKey must be a data key of the Secret: letters, digits and - . _"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secondary_key: Option<String>,
}

/// X.509 attestation. The registration id is the common name of the device's certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.clientCertificates) != has(self.signingCertificates)").message("set exactly one of clientCertificates (individual) and signingCertificates (group)"),
    validation = Rule::new("!has(self.verification) || has(self.signingCertificates)").message("verification is for signingCertificates; a device's own certificate needs none"),
)]
#[serde(rename_all = "camelCase")]
pub struct X509Spec {
    /// The certificates of one device, self-signed or not. For individual Enrollments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,

    /// The authorities, root or intermediate, that issue the certificates of a group's devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_certificates: Option<SigningCertificates>,

    /// Proof that whoever wrote this Enrollment holds the authorities' keys: a certificate for each,
    /// signed by it, whose common name is the verification code in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// The certificates of one device, whole or by thumbprint; either is enough, two allow to roll them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.primary) || has(self.primaryThumbprint) || has(self.secondary) || has(self.secondaryThumbprint)").message("give at least one certificate or thumbprint"),
    validation = Rule::new("!(has(self.primary) && has(self.primaryThumbprint)) && !(has(self.secondary) && has(self.secondaryThumbprint))").message("give a certificate or its thumbprint, not both"),
)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificates {
    /// A certificate in PEM.
    #[x_kube(validation = pem_rule("primary"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub primary: Option<String>,
    /// A certificate in PEM.
    #[x_kube(validation = pem_rule("secondary"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub secondary: Option<String>,
    /// SHA-256 or SHA-1 of a certificate in DER, in hex.
    #[x_kube(validation = thumbprint_rule("primaryThumbprint"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub primary_thumbprint: Option<String>,
    /// SHA-256 or SHA-1 of a certificate in DER, in hex.
    #[x_kube(validation = thumbprint_rule("secondaryThumbprint"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub secondary_thumbprint: Option<String>,
}

/// Certificate authorities; either is enough, two allow to roll them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("has(self.primary) || has(self.secondary)").message("give at least one certificate"))]
#[serde(rename_all = "camelCase")]
pub struct SigningCertificates {
    /// An authority's certificate in PEM.
    #[x_kube(validation = pem_rule("primary"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub primary: Option<String>,
    /// An authority's certificate in PEM.
    #[x_kube(validation = pem_rule("secondary"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub secondary: Option<String>,
}

/// Certificates that prove possession of the authorities' keys.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Signed by the primary authority, in PEM.
    #[x_kube(validation = pem_rule("primary"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub primary: Option<String>,
    /// Signed by the secondary authority, in PEM.
    #[x_kube(validation = pem_rule("secondary"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub secondary: Option<String>,
}

impl AttestationSpec {
    /// Name of the Secret that holds the keys or the seed, if there is one.
    pub fn secret(&self) -> Option<&str> {
        let keys = self.symmetric_key.as_ref();
        let seed = self.tpm.as_ref();
        keys.map(|keys| keys.secret_ref.name.as_str())
            .or(seed.map(|seed| seed.secret_ref.name.as_str()))
    }
}

impl TpmSecretRef {
    /// Data key of the seed.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("seed")
    }
}

impl SymmetricKeySecretRef {
    /// Data key of the primary key.
    pub fn primary_key(&self) -> &str {
        self.primary_key.as_deref().unwrap_or("primaryKey")
    }

    /// Data key of the secondary key.
    pub fn secondary_key(&self) -> &str {
        self.secondary_key.as_deref().unwrap_or("secondaryKey")
    }
}

fn pem_rule(field: &str) -> Rule {
    Rule::new(r"self.matches('^\\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----\\s*$')")
        .message(format!("{field} must be one PEM certificate and nothing else (-----BEGIN CERTIFICATE-----…)").as_str())
}

fn thumbprint_rule(field: &str) -> Rule {
    Rule::new("self.matches('^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$')").message(format!(
        "{field} must be the SHA-256 (64) or SHA-1 (40) of the certificate in hex digits, without colons"
    ).as_str())
}
