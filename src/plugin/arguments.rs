//! What a person can type, and what it runs.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use super::access::{Access, Connected};
use super::output::Format;
use super::{
    Failure, Outcome, check, complete, device_key, explain, logs, output, plan, reprovision, status,
};
use crate::clock::Clock;
use crate::random::Random;

/// Where devices live, what moves them, what is stuck and why.
///
/// Exit codes: 0 all is well; 1 the command could not be carried out; 2 it could, and something is
/// stuck, a check failed, or a wait was in vain.
#[derive(Debug, Parser)]
#[command(name = "kubectl-rehome", bin_name = "kubectl rehome", version)]
pub struct Arguments {
    #[command(flatten)]
    access: Access,
    /// When to colour: `NO_COLOR` and an output that is no terminal count for auto.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    color: Colour,
    /// Namespace of the operator's own pods.
    #[arg(
        long,
        global = true,
        default_value = "rehome-system",
        value_name = "NAME"
    )]
    operator_namespace: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

/// The form of a result.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Form {
    /// Form of the result.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hubs, Enrollments, what is moving, what is stuck and why.
    Status {
        /// Look at every namespace.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Why a device is where it is, what happens when it comes next, what happened before.
    Explain {
        /// Registration id, or name of the object.
        registration: String,
        #[command(flatten)]
        form: Form,
    },
    /// What has to be true for devices to register and move.
    Check {
        #[command(flatten)]
        form: Form,
    },
    /// Which devices would move, and why, if a manifest were applied.
    Plan {
        /// The manifest; - for standard input.
        #[arg(short, long, value_name = "FILE")]
        filename: PathBuf,
        #[command(flatten)]
        form: Form,
    },
    /// Print the key of a device, from its Enrollment's Secret or from a group key.
    DeviceKey(device_key::Options),
    /// Move a device, or let it start afresh, now.
    Reprovision {
        #[command(flatten)]
        options: reprovision::Options,
        #[command(flatten)]
        form: Form,
    },
    /// What controller and gateway say, all of it or about one device.
    Logs(logs::Options),
    /// Print a script that completes commands in a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// What kubectl asks for when it completes this plugin.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Runs a command.
pub async fn run(
    arguments: Arguments,
    clock: Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<Outcome, Failure> {
    match arguments.color {
        Colour::Auto => {}
        Colour::Always => anstream::ColorChoice::Always.write_global(),
        Colour::Never => anstream::ColorChoice::Never.write_global(),
    }
    match &arguments.command {
        Command::Completion { shell } => {
            complete::script(*shell, Arguments::command())?;
            return Ok(Outcome::Fine);
        }
        Command::Complete { words } => {
            output::write(&complete::answer(&Arguments::command(), words))?;
            return Ok(Outcome::Fine);
        }
        Command::DeviceKey(options) if let Some(file) = options.offline() => {
            options.derive_from_file(file)?;
            return Ok(Outcome::Fine);
        }
        Command::Status { .. }
        | Command::Explain { .. }
        | Command::Check { .. }
        | Command::Plan { .. }
        | Command::DeviceKey(_)
        | Command::Reprovision { .. }
        | Command::Logs(_) => {}
    }
    let connected = arguments.access.connect().await?;
    arguments.ask(&connected, clock, random).await
}

impl Arguments {
    async fn ask(
        &self,
        connected: &Connected,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Outcome, Failure> {
        let Connected { client, namespace } = connected;
        let now = clock.now();
        match &self.command {
            Command::Status {
                all_namespaces,
                form,
            } => {
                let namespace = Some(namespace.as_str()).filter(|_| !all_namespaces);
                let (overview, outcome) = status::survey(client, namespace, now).await?;
                output::print(form.output, &overview, || overview.text())?;
                Ok(outcome)
            }
            Command::Explain { registration, form } => {
                let (explanation, outcome) =
                    explain::explain(client, namespace, registration, now).await?;
                output::print(form.output, &explanation, || explanation.text())?;
                Ok(outcome)
            }
            Command::Check { form } => {
                let scope = check::Scope {
                    client,
                    namespace,
                    operator: &self.operator_namespace,
                    clock: clock.as_ref(),
                };
                let (report, outcome) = check::check(&scope).await?;
                output::print(form.output, &report, || report.text())?;
                Ok(outcome)
            }
            Command::Plan { filename, form } => {
                let (plan, outcome) = plan::plan(client, namespace, filename, now).await?;
                output::print(form.output, &plan, || plan.text())?;
                Ok(outcome)
            }
            Command::DeviceKey(options) => {
                options.derive_from_secret(client, namespace).await?;
                Ok(Outcome::Fine)
            }
            Command::Reprovision { options, form } => {
                let (done, outcome) = options.run(client, namespace, now, random).await?;
                output::print(form.output, &done, || done.text(options.waits()))?;
                Ok(outcome)
            }
            Command::Logs(options) => {
                options.run(client, &self.operator_namespace).await?;
                Ok(Outcome::Fine)
            }
            Command::Completion { .. } | Command::Complete { .. } => Ok(Outcome::Fine),
        }
    }
}
