//! What the program `cluster` can do.

mod detached;
mod exec;
mod programs;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// A command of `cluster`.
#[derive(Subcommand)]
pub enum Action {
    /// Run a command with a control plane, which `REHOME_CLUSTER` names
    Exec {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Start a control plane that stays; nothing happens if it runs already
    Up,
    /// End the control plane that `up` has started, with all that is in it
    Down,
    /// Run the control plane of `up`, until SIGTERM
    #[command(hide = true)]
    Serve,
    /// Run kubectl on the control plane of `up`
    Kubectl {
        /// kubectl's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run Helm on the control plane of `up`
    Helm {
        /// Helm's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

impl Action {
    /// Does it.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Exec { command } => exec::exec(&command),
            Self::Up => detached::up(),
            Self::Down => detached::down(),
            Self::Serve => detached::serve(),
            Self::Kubectl { arguments } => programs::kubectl(&arguments),
            Self::Helm { arguments } => programs::helm(&arguments),
        }
    }
}
