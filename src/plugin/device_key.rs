//! `kubectl rehome device-key`: the key that a device of an Enrollment is given.
//!
//! The key goes to standard output and nowhere else.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use zeroize::Zeroizing;

use super::{Failure, output};
use crate::api::v1alpha1::Enrollment;
use crate::cluster::apply::bounded;
use crate::domain::attestation::{SharedKeys, SymmetricKey, derive_device_key};
use crate::domain::ids::RegistrationId;

/// Which key.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Registration id of the device, in the device's spelling: another spelling gives another key.
    registration: String,
    /// Enrollment whose Secret holds the key, which you need the right to read.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "group_key_file",
        required_unless_present = "group_key_file"
    )]
    enrollment: Option<String>,
    /// File with the group key in base64, `-` for standard input; no cluster is needed then.
    #[arg(long, value_name = "FILE")]
    group_key_file: Option<PathBuf>,
    /// The secondary key instead of the primary one.
    #[arg(long, conflicts_with = "group_key_file")]
    secondary: bool,
}

impl Options {
    /// The file with the group key, when no cluster is needed.
    pub(super) fn offline(&self) -> Option<&Path> {
        self.group_key_file.as_deref()
    }

    fn id(&self) -> Result<RegistrationId, Failure> {
        let why = |error| {
            Failure::because(
                format!("{:?} is no registration id", self.registration),
                error,
            )
        };
        self.registration.parse().map_err(why)
    }

    /// Derives from a file.
    pub(super) fn derive_from_file(&self, file: &Path) -> Result<(), Failure> {
        let id = self.id()?;
        let shown = file.display();
        let unreadable =
            |error| Failure::because(format!("the group key in {shown} cannot be read"), error);
        let mut text = Zeroizing::new(String::new());
        if file == Path::new("-") {
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(unreadable)?;
        } else {
            let mut file = std::fs::File::open(file).map_err(unreadable)?;
            file.read_to_string(&mut text).map_err(unreadable)?;
        }
        let key: SymmetricKey = text
            .parse()
            .map_err(|error| Failure::because(format!("{shown} holds no group key"), error))?;
        print(&derive_device_key(&key, id.as_str()))
    }

    /// Derives from an Enrollment's Secret.
    pub(super) async fn derive_from_secret(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Result<(), Failure> {
        let id = self.id()?;
        let name = self.enrollment.as_deref().unwrap_or_default();
        let enrollments: Api<Enrollment> = Api::namespaced(client.clone(), namespace);
        let failed = |error| Failure::of_request("get", "enrollments", Some(namespace), error);
        let found = bounded(enrollments.get_opt(name)).await.map_err(failed)?;
        let enrollment = found.ok_or_else(|| {
            Failure::new(format!(
                "there is no Enrollment {name} in namespace {namespace}"
            ))
        })?;
        let spec = &enrollment.spec;
        let individual = spec.individual.as_ref().map(|it| &it.registration_id);
        if individual.is_some_and(|own| own.parse() != Ok(id.clone())) {
            return Err(Failure::new(format!(
                "Enrollment {name} is for the device {} only",
                individual.map_or("", String::as_str)
            )));
        }
        let wanted = spec.attestation.symmetric_key.as_ref().ok_or_else(|| {
            Failure::new(format!(
                "the devices of Enrollment {name} have no symmetric key: they attest otherwise"
            ))
        })?;
        let wanted = &wanted.secret_ref;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let failed = |error| Failure::of_request("get", "secrets", Some(namespace), error);
        let secret = bounded(secrets.get_opt(&wanted.name))
            .await
            .map_err(failed)?;
        let secret = secret.ok_or_else(|| {
            Failure::new(format!(
                "Secret {} of Enrollment {name} does not exist",
                wanted.name
            ))
        })?;
        let data = secret.data.unwrap_or_else(BTreeMap::new);
        let unusable = |error| {
            Failure::because(
                format!("Secret {} of Enrollment {name}", wanted.name),
                error,
            )
        };
        let keys =
            SharedKeys::from_secret(wanted, individual.is_some(), &data).map_err(unusable)?;
        let keys = keys.keys_for(&id);
        print(if self.secondary {
            &keys.secondary
        } else {
            &keys.primary
        })
    }
}

fn print(key: &SymmetricKey) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        output::remark(
            "warning: a device's key is on this terminal, and stays in its scrollback; write it to \
             a file instead: … > press-7.key",
        );
    }
    let text = Zeroizing::new(format!("{}\n", key.to_base64().as_str()));
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::because("standard output cannot be written", error))
}
