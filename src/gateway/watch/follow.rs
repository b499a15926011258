//! List, then watch, for ever: one kind into one sink.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::Pulse;

/// Seconds after which the server ends a watch. It bookmarks shortly before, so that a healthy
/// watch is never silent for long.
const WATCH_SECONDS: u32 = 45;
/// Longest silence on a stream before it counts as broken.
const STREAM_SILENCE: Duration = Duration::from_secs(55);
/// Longest time for one page of a list, or for a watch to begin.
const CALL: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Takes what is watched.
pub trait Sink<K>: Send {
    /// What is kept of one object.
    type Item: Send;

    /// Keeps what is needed of an object; `None` when it is none of our business.
    fn keep(&self, object: K) -> Option<Self::Item>;

    /// The complete state.
    fn replace(&self, all: Vec<Self::Item>);

    /// An object is new or changed.
    fn apply(&self, object: K);

    /// An object is gone.
    fn remove(&self, object: K);

    /// We may not look (any more).
    fn forbidden(&self) {}
}

/// Why a watch has to begin anew.
enum Broken {
    /// The server has forgotten our version: list again.
    Expired,
    /// Anything else, for the log.
    Trouble(String),
    /// The server does not let us; asking often does not help.
    Forbidden(String),
}

/// Follows one kind until dropped. The objects are guarded, so that one that cannot be read does not
/// hide the others; `name` limits it to the object of that name.
pub async fn follow<K, S>(
    api: Api<DeserializeGuard<K>>,
    sink: S,
    name: Option<String>,
    pulse: Arc<Pulse>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    S: Sink<K>,
{
    let field = name.map(|name| format!("metadata.name={name}"));
    let mut delay = BACKOFF.0;
    loop {
        let broken = match list(&api, &sink, field.as_deref()).await {
            Ok(version) => {
                pulse.beat();
                delay = BACKOFF.0;
                watch(&api, &sink, field.as_deref(), version, &pulse).await
            }
            Err(broken) => broken,
        };
        match broken {
            Broken::Expired => continue,
            // Once is worth a line; what follows is the same trouble.
            Broken::Trouble(cause) if delay == BACKOFF.0 => {
                tracing::warn!(
                    what = pulse.what(),
                    cause,
                    "the watch is broken; listing again"
                );
            }
            Broken::Trouble(cause) => {
                tracing::debug!(what = pulse.what(), cause, "the watch is still broken");
            }
            Broken::Forbidden(cause) => {
                tracing::debug!(what = pulse.what(), cause, "not allowed to watch (yet)");
                sink.forbidden();
            }
        }
        sleep(delay).await;
        delay = (delay * 2).min(BACKOFF.1);
    }
}

async fn list<K, S>(
    api: &Api<DeserializeGuard<K>>,
    sink: &S,
    field: Option<&str>,
) -> Result<String, Broken>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    S: Sink<K>,
{
    let mut params = ListParams {
        limit: Some(PAGE),
        ..ListParams::default()
    };
    params.field_selector = field.map(str::to_owned);
    let mut kept = Vec::new();
    loop {
        let page = call(api.list(&params)).await?;
        kept.extend(
            page.items
                .into_iter()
                .filter_map(usable)
                .filter_map(|it| sink.keep(it)),
        );
        let rest = page.metadata.continue_.filter(|token| !token.is_empty());
        params.continue_token = rest;
        if params.continue_token.is_none() {
            sink.replace(kept);
            return Ok(page.metadata.resource_version.unwrap_or_default());
        }
    }
}

async fn watch<K, S>(
    api: &Api<DeserializeGuard<K>>,
    sink: &S,
    field: Option<&str>,
    mut version: String,
    pulse: &Pulse,
) -> Broken
where
    K: Resource + Clone + DeserializeOwned + Debug + 'static,
    S: Sink<K>,
{
    let params = WatchParams {
        field_selector: field.map(str::to_owned),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        ..WatchParams::default()
    };
    loop {
        let stream = match call(api.watch(&params, &version)).await {
            Ok(stream) => stream,
            Err(broken) => return broken,
        };
        pulse.beat();
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = match timeout(STREAM_SILENCE, stream.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return Broken::Trouble(error.to_string()),
                // The server ended the watch in good order: go on where it ended.
                Ok(None) => break,
                Err(_) => return Broken::Trouble("nothing arrives".to_owned()),
            };
            pulse.beat();
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.resource_version().unwrap_or(version);
                    if let Some(object) = usable(object) {
                        sink.apply(object);
                    }
                }
                WatchEvent::Deleted(object) => {
                    version = object.resource_version().unwrap_or(version);
                    if let Some(object) = usable(object) {
                        sink.remove(object);
                    }
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == 410 => return Broken::Expired,
                WatchEvent::Error(status) => return Broken::Trouble(status.message),
            }
        }
    }
}

fn usable<K: Resource>(object: DeserializeGuard<K>) -> Option<K> {
    match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let name = invalid.metadata.name.unwrap_or_default();
            tracing::warn!(
                name,
                error = invalid.error,
                "an object cannot be read; it is ignored"
            );
            None
        }
    }
}

async fn call<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Broken> {
    match timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            410 => Broken::Expired,
            403 => Broken::Forbidden(status.message),
            _ => Broken::Trouble(status.message),
        }),
        Ok(Err(error)) => Err(Broken::Trouble(error.to_string())),
        Err(_) => Err(Broken::Trouble("the API server does not answer".to_owned())),
    }
}
