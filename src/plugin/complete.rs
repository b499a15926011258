//! Completion: scripts for shells, and the answers that kubectl asks for.
//!
//! kubectl completes a plugin by running `kubectl_complete-rehome` with the words so far, and reads
//! one candidate a line, with a description after a tab, and `:` with a directive in the end.

use std::fmt::Write as _;

use clap::Command;
use clap_complete::Shell;

use super::{Failure, output};

/// No file names, please (Cobra's `ShellCompDirectiveNoFileComp`).
const NO_FILES: u8 = 4;

/// Writes the script with which a shell completes the program `kubectl-rehome`.
pub(super) fn script(shell: Shell, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "kubectl-rehome", &mut script);
    output::write(&String::from_utf8_lossy(&script))
}

/// What kubectl is answered: the last of the words is the one to complete.
pub(super) fn answer(command: &Command, words: &[String]) -> String {
    let mut text = String::new();
    for (candidate, help) in candidates(command, words) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{candidate}\t{help}");
    }
    let _ = writeln!(text, ":{NO_FILES}");
    text
}

fn candidates(command: &Command, words: &[String]) -> Vec<(String, String)> {
    let Some((last, before)) = words.split_last() else {
        return Vec::new();
    };
    let mut at = command;
    for word in before {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    let global = command.get_arguments().filter(|one| one.is_global_set());
    let arguments: Vec<_> = at
        .get_arguments()
        .chain(global)
        .filter(|one| !one.is_hide_set())
        .collect();
    let about =
        |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    // The value of a flag that takes one of a few.
    let asked = before.last().and_then(|flag| {
        arguments.iter().find(|one| {
            let long = one.get_long().map(|long| format!("--{long}"));
            let short = one.get_short().map(|short| format!("-{short}"));
            one.get_action().takes_values()
                && (long.as_ref() == Some(flag) || short.as_ref() == Some(flag))
        })
    });
    let all: Vec<(String, String)> = if let Some(flag) = asked {
        let values = flag.get_possible_values().into_iter();
        values
            .map(|value| (value.get_name().to_owned(), about(value.get_help())))
            .collect()
    } else if last.starts_with('-') {
        let long = |one: &&&clap::Arg| {
            one.get_long()
                .map(|long| (format!("--{long}"), about(one.get_help())))
        };
        let mut flags: Vec<_> = arguments.iter().filter_map(|one| long(&one)).collect();
        flags.sort();
        flags.dedup();
        flags
    } else {
        let commands = at.get_subcommands().filter(|one| !one.is_hide_set());
        commands
            .map(|one| (one.get_name().to_owned(), about(one.get_about())))
            .collect()
    };
    all.into_iter()
        .filter(|(candidate, _)| candidate.starts_with(last.as_str()))
        .collect()
}
