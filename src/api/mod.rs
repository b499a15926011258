//! The Kubernetes API of Rehome: group `rehome.dev`, one module per version.
//!
//! Owns the kinds, their schemas and the rules that the API server checks. Decides nothing.
#![warn(missing_docs)]
// `KubeSchema` expands to an inner copy of each struct, which trips this lint.
#![allow(unreachable_pub)]
// Printer columns repeat their keys, which is how `#[kube]` takes them.
#![allow(clippy::duplicated_attributes)]

pub mod crds;
pub mod v1alpha1;
