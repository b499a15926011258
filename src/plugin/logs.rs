//! `kubectl rehome logs`: what controller and gateway say, all of it or about one device.

use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt as _};

use super::{Failure, output};
use crate::cluster::apply::{ApplyError, bounded};
use crate::domain::ids::RegistrationId;
use crate::domain::object_name::object_name;

/// Label of the operator's own objects.
pub(super) const OPERATOR: &str = "app.kubernetes.io/name=rehome";
/// Pods that are read at the same time.
const AT_ONCE: usize = 32;

/// Whose logs, and which lines.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only lines about this registration.
    registration: Option<String>,
    /// Only this process.
    #[arg(short, long, value_enum)]
    container: Option<Container>,
    /// Go on as lines are written.
    #[arg(short, long)]
    follow: bool,
    /// Only lines of the last so many seconds.
    #[arg(long, value_name = "SECONDS")]
    since: Option<i64>,
    /// Only the last so many lines of each process, before any are left out.
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Container {
    Controller,
    Gateway,
}

impl Container {
    const ALL: [Self; 2] = [Self::Controller, Self::Gateway];

    const fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Gateway => "gateway",
        }
    }
}

impl Options {
    /// Writes the lines to standard output as they come.
    pub(super) async fn run(&self, client: &Client, operator: &str) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(client.clone(), operator);
        let failed = |error| Failure::of_request("list", "pods", Some(operator), error);
        let pods = bounded(api.list(&ListParams::default().labels(OPERATOR)))
            .await
            .map_err(failed)?;
        if pods.items.is_empty() {
            return Err(Failure::new(format!(
                "no pod labelled {OPERATOR} in namespace {operator}; give --operator-namespace, or \
                 see kubectl get pods --all-namespaces -l {OPERATOR}"
            )));
        }
        let filter = self.registration.as_deref().map(Filter::new);
        let sources = pods.items.iter().flat_map(|pod| self.containers_of(pod));
        let sources: Vec<_> = sources.collect();
        let reading = sources
            .iter()
            .map(|(pod, container)| self.read(&api, operator, pod, container, filter.as_ref()));
        // One that cannot be read does not keep the others from being read.
        let failures: Vec<Failure> = stream::iter(reading)
            .buffer_unordered(AT_ONCE)
            .filter_map(async |read| read.err())
            .collect()
            .await;
        match failures.into_iter().reduce(|first, other| {
            output::remark(&format!("note: {}", other.whole()));
            first
        }) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Names of a pod and its containers that are meant.
    fn containers_of(&self, pod: &Pod) -> Vec<(String, String)> {
        let spec = pod.spec.as_ref();
        let sidecars = spec
            .and_then(|spec| spec.init_containers.as_ref())
            .into_iter()
            .flatten();
        let containers = spec.into_iter().flat_map(|spec| &spec.containers);
        let wanted = |name: &str| {
            let mut all = Container::ALL.into_iter();
            all.any(|one| one.name() == name && self.container.is_none_or(|only| only == one))
        };
        sidecars
            .chain(containers)
            .filter(|container| wanted(&container.name))
            .map(|container| (pod.name_any(), container.name.clone()))
            .collect()
    }

    async fn read(
        &self,
        api: &Api<Pod>,
        operator: &str,
        pod: &str,
        container: &str,
        filter: Option<&Filter>,
    ) -> Result<(), Failure> {
        let params = LogParams {
            container: Some(container.to_owned()),
            follow: self.follow,
            since_seconds: self.since,
            tail_lines: self.tail,
            ..LogParams::default()
        };
        let what = format!("pods/log of {pod}");
        let failed =
            |error| Failure::of_request("get", &what, Some(operator), ApplyError::from(error));
        let log = api.log_stream(pod, &params).await.map_err(failed)?;
        print(log, &format!("[{pod}/{container}]"), filter).await
    }
}

async fn print(log: impl AsyncBufRead, from: &str, filter: Option<&Filter>) -> Result<(), Failure> {
    futures::pin_mut!(log);
    let mut lines = log.lines();
    let broken = |error| Failure::because(format!("the log of {from} broke off"), error);
    while let Some(line) = lines.try_next().await.map_err(broken)? {
        if filter.is_none_or(|filter| filter.is_about(&line)) {
            output::write(&format!("{from} {line}\n"))?;
        }
    }
    Ok(())
}

/// Finds lines about one device: by its registration id, in any case, or by its object's name.
struct Filter {
    names: Vec<String>,
}

impl Filter {
    fn new(meant: &str) -> Self {
        let mut names = vec![meant.to_ascii_lowercase()];
        if let Ok(id) = meant.parse::<RegistrationId>() {
            names.push(object_name(&id));
        }
        names.dedup();
        Self { names }
    }

    fn is_about(&self, line: &str) -> bool {
        let line = line.to_ascii_lowercase();
        self.names.iter().any(|name| {
            let found = line.match_indices(name.as_str());
            let mut whole = found.filter(|(at, _)| is_whole(&line, *at, at + name.len()));
            whole.next().is_some()
        })
    }
}

/// Whether that part of the line is a name, not a piece of a longer one.
fn is_whole(line: &str, from: usize, to: usize) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    let before = line[..from].chars().next_back();
    let mut after = line[to..].chars();
    let (next, second) = (after.next(), after.next());
    // A colon or a full stop may end a clause.
    let ends = next.is_some_and(|letter| ".:".contains(letter)) && !second.is_some_and(is_part);
    !before.is_some_and(is_part) && (ends || !next.is_some_and(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_about_the_device_are_found() {
        let filter = Filter::new("Press-7");
        for line in [
            "INFO reconcile{registration=press-7 namespace=a}: moved",
            r#"{"fields":{"registration":"PRESS-7"}}"#,
            "nothing is known of press-7.",
            "press-7: gone",
            "press-70, then press-7",
        ] {
            assert!(filter.is_about(line), "{line}");
        }
        for line in [
            "press-70",
            "xpress-7",
            "press-7-b",
            "press-7.b",
            "old.press-7",
            "press",
        ] {
            assert!(!filter.is_about(line), "{line}");
        }
    }

    #[test]
    fn an_id_that_is_no_name_is_found_by_both() {
        let filter = Filter::new("sn:AA_01");
        let name = object_name(&"sn:aa_01".parse().unwrap());
        assert!(filter.is_about(&format!("registration={name} ")));
        assert!(filter.is_about("device sn:aa_01 registered"));
    }

    #[tokio::test]
    async fn a_log_is_read_line_by_line() {
        let log = futures::io::Cursor::new("press-7 one\nother\n");
        print(log, "[pod/controller]", Some(&Filter::new("press-7")))
            .await
            .unwrap();
    }
}
