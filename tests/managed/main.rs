//! Hubs that the operator runs: a controller process with its own `ServiceAccount` and the chart's
//! Roles, against a real API server and controller manager. There is no kubelet: `node` is one as
//! far as a test needs it, and runs the real hub from the pod's own specification.

#![cfg(test)]

mod conditions;
mod life;
mod node;
mod parts;
mod roll;
mod world;
