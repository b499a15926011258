//! What the objects of a managed hub are called, and how they are known.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use kube::{Resource, ResourceExt as _};

use crate::api::v1alpha1::IoTHub;
use crate::domain::hex;

/// First part of every name; the admission policy allows the controller no other.
pub(in crate::controller) const PREFIX: &str = "iothub-";
/// The Secret with a namespace's own certificate authority.
pub(in crate::controller) const AUTHORITY: &str = "iothub-ca";
/// Annotation that names the `IoTHub`, whose name may be longer than a label's value.
pub(in crate::controller) const IOTHUB: &str = "rehome.dev/iothub";
/// Label by which the controller watches what it made.
pub(in crate::controller) const SELECTOR: &str = "rehome.dev/component=hub";
/// Longest part of the `IoTHub`'s name that is taken over as it is: the name of a `StatefulSet`
/// becomes, with a hash behind it, the value of a label.
const TAKEN_OVER: usize = 40;

/// Names of a hub's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) struct Names {
    /// `StatefulSet`, Service, `NetworkPolicy` and `PodDisruptionBudget`.
    pub(in crate::controller) base: String,
    /// Secret with the service key.
    pub(in crate::controller) key: String,
    /// Secret with the certificate that the operator makes.
    pub(in crate::controller) certificate: String,
}

impl Names {
    pub(in crate::controller) fn of(hub: &IoTHub) -> Self {
        let base = format!("{PREFIX}{}", label(&hub.name_any()));
        Self {
            key: format!("{base}-key"),
            certificate: format!("{base}-tls"),
            base,
        }
    }

    /// Where the Service is found inside the cluster.
    pub(in crate::controller) fn service_host(&self, namespace: &str) -> String {
        format!("{}.{namespace}.svc", self.base)
    }

    /// The claim of the hub's volume.
    pub(in crate::controller) fn claim(&self) -> String {
        format!("data-{}-0", self.base)
    }

    pub(super) fn selector(&self) -> BTreeMap<String, String> {
        let labels = [
            ("app.kubernetes.io/name", "rehome-hub"),
            ("app.kubernetes.io/instance", &self.base),
        ];
        labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let (component, hub) = SELECTOR.split_once('=').unwrap_or_default();
        let mut labels = self.selector();
        labels.insert(
            "app.kubernetes.io/managed-by".to_owned(),
            "rehome".to_owned(),
        );
        labels.insert(component.to_owned(), hub.to_owned());
        labels
    }
}

/// The `IoTHub` that an object or a pod belongs to.
pub(in crate::controller) fn hub_of<K: Resource>(object: &K) -> Option<&str> {
    object.annotations().get(IOTHUB).map(String::as_str)
}

/// A DNS label that no other name gives: names that are short labels already stay as they are.
fn label(name: &str) -> String {
    if name.len() <= TAKEN_OVER && !name.contains('.') {
        return name.to_owned();
    }
    let plain = name.replace('.', "-");
    let hash = digest(&SHA256, name.as_bytes());
    let hash = hex(&hash.as_ref()[..5]);
    let kept = TAKEN_OVER - hash.len() - 1;
    let start = plain.get(..kept.min(plain.len())).unwrap_or_default();
    format!("{}-{hash}", start.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_of_bounded_length_and_differ() {
        let long = "a".repeat(253);
        let names = [
            "west",
            "hub-west",
            "hub.west",
            "hub-west.1",
            &long,
            &long[1..],
        ]
        .map(label);
        assert_eq!(names[..2], ["west", "hub-west"]);
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= TAKEN_OVER, "{name}");
            assert!(!name.contains('.') && !name.ends_with('-'), "{name}");
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }
}
