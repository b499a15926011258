//! Containers of pods, as `ctr` of a node's containerd knows them.

use anyhow::Result;

/// Kills the containers of that name, of a pod or by themselves, in a namespace, by SIGKILL; says how many
/// there were. `ctr` runs that program on the node.
pub(super) fn kill(
    ctr: impl Fn(&[&str]) -> Result<String>,
    namespace: &str,
    name: &str,
) -> Result<usize> {
    let mut killed = 0;
    for label in ["io.kubernetes.container.name", "io.kubernetes.pod.name"] {
        for container in ctr(&[
            "containers",
            "list",
            "--quiet",
            &filter(namespace, label, name),
        ])?
        .lines()
        {
            // One that has ended before is kept for a while.
            if ctr(&["tasks", "kill", "--signal", "SIGKILL", container]).is_ok() {
                killed += 1;
            }
        }
    }
    Ok(killed)
}

/// Not the sandbox, which holds the pod.
fn filter(namespace: &str, label: &str, name: &str) -> String {
    format!(
        "labels.\"io.cri-containerd.kind\"==container,\
         labels.\"io.kubernetes.pod.namespace\"=={namespace},labels.\"{label}\"=={name}"
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    #[test]
    fn what_runs_is_killed_and_what_has_ended_is_not_counted() {
        let asked = RefCell::new(Vec::new());
        let ctr = |arguments: &[&str]| {
            asked.borrow_mut().push(arguments.join(" "));
            match arguments {
                ["containers", .., filter] if filter.contains(r#"pod.name""#) => {
                    Ok("running\nended\n".into())
                }
                ["containers", ..] | ["tasks", .., "running"] => Ok(String::new()),
                _ => bail!("no running task found"),
            }
        };
        assert_eq!(kill(ctr, "plant", "iothub-east-0").unwrap(), 1);
        let asked = asked.into_inner();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert_eq!(
            asked[1],
            "containers list --quiet labels.\"io.cri-containerd.kind\"==container,\
             labels.\"io.kubernetes.pod.namespace\"==plant,labels.\"io.kubernetes.pod.name\"==iothub-east-0"
        );
        assert_eq!(asked[2], "tasks kill --signal SIGKILL running");
    }
}
