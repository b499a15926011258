//! How a change of one object wakes the controllers of others.

use futures::Stream;
use futures::stream::unfold;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::api::v1alpha1::{DeviceRegistration, Enrollment, IoTHub};

/// Wakes controllers. What waits in a queue is at most one entry per change of an object; the
/// controllers take entries out at once and merge those for one object.
#[derive(Clone)]
pub struct Triggers {
    hubs: UnboundedSender<ObjectRef<IoTHub>>,
    enrollments: UnboundedSender<ObjectRef<Enrollment>>,
    registrations: UnboundedSender<ObjectRef<DeviceRegistration>>,
    access: UnboundedSender<String>,
}

/// The other ends.
pub struct Queues {
    /// Hubs to look at.
    pub hubs: UnboundedReceiver<ObjectRef<IoTHub>>,
    /// Enrollments to look at.
    pub enrollments: UnboundedReceiver<ObjectRef<Enrollment>>,
    /// Registrations to look at.
    pub registrations: UnboundedReceiver<ObjectRef<DeviceRegistration>>,
    /// Namespaces whose grants to the gateway to look at.
    pub access: UnboundedReceiver<String>,
}

impl Triggers {
    /// Triggers and the queues that they fill. Queues that are dropped are not filled.
    pub fn new() -> (Self, Queues) {
        let (hubs, hub_queue) = unbounded_channel();
        let (enrollments, enrollment_queue) = unbounded_channel();
        let (registrations, registration_queue) = unbounded_channel();
        let (access, access_queue) = unbounded_channel();
        let triggers = Self {
            hubs,
            enrollments,
            registrations,
            access,
        };
        let queues = Queues {
            hubs: hub_queue,
            enrollments: enrollment_queue,
            registrations: registration_queue,
            access: access_queue,
        };
        (triggers, queues)
    }

    /// Wakes the controller of a hub.
    pub fn hub(&self, namespace: &str, name: &str) {
        // Nobody listens any more when the process ends.
        let _ = self.hubs.send(ObjectRef::new(name).within(namespace));
    }

    /// Wakes the controller of an Enrollment.
    pub fn enrollment(&self, namespace: &str, name: &str) {
        let _ = self
            .enrollments
            .send(ObjectRef::new(name).within(namespace));
    }

    /// Wakes the controller of a registration.
    pub fn registration(&self, object: ObjectRef<DeviceRegistration>) {
        let _ = self.registrations.send(object);
    }

    /// Wakes the controllers of registrations.
    pub fn registrations(&self, objects: Vec<ObjectRef<DeviceRegistration>>) {
        for object in objects {
            self.registration(object);
        }
    }

    /// Has the gateway's grants in a namespace looked at.
    pub fn access(&self, namespace: &str) {
        let _ = self.access.send(namespace.to_owned());
    }
}

/// A queue as a stream.
pub fn stream<T: Send + 'static>(queue: UnboundedReceiver<T>) -> impl Stream<Item = T> + Send {
    unfold(queue, |mut queue| async move {
        let next = queue.recv().await?;
        Some((next, queue))
    })
}
