//! Which ID scope a Namespace claims.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;

/// Annotation on a Namespace that sets its ID scope; absent means the namespace's name.
pub const ID_SCOPE_ANNOTATION: &str = "rehome.dev/id-scope";

/// Of Namespaces that claim one ID scope the first in this order keeps it: the oldest.
pub fn claim_order(namespace: &Namespace) -> (Timestamp, String) {
    let metadata = &namespace.metadata;
    let created = metadata.creation_timestamp.as_ref();
    let created = created.map_or(Timestamp::UNIX_EPOCH, |created| created.0);
    (created, metadata.name.clone().unwrap_or_default())
}

/// The ID scope that a Namespace claims, in lower case. It may be none that a device can ask for.
pub fn claimed_id_scope(namespace: &Namespace) -> String {
    let metadata = &namespace.metadata;
    let annotations = metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(ID_SCOPE_ANNOTATION));
    let scope = annotated.or(metadata.name.as_ref());
    scope
        .map(|scope| scope.to_ascii_lowercase())
        .unwrap_or_default()
}
