//! Shared access policies: named keys of services, and what each may do.

use std::collections::HashSet;

use serde::Deserialize;

use super::identity::{Key, SymmetricKeys};
use crate::domain::attestation::InvalidKey;

/// What a policy allows, as IoT Hub names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Permission {
    RegistryRead,
    RegistryWrite,
    ServiceConnect,
    DeviceConnect,
}

impl Permission {
    pub const fn name(self) -> &'static str {
        match self {
            Self::RegistryRead => "RegistryRead",
            Self::RegistryWrite => "RegistryWrite",
            Self::ServiceConnect => "ServiceConnect",
            Self::DeviceConnect => "DeviceConnect",
        }
    }
}

/// A named pair of keys and its permissions.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    pub permissions: HashSet<Permission>,
    pub keys: SymmetricKeys,
}

/// The policies of a hub.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Policy>);

/// As many as an IoT Hub takes.
const MAX_POLICIES: usize = 16;

/// Why a policies file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// Without the parser's own words: they quote values, and the file holds keys.
    #[error(
        "it must be JSON like {{\"policies\": [{{\"name\", \"permissions\", \"primaryKey\", \
         \"secondaryKey\"}}]}}, but is not at line {line} column {column}"
    )]
    Form { line: usize, column: usize },
    #[error("policy {name:?}: {key}: {why}")]
    Key {
        name: String,
        key: &'static str,
        why: InvalidKey,
    },
    #[error("policy {name:?}: {why}")]
    Policy { name: String, why: &'static str },
    #[error("it holds {0} policies, and a hub takes 1 to {MAX_POLICIES}")]
    Count(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    policies: Vec<FilePolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilePolicy {
    name: String,
    permissions: HashSet<Permission>,
    primary_key: String,
    secondary_key: String,
}

impl Policies {
    /// Reads the content of a policies file.
    pub fn parse(json: &str) -> Result<Self, PoliciesError> {
        let file: File = serde_json::from_str(json).map_err(|why| PoliciesError::Form {
            line: why.line(),
            column: why.column(),
        })?;
        if file.policies.is_empty() || file.policies.len() > MAX_POLICIES {
            return Err(PoliciesError::Count(file.policies.len()));
        }
        let mut names = HashSet::new();
        for policy in &file.policies {
            let wrong = |why| PoliciesError::Policy {
                name: policy.name.clone(),
                why,
            };
            if policy.name.is_empty() || policy.name.len() > 64 {
                return Err(wrong("a name has 1 to 64 characters"));
            }
            if !names.insert(&policy.name) {
                return Err(wrong("this name is used twice"));
            }
            if policy.permissions.is_empty() {
                return Err(wrong("it grants nothing"));
            }
        }
        file.policies
            .into_iter()
            .map(Policy::read)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn find(&self, name: &str) -> Option<&Policy> {
        self.0.iter().find(|policy| policy.name == name)
    }
}

impl Policy {
    fn read(file: FilePolicy) -> Result<Self, PoliciesError> {
        let key = |key, text: &str| {
            let name = file.name.clone();
            Key::parse(text).map_err(|why| PoliciesError::Key { name, key, why })
        };
        let primary = key("primaryKey", &file.primary_key)?;
        let secondary = key("secondaryKey", &file.secondary_key)?;
        let keys = SymmetricKeys { primary, secondary };
        Ok(Self {
            name: file.name,
            permissions: file.permissions,
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policies_file_is_read_or_its_fault_named_without_any_key() {
        let policy = |name: &str, permissions: serde_json::Value, key: &str| {
            json!({ "name": name, "permissions": permissions, "primaryKey": key,
                    "secondaryKey": "c2Vjb25kYXJ5LWtleS0wMQ==" })
        };
        let good = "cHJpbWFyeS1rZXktMDEyMw==";
        let fine = json!({ "policies": [policy("service", json!(["ServiceConnect"]), good)] });
        let policies = Policies::parse(&fine.to_string()).unwrap();
        assert!(policies.find("service").is_some());
        assert!(policies.find("device").is_none());
        for (file, complaint) in [
            (json!([]), "it must be JSON like"),
            (json!({ "policies": [] }), "0 policies"),
            (
                json!({ "policies": [policy("a", json!(["ServiceConnect"]), "short")] }),
                "primaryKey: the key is not base64",
            ),
            (
                json!({ "policies": [policy("a", json!(["Everything"]), good)] }),
                "it must be JSON like",
            ),
            (
                json!({ "policies": [policy("a", json!([]), good)] }),
                "grants nothing",
            ),
            (
                json!({ "policies": [policy("", json!(["ServiceConnect"]), good)] }),
                "1 to 64",
            ),
            (
                json!({ "policies": vec![policy("a", json!(["ServiceConnect"]), good); 2] }),
                "used twice",
            ),
        ] {
            let why = Policies::parse(&file.to_string()).unwrap_err().to_string();
            assert!(why.contains(complaint), "{why}");
            assert!(!why.contains("short"), "{why}");
        }
    }
}
