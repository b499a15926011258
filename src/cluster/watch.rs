//! Watches: every object of a kind in the namespaces that we serve, as one gapless stream.
//!
//! Several namespaces are several watches. They are merged so that a consumer sees one initial
//! list and after it only changes: a watch that starts over becomes the changes that it missed,
//! deletions included.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as start};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

/// The namespaces that an installation serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// These.
    Namespaces(Vec<String>),
}

/// What can be watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl Scope {
    /// `Cluster` when no namespace is named.
    pub fn of(namespaces: Vec<String>) -> Self {
        if namespaces.is_empty() {
            Self::Cluster
        } else {
            Self::Namespaces(namespaces)
        }
    }

    /// The APIs that together cover the scope, each with its namespace.
    pub fn apis<K>(&self, client: &Client) -> Vec<(Option<String>, Api<K>)>
    where
        K: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => vec![(None, Api::all(client.clone()))],
            Self::Namespaces(names) => names
                .iter()
                .map(|name| (Some(name.clone()), Api::namespaced(client.clone(), name)))
                .collect(),
        }
    }
}

/// Watches a kind through the APIs that cover it. Yields `Init`, every object as `InitApply` and `InitDone` once, and only
/// `Apply` and `Delete` after that; `store` must be the one that these events are written to.
///
/// Failing watches are retried with a backoff for ever and logged; nothing is lost meanwhile.
pub fn watch<K: Watched>(
    parts: Vec<(Option<String>, Api<K>)>,
    config: &Config,
    store: Store<K>,
) -> BoxStream<'static, Event<K>> {
    let merge = Merge::new(parts.iter().map(|(name, _)| name.clone()).collect(), store);
    let streams = parts.into_iter().enumerate().map(|(part, (_, api))| {
        start(api, config.clone().streaming_lists())
            .default_backoff()
            .modify(|object| object.managed_fields_mut().clear())
            .filter_map(move |event| async move { logged(event).map(|event| (part, event)) })
            .boxed()
    });
    let all: SelectAll<_> = streams.collect();
    all.scan(merge, |merge, (part, event)| {
        let events = merge.feed(part, event);
        async move { Some(stream::iter(events)) }
    })
    .flatten()
    .boxed()
}

fn logged<K: Watched>(event: watcher::Result<Event<K>>) -> Option<Event<K>> {
    event
        .inspect_err(|error| {
            tracing::warn!(kind = %K::kind(&()), %error, "a watch failed; it is started again");
        })
        .ok()
}

/// Makes one history of several.
struct Merge<K: Watched> {
    namespaces: Vec<Option<String>>,
    store: Store<K>,
    /// Everything seen, by part, until every part has listed once.
    first_lists: Option<FirstLists<K>>,
    /// Parts that are listing again, and what they have listed so far.
    lists: HashMap<usize, HashSet<ObjectRef<K>>>,
}

struct FirstLists<K: Watched> {
    objects: Vec<HashMap<ObjectRef<K>, K>>,
    done: Vec<bool>,
}

impl<K: Watched> Merge<K> {
    fn new(namespaces: Vec<Option<String>>, store: Store<K>) -> Self {
        let parts = namespaces.len();
        Self {
            namespaces,
            store,
            first_lists: Some(FirstLists {
                objects: (0..parts).map(|_| HashMap::new()).collect(),
                done: vec![false; parts],
            }),
            lists: HashMap::new(),
        }
    }

    fn feed(&mut self, part: usize, event: Event<K>) -> Vec<Event<K>> {
        match self.first_lists.take() {
            Some(mut lists) => {
                lists.feed(part, event);
                if lists.done.iter().all(|done| *done) {
                    return lists.into_events();
                }
                self.first_lists = Some(lists);
                Vec::new()
            }
            None => self.feed_later(part, event),
        }
    }

