//! Which namespace an ID scope means.
//!
//! By default a namespace's name is its scope; an annotation on the Namespace, which its tenants
//! cannot edit, sets another. Of two namespaces that claim one scope the older keeps it, so that
//! nobody takes over another tenant's devices by creating a namespace.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;

use crate::api::v1alpha1::{claim_order, claimed_id_scope};
use crate::domain::ids::IdScope;

/// One namespace's claim.
#[derive(Debug, Clone)]
struct Claim {
    scope: String,
    /// Who comes first.
    order: (Timestamp, String),
}

/// All claims, and who wins them.
#[derive(Debug, Default)]
pub struct Scopes {
    claims: HashMap<String, Claim>,
    winners: HashMap<String, String>,
}

impl Scopes {
    /// The namespace that a scope means.
    pub fn namespace(&self, scope: &IdScope) -> Option<&str> {
        self.winners.get(scope.canonical()).map(String::as_str)
    }

    /// Scopes that do not change, for installations that may not read Namespaces: each namespace
    /// with its scope, or with its name as the scope.
    pub fn fix(&mut self, scopes: impl IntoIterator<Item = (String, Option<IdScope>)>) {
        self.claims = scopes
            .into_iter()
            .map(|(namespace, scope)| {
                let scope = match scope {
                    Some(scope) => scope.canonical().to_owned(),
                    None => namespace.to_ascii_lowercase(),
                };
                let order = (Timestamp::UNIX_EPOCH, namespace.clone());
                (namespace, Claim { scope, order })
            })
            .collect();
        self.decide();
    }

    /// Takes the full list of Namespaces.
    pub fn replace(&mut self, all: &[Namespace]) {
        self.claims = all
            .iter()
            .map(|namespace| (namespace.name_any(), claim(namespace)))
            .collect();
        self.decide();
    }

    /// Takes up a new or changed Namespace.
    pub fn apply(&mut self, namespace: &Namespace) {
        self.claims.insert(namespace.name_any(), claim(namespace));
        self.decide();
    }

    /// Forgets a Namespace.
    pub fn remove(&mut self, namespace: &Namespace) {
        self.claims.remove(&namespace.name_any());
        self.decide();
    }

    fn decide(&mut self) {
        let mut claims: Vec<_> = self.claims.iter().collect();
        claims.sort_unstable_by_key(|(_, claim)| &claim.order);
        self.winners.clear();
        for (namespace, claim) in claims {
            self.winners
                .entry(claim.scope.clone())
                .or_insert_with(|| namespace.clone());
        }
    }
}

fn claim(namespace: &Namespace) -> Claim {
    Claim {
        scope: claimed_id_scope(namespace),
        order: claim_order(namespace),
    }
}

#[cfg(test)]
mod tests {
    use crate::api::v1alpha1::ID_SCOPE_ANNOTATION;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn namespace(name: &str, scope: Option<&str>, created: i64) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.creation_timestamp =
            Some(Time(Timestamp::from_second(created).unwrap()));
        if let Some(scope) = scope {
            namespace
                .annotations_mut()
                .insert(ID_SCOPE_ANNOTATION.to_owned(), scope.to_owned());
        }
        namespace
    }

    fn resolve<'a>(scopes: &'a Scopes, scope: &str) -> Option<&'a str> {
        scopes.namespace(&scope.parse().unwrap())
    }

    #[test]
    fn a_namespace_is_its_own_scope_unless_it_is_annotated() {
        let mut scopes = Scopes::default();
        scopes.replace(&[
            namespace("plant", None, 1),
            namespace("fleet", Some("0ne000TEST1"), 2),
        ]);
        assert_eq!(resolve(&scopes, "plant"), Some("plant"));
        assert_eq!(resolve(&scopes, "0NE000test1"), Some("fleet"));
        assert_eq!(resolve(&scopes, "fleet"), None);
    }

    #[test]
    fn the_older_of_two_claims_wins_until_it_is_gone() {
        let mut scopes = Scopes::default();
        scopes.replace(&[
            namespace("young", Some("one"), 2),
            namespace("old", Some("One"), 1),
        ]);
        assert_eq!(resolve(&scopes, "one"), Some("old"));
        // A namespace of that very name does not get it either.
        scopes.apply(&namespace("one", None, 3));
        assert_eq!(resolve(&scopes, "one"), Some("old"));
        scopes.remove(&namespace("old", None, 1));
        assert_eq!(resolve(&scopes, "one"), Some("young"));
    }

    #[test]
    fn fixed_scopes_need_no_namespaces() {
        let mut scopes = Scopes::default();
        let named = Some("0ne000TEST1".parse().unwrap());
        scopes.fix([("a".to_owned(), None), ("b".to_owned(), named)]);
        assert_eq!(resolve(&scopes, "a"), Some("a"));
        assert_eq!(resolve(&scopes, "0ne000test1"), Some("b"));
        assert_eq!(resolve(&scopes, "b"), None);
    }
}
