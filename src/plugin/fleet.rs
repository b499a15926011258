//! Reading the three kinds: in pages, so that a large fleet costs bounded memory here and bounded
//! work there.

use std::fmt::Debug;

use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::Failure;
use crate::api::v1alpha1::DeviceRegistration;
use crate::cluster::apply::bounded;
use crate::domain::ids::RegistrationId;
use crate::domain::object_name::object_name;

/// Objects of one page.
const PAGE: u32 = 500;

/// Shows every object to `see`, page by page; of all namespaces when none is given.
pub(super) async fn each<K>(
    client: &Client,
    namespace: Option<&str>,
    mut see: impl FnMut(K),
) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let failed = |error| Failure::of_request("list", &K::plural(&()), namespace, error);
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = bounded(api.list(&page)).await.map_err(failed)?;
        list.items.into_iter().for_each(&mut see);
        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            return Ok(());
        }
    }
}

/// All objects.
pub(super) async fn all<K>(client: &Client, namespace: Option<&str>) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let mut objects = Vec::new();
    each(client, namespace, |object| objects.push(object)).await?;
    Ok(objects)
}

/// The registration that a person means: by its registration id, or by the object's name.
pub(super) async fn registration(
    client: &Client,
    namespace: &str,
    meant: &str,
) -> Result<DeviceRegistration, Failure> {
    let meant = meant.rsplit_once('/').map_or(meant, |(_, name)| name);
    let api: Api<DeviceRegistration> = Api::namespaced(client.clone(), namespace);
    let by_id = meant
        .parse::<RegistrationId>()
        .ok()
        .map(|id| object_name(&id));
    let mut names: Vec<String> = by_id.into_iter().collect();
    // Of an id that is no name of an object, the name is another.
    if !names.iter().any(|name| name == meant) && !meant.contains(['_', ':', '/']) {
        names.push(meant.to_ascii_lowercase());
    }
    for name in names {
        let found = bounded(api.get_opt(&name)).await;
        let failed =
            |error| Failure::of_request("get", "deviceregistrations", Some(namespace), error);
        if let Some(found) = found.map_err(failed)? {
            return Ok(found);
        }
    }
    Err(Failure::new(format!(
        "there is no registration {meant} in namespace {namespace}: either the device has never \
         registered, or it is in another namespace; see kubectl get devreg --all-namespaces"
    )))
}
