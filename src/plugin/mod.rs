//! `kubectl rehome`: what a person asks about a fleet, answered from the API server alone.
//!
//! Owns the plugin's commands: it reads, explains and foretells with the decisions of `domain`, and
//! writes nothing but the trigger `spec.reprovision`. Never talks to a hub or to a gateway, and acts
//! with the rights of whoever runs it.

mod access;
pub mod advice;
mod arguments;
mod check;
mod complete;
mod device_key;
pub mod explain;
mod failure;
pub mod finding;
mod fleet;
mod logs;
pub mod outlook;
mod output;
pub mod plan;
mod reprovision;
mod screen;
pub mod status;

pub use arguments::{Arguments, run};
pub use failure::Failure;

/// How a command ended, as the process says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Fine,
    /// The command could not be carried out.
    Error,
    /// It could, and something is stuck, or a check failed, or a wait was in vain.
    Trouble,
}

impl Outcome {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Error => 1,
            Self::Trouble => 2,
        }
    }
}
