//! How a hub is reached: the one place where a hub that runs elsewhere and one that the operator
//! runs differ. Endpoint, credentials and trust come from here; all else is the same client.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};
use zeroize::Zeroizing;

use super::managed::{CONNECTION_STRING, Names};
use crate::api::v1alpha1::{ConnectionSpec, IoTHub, ManagedSpec};
use crate::cluster::apply::bounded;
use crate::controller::context::Context;
use crate::controller::status::Error;
use crate::registry::{Rates, Route};

/// Port of the service API at a managed hub's Service.
const HTTPS: u16 = 443;

/// Everything that a client is made from. Two that are equal give the same client.
#[derive(Clone, PartialEq)]
pub struct Access {
    /// Where the service API is.
    pub(in crate::controller) endpoint: String,
    /// The way there, and whom to trust.
    pub(in crate::controller) route: Route,
    /// How fast it may be called.
    pub(in crate::controller) rates: Option<Rates>,
    /// Secret and key of the connection string.
    pub(in crate::controller) secret: (String, String),
    /// What that Secret holds under that key.
    pub(in crate::controller) credentials: Credentials,
}

/// A connection string that is not read yet.
#[derive(Clone, PartialEq)]
pub(in crate::controller) enum Credentials {
    /// The Secret does not exist.
    NoSecret,
    /// The Secret has no such key.
    NoKey,
    Found(Zeroizing<Vec<u8>>),
}

impl Access {
    /// To a hub that runs elsewhere, with what its Secret holds.
    pub fn elsewhere(hub: &IoTHub, connection: &ConnectionSpec, secret: Option<&Secret>) -> Self {
        let host = &hub.spec.host_name;
        let reference = &connection.connection_string_secret_ref;
        let endpoint = connection.endpoint.clone();
        Self {
            endpoint: endpoint.unwrap_or_else(|| format!("https://{host}")),
            route: Route {
                ca_bundle: connection.ca_bundle.clone(),
                ..Route::default()
            },
            rates: Rates::of(host, connection.sku, connection.units),
            credentials: Credentials::of(secret, reference.key()),
            secret: (reference.name.clone(), reference.key().to_owned()),
        }
    }

    /// To a hub that the operator runs: by its Service, which is not where its name leads, with the
    /// generated key and the authority of its certificate.
    fn here(hub: &IoTHub, ctx: &Context, key: Option<&Secret>, ca_bundle: Option<String>) -> Self {
        let (namespace, name) = (hub.namespace().unwrap_or_default(), hub.name_any());
        let names = Names::of(hub);
        let forwarded = ctx.hosting.forwarded(&namespace, &name);
        let service = || format!("{}:{HTTPS}", names.service_host(&namespace));
        Self {
            endpoint: format!("https://{}", hub.spec.host_name),
            route: Route {
                via: Some(forwarded.map_or_else(service, str::to_owned)),
                ca_bundle,
            },
            rates: Rates::of(&hub.spec.host_name, None, None),
            credentials: Credentials::of(key, CONNECTION_STRING),
            secret: (names.key, CONNECTION_STRING.to_owned()),
        }
    }

    /// Reads what is needed for the hub.
    pub(super) async fn read(hub: &IoTHub, ctx: &Context) -> Result<Option<Self>, Error> {
        if let Some(connection) = &hub.spec.connection {
            let secret = &connection.connection_string_secret_ref.name;
            let secret = read_secret(hub, ctx, secret).await?;
            return Ok(Some(Self::elsewhere(hub, connection, secret.as_ref())));
        }
        let Some(managed) = &hub.spec.managed else {
            return Ok(None);
        };
        let names = Names::of(hub);
        let key = read_secret(hub, ctx, &names.key).await?;
        let certificate = managed.certificate_secret().unwrap_or(&names.certificate);
        let certificate = read_secret(hub, ctx, certificate).await?;
        let ca_bundle = certificate
            .as_ref()
            .and_then(|secret| value(secret, "ca.crt"));
        let ca_bundle = ca_bundle.and_then(|pem| String::from_utf8(pem.to_vec()).ok());
        Ok(Some(Self::here(hub, ctx, key.as_ref(), ca_bundle)))
    }
}

impl Credentials {
    fn of(secret: Option<&Secret>, key: &str) -> Self {
        match secret {
            None => Self::NoSecret,
            Some(secret) => value(secret, key).map_or(Self::NoKey, Self::Found),
        }
    }
}

/// Every Secret that the hub depends on, by name.
pub(in crate::controller) fn secrets_of(hub: &IoTHub) -> Vec<String> {
    let connection = hub.spec.connection.iter();
    let mut secrets: Vec<_> = connection
        .map(|it| it.connection_string_secret_ref.name.clone())
        .collect();
    if let Some(managed) = &hub.spec.managed {
        secrets.extend(secrets_of_managed(hub, managed));
    }
    secrets
}

fn secrets_of_managed(hub: &IoTHub, managed: &ManagedSpec) -> Vec<String> {
    let names = Names::of(hub);
    let database = managed.database_secret().map(str::to_owned);
    let mut secrets = match managed.certificate_secret() {
        Some(certificate) => vec![names.key, certificate.to_owned()],
        None => vec![
            names.key,
            names.certificate,
            super::managed::AUTHORITY.to_owned(),
        ],
    };
    secrets.extend(database);
    secrets
}

/// A Secret of the hub's namespace.
pub(super) async fn read_secret(
    hub: &IoTHub,
    ctx: &Context,
    name: &str,
) -> Result<Option<Secret>, Error> {
    let namespace = hub.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    bounded(secrets.get_opt(name))
        .await
        .map_err(|error| Error::new("reading the Secret", &hub.name_any(), error))
}

/// What a Secret holds under a key.
pub(super) fn value(secret: &Secret, key: &str) -> Option<Zeroizing<Vec<u8>>> {
    let value = secret.data.as_ref()?.get(key)?;
    Some(Zeroizing::new(value.0.clone()))
}
