//! The controller as a process with its own `ServiceAccount` and the chart's Roles, against a real
//! API server and a real hub process.

#![cfg(test)]

mod enrollments;
mod gateway;
mod hubs;
mod id_scopes;
mod lease;
mod registrations;
mod sweep;
mod world;