    fn feed_later(&mut self, part: usize, event: Event<K>) -> Vec<Event<K>> {
        match event {
            Event::Apply(_) | Event::Delete(_) => vec![event],
            Event::Init => {
                self.lists.insert(part, HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = ObjectRef::from_obj(&object);
                let known = self.store.get(&key);
                let same = |known: Arc<K>| {
                    known.uid() == object.uid()
                        && known.resource_version() == object.resource_version()
                };
                let is_known = known.is_some_and(same);
                self.lists.entry(part).or_default().insert(key);
                if is_known {
                    Vec::new()
                } else {
                    vec![Event::Apply(object)]
                }
            }
            Event::InitDone => {
                let listed = self.lists.remove(&part).unwrap_or_default();
                let namespace = self.namespaces[part].clone();
                let vanished = self.store.state_filter(|object| {
                    (namespace.is_none() || object.namespace() == namespace)
                        && !listed.contains(&ObjectRef::from_obj(object))
                });
                let deletion = |object: Arc<K>| Event::Delete(Arc::unwrap_or_clone(object));
                vanished.into_iter().map(deletion).collect()
            }
        }
    }
}

impl<K: Watched> FirstLists<K> {
    fn feed(&mut self, part: usize, event: Event<K>) {
        let objects = &mut self.objects[part];
        match event {
            Event::Init => objects.clear(),
            Event::Apply(object) | Event::InitApply(object) => {
                objects.insert(ObjectRef::from_obj(&object), object);
            }
            Event::Delete(object) => {
                objects.remove(&ObjectRef::from_obj(&object));
            }
            Event::InitDone => self.done[part] = true,
        }
    }

    fn into_events(self) -> Vec<Event<K>> {
        let objects = self.objects.into_iter().flat_map(HashMap::into_values);
        std::iter::once(Event::Init)
            .chain(objects.map(Event::InitApply))
            .chain(std::iter::once(Event::InitDone))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector;

    use super::*;

    fn object(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    /// Feeds two namespaces' events, writes what comes out to the store, and returns it.
    struct World {
        merge: Merge<ConfigMap>,
        writer: reflector::store::Writer<ConfigMap>,
    }

    impl World {
        fn new() -> Self {
            let (store, writer) = reflector::store();
            let merge = Merge::new(vec![Some("a".into()), Some("b".into())], store);
            Self { merge, writer }
        }

        fn feed(&mut self, part: usize, event: Event<ConfigMap>) -> Vec<String> {
            let events = self.merge.feed(part, event);
            for event in &events {
                self.writer.apply_watcher_event(event);
            }
            events.iter().map(show).collect()
        }

        fn listed() -> Self {
            let mut world = Self::new();
            for part in [0, 1] {
                world.feed(part, Event::Init);
                let namespace = ["a", "b"][part];
                world.feed(part, Event::InitApply(object(namespace, "one", "1")));
                world.feed(part, Event::InitApply(object(namespace, "two", "2")));
                world.feed(part, Event::InitDone);
            }
            world
        }
    }

    fn show(event: &Event<ConfigMap>) -> String {
        let name =
            |object: &ConfigMap| format!("{}/{}", object.namespace().unwrap(), object.name_any());
        match event {
            Event::Apply(object) => format!("apply {}", name(object)),
            Event::Delete(object) => format!("delete {}", name(object)),
            Event::Init => "init".into(),
            Event::InitApply(object) => format!("init {}", name(object)),
            Event::InitDone => "done".into(),
        }
    }

    #[test]
    fn nothing_comes_out_before_every_namespace_has_listed() {
        let mut world = World::new();
        for part in [0, 1] {
            assert!(world.feed(part, Event::Init).is_empty());
        }
        assert!(
            world
                .feed(0, Event::InitApply(object("a", "one", "1")))
                .is_empty()
        );
        assert!(world.feed(0, Event::InitDone).is_empty());
        assert!(
            world
                .feed(0, Event::Delete(object("a", "one", "2")))
                .is_empty()
        );
        assert!(
            world
                .feed(0, Event::Apply(object("a", "two", "3")))
                .is_empty()
        );
        let all = world.feed(1, Event::InitDone);
        assert_eq!(all, ["init", "init a/two", "done"]);
    }

    #[test]
    fn a_watch_that_starts_over_shows_only_what_it_missed() {
        let mut world = World::listed();
        assert!(world.feed(0, Event::Init).is_empty());
        assert!(
            world
                .feed(0, Event::InitApply(object("a", "one", "1")))
                .is_empty()
        );
        let new = world.feed(0, Event::InitApply(object("a", "three", "5")));
        assert_eq!(new, ["apply a/three"]);
        assert_eq!(world.feed(0, Event::InitDone), ["delete a/two"]);
        assert_eq!(
            world.feed(1, Event::Apply(object("b", "one", "6"))),
            ["apply b/one"]
        );
    }
}
