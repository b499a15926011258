//! The operator's finalizer on an object, put on and taken off.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::apply::{ApplyError, Class, bounded};
use crate::api::v1alpha1::FINALIZER;

/// Whether the object carries the finalizer.
pub fn is_set(object: &impl ResourceExt) -> bool {
    object.finalizers().iter().any(|known| known == FINALIZER)
}

/// Puts the finalizer on, if the object still is the version that was seen.
pub async fn add<K>(api: &Api<K>, object: &K) -> Result<(), ApplyError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    if !is_set(object) {
        finalizers.push(FINALIZER.to_owned());
        write(api, object, &finalizers).await?;
    }
    Ok(())
}

/// Takes the finalizer off, if the object still is the version that was seen. An object that is
/// gone already is what was wanted.
pub async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), ApplyError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    if !is_set(object) {
        return Ok(());
    }
    finalizers.retain(|known| known != FINALIZER);
    match write(api, object, &finalizers).await {
        Err(error) if error.class() == Class::Gone => Ok(()),
        other => other,
    }
}

/// The list as a whole under resourceVersion: other people's finalizers are kept as they were.
async fn write<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), ApplyError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch = Patch::Merge(json!({ "metadata": {
        "resourceVersion": object.resource_version(),
        "uid": object.uid(),
        "finalizers": finalizers,
    } }));
    let name = object.name_any();
    bounded(api.patch(&name, &PatchParams::default(), &patch)).await?;
    Ok(())
}
