//! The gateway as a process with its own token and the chart's Roles, on a real API server. The
//! tests play the controller, with the controller's token.

#![cfg(test)]

mod access;
mod faults;
mod plant;
mod registering;
