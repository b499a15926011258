//! Whether devices find the namespace of an Enrollment by its ID scope.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;

use crate::api::v1alpha1::{ID_SCOPE_ANNOTATION, Reason, claim_order, claimed_id_scope};
use crate::controller::context::Context;
use crate::controller::status::Verdict;
use crate::domain::ids::IdScope;

/// What keeps devices from the namespace. Of two namespaces that claim one scope the older has it, as
/// the gateways see it too; an installation that may not read Namespaces is told its scopes.
pub(super) fn problem(ctx: &Context, namespace: &str) -> Option<Verdict> {
    let own = ctx.namespace(namespace)?;
    let scope = claimed_id_scope(&own);
    if let Err(error) = scope.parse::<IdScope>() {
        let message = format!(
            "{scope:?} in the annotation {ID_SCOPE_ANNOTATION} of Namespace {namespace} is no ID \
             scope: {error}; correct it, or remove it to have the namespace's name"
        );
        return Some(Verdict::no(Reason::IdScopeInvalid, message));
    }
    let older = |other: &Namespace| {
        claim_order(other) < claim_order(&own) && claimed_id_scope(other) == scope
    };
    let rivals = ctx.stores.namespaces.state_filter(older);
    let first = rivals.into_iter().min_by_key(|other| claim_order(other))?;
    let message = format!(
        "ID scope {scope} belongs to Namespace {}, which is older: devices that name it do not come \
         here. Give Namespace {namespace} another by the annotation {ID_SCOPE_ANNOTATION}",
        first.name_any()
    );
    Some(Verdict::no(Reason::IdScopeTaken, message))
}
