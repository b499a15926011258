//! Docker, in which the node is a container.

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Fails, with what to do, unless an engine answers. A client alone proves nothing.
pub(super) fn answers() -> Result<()> {
    let mut info = Command::new("docker");
    info.args(["info", "--format", "{{.ServerVersion}}"]);
    judge(info.stdin(Stdio::null()).output())
}

fn judge(info: io::Result<Output>) -> Result<()> {
    let why = match info {
        Err(error) => format!("docker cannot be run ({error})"),
        // Some clients succeed without an engine.
        Ok(info) if info.status.success() && !info.stdout.trim_ascii().is_empty() => return Ok(()),
        Ok(info) => format!(
            "docker info has no answer ({})",
            String::from_utf8_lossy(&info.stderr).trim()
        ),
    };
    bail!(
        "{why}. A kind node is a container of Docker: install Docker Engine \
         (https://docs.docker.com/engine/install) and start it, or leave out CLUSTER=kind, for a \
         node that needs no Docker"
    )
}

/// Runs a command of Docker and gives what it prints.
pub(super) fn docker(arguments: &[&str]) -> Result<String> {
    printed(Command::new("docker").args(arguments))
}

/// Runs a command and gives what it prints.
pub(super) fn printed(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let shown = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    };
    let output = output.with_context(|| format!("cannot run {}", shown()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", shown(), output.status, said.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The address of a container, on whatever network it is.
pub(super) fn address(container: &str) -> Result<Ipv4Addr> {
    let path = "{{range .NetworkSettings.Networks}}{{.IPAddress}}\n{{end}}";
    first_address(&docker(&["inspect", "--format", path, container])?)
        .with_context(|| format!("Docker has given {container} no address"))
}

fn first_address(printed: &str) -> Option<Ipv4Addr> {
    printed.lines().find_map(|line| line.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_no_docker_or_no_engine_is_told_why_and_what_to_do() {
        let run = |program: &str, lines: &str| {
            let output = Command::new(program).args(["-c", lines]).output();
            judge(output).map_err(|error| error.to_string())
        };
        let no_client = run("/nowhere/docker", "").unwrap_err();
        assert!(no_client.contains("cannot be run"), "{no_client}");
        let alone = "echo 'Cannot connect to the Docker daemon' >&2";
        for no_engine in [format!("{alone}; exit 1"), alone.to_owned()] {
            let said = run("sh", &no_engine).unwrap_err();
            assert!(
                said.contains("Cannot connect") && said.contains("engine/install"),
                "{said}"
            );
        }
        run("sh", "echo 28.2.2").unwrap();
    }

    #[test]
    fn an_address_is_found_among_networks_without_one() {
        assert_eq!(
            first_address("\n172.18.0.2\n\n"),
            Some(Ipv4Addr::new(172, 18, 0, 2))
        );
        assert_eq!(first_address("invalid IP\n\n"), None);
    }

    #[test]
    fn a_command_that_fails_is_named_with_what_it_said() {
        let error = printed(Command::new("sh").args(["-c", "echo no such node >&2; exit 3"]));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.ends_with("no such node"),
            "{error}"
        );
    }
}
