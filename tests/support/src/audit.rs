//! Counts requests in the API server's audit log.
//!
//! The log has one line for each request, written before the response ends: what a client has an
//! answer to can be counted. A watch counts when it begins.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// The audit log of a control plane.
#[derive(Clone, Debug)]
pub struct Audit {
    log: PathBuf,
}

/// A point in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One request to the API server. Parts that it does not have are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// create, get, list, watch, update, patch, delete, deletecollection.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// In the plural; empty for a path that is no resource, such as discovery.
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The path and the query.
    pub uri: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// Whether the user has no right to it; a policy may refuse with the same status.
    pub forbidden: bool,
    /// When the API server received it.
    pub received: Timestamp,
}

/// Requests in the order of the log. Its `Display` is a table of users and verbs with counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub Vec<Request>);

impl Audit {
    pub(crate) fn new(log: &Path) -> Self {
        Self {
            log: log.to_owned(),
        }
    }

    /// The end of the log as it is now: what is answered later comes after it.
    pub fn mark(&self) -> Result<Mark> {
        let length = std::fs::metadata(&self.log).map(|metadata| metadata.len());
        Ok(Mark(length.with_context(|| {
            format!("cannot read {}", self.log.display())
        })?))
    }

    /// All requests that were answered since the mark.
    pub fn since(&self, mark: Mark) -> Result<Requests> {
        let mut file =
            File::open(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Requests::parse(&text)
    }
}

impl Requests {
    fn parse(text: &str) -> Result<Self> {
        // The end of a watch has a second line with the same id.
        let mut seen = HashSet::new();
        let mut requests = Vec::new();
        // What follows the last line break is still being written.
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let event: Event =
                serde_json::from_str(line).with_context(|| format!("audit line {line}"))?;
            if seen.insert(event.audit_id.clone()) {
                requests.push(event.into());
            }
        }
        Ok(Self(requests))
    }

    /// Only the requests of this user.
    #[must_use]
    pub fn by(&self, user: &str) -> Self {
        self.only(|request| request.user == user)
    }

    /// Only the requests to this API group, such as `rehome.dev`.
    #[must_use]
    pub fn to_group(&self, group: &str) -> Self {
        self.only(|request| request.group == group)
    }

    /// Only the requests in this namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        self.only(|request| request.namespace == namespace)
    }

    /// Only the requests that change something.
    #[must_use]
    pub fn writes(&self) -> Self {
        self.only(|request| !["get", "list", "watch"].contains(&request.verb.as_str()))
    }

    /// Only the requests that `keep` holds for.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Request) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|request| keep(request))
                .cloned()
                .collect(),
        )
    }

    /// How many requests have this verb and resource; the resource may name a subresource, as in
    /// `deviceregistrations/status`.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.0
            .iter()
            .filter(|r| r.verb == verb && r.target() == resource)
            .count()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Request {
    /// The resource with its subresource, or the path of what is no resource.
    pub fn target(&self) -> String {
        match (self.resource.as_str(), self.subresource.as_str()) {
            ("", _) => self.uri.split('?').next().unwrap_or_default().to_owned(),
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        }
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::<_, usize>::new();
        for request in &self.0 {
            *counts
                .entry((&request.user, request.target(), &request.verb))
                .or_default() += 1;
        }
        for ((user, target, verb), count) in counts {
            writeln!(f, "{count:>7}  {verb:<16} {target:<40} {user}")?;
        }
        Ok(())
    }
}

/// The part of an audit event that is read; see "Auditing" in the Kubernetes documentation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(default, rename = "requestReceivedTimestamp")]
    received: Timestamp,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

const DECISION: &str = "authorization.k8s.io/decision";

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Event> for Request {
    fn from(event: Event) -> Self {
        let ObjectRef {
            api_group,
            resource,
            subresource,
            namespace,
            name,
        } = event.object_ref;
        Self {
            user: event.user.username,
            verb: event.verb,
            group: api_group,
            resource,
            subresource,
            namespace,
            name,
            uri: event.uri,
            code: event.response_status.code,
            forbidden: event
                .annotations
                .get(DECISION)
                .is_some_and(|decision| decision == "forbid"),
            received: event.received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH: &str = r#"{"auditID":"1","stage":"ResponseStarted","verb":"watch","requestURI":"/apis/rehome.dev/v1alpha1/iothubs?watch=1","user":{"username":"alice"},"objectRef":{"apiGroup":"rehome.dev","resource":"iothubs"},"responseStatus":{"code":200}}"#;
    const PATCH: &str = r#"{"auditID":"2","stage":"ResponseComplete","verb":"patch","requestURI":"/x","user":{"username":"bob"},"objectRef":{"apiGroup":"rehome.dev","resource":"iothubs","subresource":"status","namespace":"n","name":"west"},"responseStatus":{"code":409},"annotations":{"authorization.k8s.io/decision":"forbid"}}"#;

    #[test]
    fn a_watch_that_ends_is_one_request_and_a_half_line_is_none() {
        let end = WATCH.replace("Started", "Complete");
        let requests = Requests::parse(&format!("{WATCH}\n{PATCH}\n{end}\n{{\"aud")).unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests.count("watch", "iothubs"), 1);
        assert_eq!(requests.count("patch", "iothubs/status"), 1);
        assert_eq!(requests.writes().by("bob").in_namespace("n").0[0].code, 409);
        assert!(requests.0[1].forbidden && !requests.0[0].forbidden);
        assert!(requests.writes().by("alice").is_empty());
        assert!(requests.to_group("").is_empty());
    }

    #[test]
    fn a_line_that_is_no_event_is_an_error() {
        assert!(Requests::parse("{}\n").is_err());
    }

    #[test]
    fn the_table_counts_by_user_verb_and_target() {
        let table = Requests::parse(&format!("{PATCH}\n{}\n", PATCH.replace("\"2\"", "\"3\"")));
        let table = table.unwrap().to_string();
        assert_eq!(
            table.split_whitespace().collect::<Vec<_>>(),
            ["2", "patch", "iothubs/status", "bob"]
        );
    }
}
