//! Events (`events.k8s.io`) about our objects: what `kubectl describe` shows.
//!
//! Only for transitions: an event is a write. Publishing never delays or fails a reconcile; when
//! the API server cannot take them, events are dropped and counted in the log. (kube's `Recorder`
//! scans all events of the last minutes under one lock at each publish, which is quadratic when a
//! fleet moves.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::runtime::events::EventType;
use kube::{Client, Resource};
use tokio::sync::mpsc;

use super::apply::bounded;
use crate::api::v1alpha1::Reason;
use crate::clock::Clock;

/// Events that may wait to be written.
const QUEUE: usize = 4096;
/// Most bytes of a note that the API server takes.
const LONGEST_NOTE: usize = 1024;

/// Publishes events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    clock: Arc<dyn Clock>,
    instance: Arc<str>,
    sequence: Arc<AtomicU64>,
}

impl Events {
    /// Events of the process `instance` (a pod's name), and the task that writes them.
    pub fn new(
        client: Client,
        clock: Arc<dyn Clock>,
        instance: &str,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, mut waiting) = mpsc::channel::<Event>(QUEUE);
        let writer = async move {
            while let Some(event) = waiting.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                if let Err(error) = bounded(api.create(&PostParams::default(), &event)).await {
                    let reason = event.reason.unwrap_or_default();
                    tracing::warn!(%error, reason, "an event could not be written; it is dropped");
                }
            }
        };
        let events = Self {
            queue,
            clock,
            instance: instance.into(),
            sequence: Arc::default(),
        };
        (events, writer)
    }

    /// Publishes an event about `object`: a `Warning` when a person should act, and the note says
    /// how.
    pub fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: Reason,
        note: &str,
    ) {
        let event = self.event(object.object_ref(&()), type_, reason, note);
        if self.queue.try_send(event).is_err() {
            tracing::warn!(%reason, "too many events wait to be written; one is dropped");
        }
    }

    /// Warns that something of a device may be left at a hub.
    pub fn warn_left_behind<K: Resource<DynamicType = ()>>(&self, object: &K, note: &str) {
        self.publish(object, EventType::Warning, Reason::LeftBehind, note);
    }

    fn event(
        &self,
        regarding: ObjectReference,
        type_: EventType,
        reason: Reason,
        note: &str,
    ) -> Event {
        let now = self.clock.now();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let object = regarding.name.as_deref().unwrap_or("object");
        // The clock alone may give two events one name: it may step, and it may be coarse.
        let name = format!("{object}.{:x}.{sequence:x}", now.as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reason: Some(reason.as_str().to_owned()),
            action: Some("Reconcile".to_owned()),
            note: Some(note.chars().take(LONGEST_NOTE / 4).collect()),
            type_: Some(
                match type_ {
                    EventType::Normal => "Normal",
                    EventType::Warning => "Warning",
                }
                .to_owned(),
            ),
            regarding: Some(regarding),
            reporting_controller: Some("rehome.dev/controller".to_owned()),
            reporting_instance: Some(self.instance.to_string()),
            ..Event::default()
        }
    }
}
