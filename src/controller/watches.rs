//! The watches: they fill the stores and the indexes and wake the controllers that a change
//! concerns.
//!
//! Decides nothing about an object; only whom its change concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all, pending};
use futures::stream::{BoxStream, StreamExt};
use futures::{FutureExt, Stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt as _};

use super::context::{Context, Stores};
use super::directory::name_of;
use super::hub::managed::{SELECTOR, hub_of};
use crate::api::v1alpha1::{
    ATTESTATION_LABEL, ConditionType, DeviceRegistration, Enrollment, IoTHub,
    RESTORED_AT_ANNOTATION, claimed_id_scope, is_true,
};
use crate::cluster::watch::{Scope, Watched, watch};

/// Kinds that are watched with a store.
const KINDS: usize = 10;

/// All watches of the controller.
pub struct Watches {
    ctx: Arc<Context>,
    client: Client,
    scope: Scope,
    writers: Writers,
}

/// Where the watches write to.
pub(super) struct Writers {
    hubs: Writer<IoTHub>,
    enrollments: Writer<Enrollment>,
    registrations: Writer<DeviceRegistration>,
    secrets: Writer<Secret>,
    namespaces: Writer<Namespace>,
    stateful_sets: Writer<StatefulSet>,
    services: Writer<Service>,
    network_policies: Writer<NetworkPolicy>,
    disruption_budgets: Writer<PodDisruptionBudget>,
    pods: Writer<Pod>,
}

/// What a watch shows of one object: the version before, if there was one, and the one now, if
/// there is one.
struct Change<K> {
    old: Option<Arc<K>>,
    new: Option<Arc<K>>,
    /// Part of the first list: every object is looked at anyway.
    is_initial: bool,
}

impl Writers {
    pub(super) fn new() -> (Stores, Self) {
        let (hubs, hub_writer) = reflector::store();
        let (enrollments, enrollment_writer) = reflector::store();
        let (registrations, registration_writer) = reflector::store();
        let (secrets, secret_writer) = reflector::store();
        let (namespaces, namespace_writer) = reflector::store();
        let (stateful_sets, stateful_set_writer) = reflector::store();
        let (services, service_writer) = reflector::store();
        let (network_policies, network_policy_writer) = reflector::store();
        let (disruption_budgets, disruption_budget_writer) = reflector::store();
        let (pods, pod_writer) = reflector::store();
        let stores = Stores {
            hubs,
            enrollments,
            registrations,
            secrets,
            namespaces,
            stateful_sets,
            services,
            network_policies,
            disruption_budgets,
            pods,
        };
        let writers = Self {
            hubs: hub_writer,
            enrollments: enrollment_writer,
            registrations: registration_writer,
            secrets: secret_writer,
            namespaces: namespace_writer,
            stateful_sets: stateful_set_writer,
            services: service_writer,
            network_policies: network_policy_writer,
            disruption_budgets: disruption_budget_writer,
            pods: pod_writer,
        };
        (stores, writers)
    }
}

impl Watches {
    pub(super) fn new(ctx: Arc<Context>, client: Client, scope: Scope, writers: Writers) -> Self {
        Self {
            ctx,
            client,
            scope,
            writers,
        }
    }

    /// Watches for ever.
    pub async fn run(self) {
        let Self {
            ctx,
            client,
            scope,
            writers,
        } = self;
        let any = Config::default();
        let labelled = Config::default().labels(&format!("{ATTESTATION_LABEL}=true"));
        let stores = ctx.stores.clone();
        let hubs = watch(scope.apis(&client), &any, stores.hubs.clone());
        let enrollments = watch(scope.apis(&client), &any, stores.enrollments.clone());
        let registrations = watch(scope.apis(&client), &any, stores.registrations.clone());
        let secrets = watch(scope.apis(&client), &labelled, stores.secrets.clone());
        let namespaces = namespaces(&scope, &client, &any, &ctx);
        let all = [
            pump(hubs, writers.hubs, ctx.clone(), hub_changed).boxed(),
            pump(
                enrollments,
                writers.enrollments,
                ctx.clone(),
                enrollment_changed,
            )
            .boxed(),
            pump(
                registrations,
                writers.registrations,
                ctx.clone(),
                registration_changed,
            )
            .boxed(),
            pump(secrets, writers.secrets, ctx.clone(), secret_changed).boxed(),
            pump(
                namespaces,
                writers.namespaces,
                ctx.clone(),
                namespace_changed,
            )
            .boxed(),
            other_secrets(&scope, &client, ctx.clone()).boxed(),
            parts(
                &scope,
                &client,
                &stores.stateful_sets,
                writers.stateful_sets,
                &ctx,
            ),
            parts(&scope, &client, &stores.services, writers.services, &ctx),
            parts(
                &scope,
                &client,
                &stores.network_policies,
                writers.network_policies,
                &ctx,
            ),
            parts(
                &scope,
                &client,
                &stores.disruption_budgets,
                writers.disruption_budgets,
                &ctx,
            ),
            parts(&scope, &client, &stores.pods, writers.pods, &ctx),
        ];
        join_all(all).await;
    }
}

impl Context {
    /// Waits until every watch has shown all there is, and the indexes know it.
    pub async fn synced(&self) {
        let mut kinds = self.synced.subscribe();
        // The sender is in `self`, so this does not fail.
        let _ = kinds.wait_for(|kinds| *kinds == KINDS).await;
    }

    /// Whether [`Self::synced`] would return at once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow() == KINDS
    }
}

/// Writes what a watch shows to its store, and tells whom it concerns.
async fn pump<K: Watched>(
    events: impl Stream<Item = Event<K>> + Send,
    mut writer: Writer<K>,
    ctx: Arc<Context>,
    concerns: impl Fn(&Context, &Change<K>) + Send,
) {
    let store = writer.as_reader();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let key = match &event {
            Event::Apply(object) | Event::Delete(object) => Some(ObjectRef::from_obj(object)),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let old = key.as_ref().and_then(|key| store.get(key));
        writer.apply_watcher_event(&event);
        if let Some(key) = key {
            let change = Change {
                old,
                new: store.get(&key),
                is_initial: false,
            };
            concerns(&ctx, &change);
        } else if matches!(event, Event::InitDone) {
            for object in store.state() {
                let change = Change {
                    old: None,
                    new: Some(object),
                    is_initial: true,
                };
                concerns(&ctx, &change);
            }
            ctx.synced.send_modify(|kinds| *kinds += 1);
        }
    }
}

/// An installation for some namespaces cannot read Namespaces: its store is ready and empty.
fn namespaces(
    scope: &Scope,
    client: &Client,
    config: &Config,
    ctx: &Context,
) -> BoxStream<'static, Event<Namespace>> {
    match scope {
        Scope::Cluster => {
            let api = Api::all(client.clone());
            watch(vec![(None, api)], config, ctx.stores.namespaces.clone())
        }
        Scope::Namespaces(_) => futures::stream::iter([Event::Init, Event::InitDone])
            .chain(pending::<Event<Namespace>>().into_stream())
            .boxed(),
    }
}

/// Objects of one kind that managed hubs consist of.
fn parts<K>(
    scope: &Scope,
    client: &Client,
    store: &Store<K>,
    writer: Writer<K>,
    ctx: &Arc<Context>,
) -> BoxFuture<'static, ()>
where
    K: Watched + Resource<Scope = NamespaceResourceScope>,
{
    let labelled = Config::default().labels(SELECTOR);
    let events = watch(scope.apis(client), &labelled, store.clone());
    pump(events, writer, ctx.clone(), part_changed).boxed()
}

/// Secrets of any kind, of which only the name is heard: hubs' credentials carry no label, and an
/// attestation Secret may have lost its own.
async fn other_secrets(scope: &Scope, client: &Client, ctx: Arc<Context>) {
    let watches = scope
        .apis::<Secret>(client)
        .into_iter()
        .map(|(namespace, _)| {
            let api: Api<PartialObjectMeta<Secret>> = match namespace {
                None => Api::all(client.clone()),
                Some(namespace) => Api::namespaced(client.clone(), &namespace),
            };
            let stream = watcher(api, Config::default().streaming_lists());
            stream.default_backoff().touched_objects().boxed()
        });
    let mut all = futures::stream::select_all(watches);
    while let Some(secret) = all.next().await {
        match secret {
            Ok(secret) => {
                let namespace = secret.namespace().unwrap_or_default();
                secret_touched(&ctx, &namespace, &secret.name_any());
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of Secrets failed; it is started again");
            }
        }
    }
}

fn hub_changed(ctx: &Context, change: &Change<IoTHub>) {
    let Some(hub) = change.any() else { return };
    let (namespace, name) = name_of(hub);
    if let Some(gone) = change.gone() {
        let uid = gone.uid().unwrap_or_default();
        ctx.directory.remove_hub(gone);
        ctx.hubs.forget(&uid);
        ctx.probes.forget(&uid);
        ctx.memory.forget(&uid);
        ctx.turns.forget(&name_of(gone));
        ctx.counters.forget(&uid);
    }
    if let Some(hub) = &change.new {
        ctx.directory.apply_hub(hub);
    }
    if change.is_spec_change() {
        ctx.triggers.hub(&namespace, &name);
        ctx.triggers.access(&namespace);
    }
    if change.is_initial {
        return;
    }
    if change.is_spec_change() {
        for enrollment in ctx.directory.enrollments_in(&namespace) {
            ctx.triggers.enrollment(&namespace, &enrollment);
        }
    }
    if change.comes_or_goes() {
        for other in ctx.directory.claimants_of_host(&hub.spec.host_name) {
            ctx.triggers.hub(&other.name.0, &other.name.1);
        }
    }
    let ready = |hub: &Arc<IoTHub>| {
        let status = hub.status.as_ref();
        status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
    };
    let became_ready =
        change.new.as_ref().is_some_and(ready) && !change.old.as_ref().is_some_and(ready);
    if became_ready || change.is_spec_change() {
        ctx.triggers
            .registrations(ctx.index.restless_in(&namespace));
    }
}

fn enrollment_changed(ctx: &Context, change: &Change<Enrollment>) {
    let Some(enrollment) = change.any() else {
        return;
    };
    let (namespace, name) = name_of(enrollment);
    let uid = enrollment.uid().unwrap_or_default();
    let before = ctx.directory.claimants_of_id(enrollment);
    if let Some(gone) = change.gone() {
        let uid = gone.uid().unwrap_or_default();
        ctx.directory.remove_enrollment(gone);
        ctx.index.forget_evaluation(&uid);
        ctx.counters.forget(&uid);
    }
    if let Some(enrollment) = &change.new {
        ctx.directory.apply_enrollment(enrollment);
    }
    if change.is_spec_change() {
        ctx.triggers.enrollment(&namespace, &name);
        ctx.triggers.access(&namespace);
        ctx.triggers
            .registrations(ctx.index.restless_of(&namespace, &uid));
    }
    if change.comes_or_goes() {
        let after = ctx.directory.claimants_of_id(enrollment);
        for other in before.into_iter().chain(after) {
            ctx.triggers.enrollment(&other.name.0, &other.name.1);
        }
    }
}

fn registration_changed(ctx: &Context, change: &Change<DeviceRegistration>) {
    let Some(registration) = change.any() else {
        return;
    };
    let object = ObjectRef::from_obj(registration);
    if let Some(gone) = change.gone() {
        let uid = gone.uid().unwrap_or_default();
        ctx.index.remove(gone);
        ctx.written.forget(&uid);
        ctx.home_checks.done(&uid);
        ctx.backoff.forget(&uid);
        ctx.departed.note(uid);
    }
    let Some(new) = &change.new else { return };
    ctx.index.apply(new);
    // A status that somebody else wrote needs no look: whoever wrote it goes on.
    if change.is_spec_change() || ctx.written.caught_up(new) {
        ctx.triggers.registration(object);
    }
}

fn secret_changed(ctx: &Context, change: &Change<Secret>) {
    let Some(secret) = change.any().filter(|_| !change.is_initial) else {
        return;
    };
    secret_touched(
        ctx,
        &secret.namespace().unwrap_or_default(),
        &secret.name_any(),
    );
}

/// A change of a part concerns the hub that it belonged to, and the one that it belongs to.
fn part_changed<K: Watched>(ctx: &Context, change: &Change<K>) {
    let both = [&change.old, &change.new].into_iter().flatten();
    let hubs: BTreeSet<_> = both
        .filter_map(|part| Some((part.namespace()?, hub_of(&**part)?.to_owned())))
        .collect();
    // At the start every hub is looked at anyway.
    for (namespace, name) in hubs.iter().filter(|_| !change.is_initial) {
        ctx.triggers.hub(namespace, name);
    }
}

fn secret_touched(ctx: &Context, namespace: &str, secret: &str) {
    for name in ctx.directory.hubs_of_secret(namespace, secret) {
        if let Some(hub) = ctx.hub(namespace, &name) {
            let uid = hub.uid().unwrap_or_default();
            ctx.probes.hurry(&uid);
            ctx.memory.touched(&uid);
        }
        ctx.triggers.hub(namespace, &name);
    }
    let enrollments = ctx.directory.enrollments_of_secret(namespace, secret);
    if enrollments.is_empty() {
        return;
    }
    ctx.triggers.access(namespace);
    for name in enrollments {
        ctx.triggers.enrollment(namespace, &name);
        if let Some(enrollment) = ctx.enrollment(namespace, &name) {
            let uid = enrollment.uid().unwrap_or_default();
            ctx.triggers
                .registrations(ctx.index.restless_of(namespace, &uid));
        }
    }
}

fn namespace_changed(ctx: &Context, change: &Change<Namespace>) {
    let Some(namespace) = change.any() else {
        return;
    };
    let name = namespace.name_any();
    let restored =
        |namespace: &Arc<Namespace>| namespace.annotations().get(RESTORED_AT_ANNOTATION).cloned();
    let restored_now = change.new.as_ref().and_then(restored);
    // At the start every registration is looked at anyway.
    if restored_now.is_some()
        && change.old.is_some()
        && restored_now != change.old.as_ref().and_then(restored)
    {
        let in_it = |registration: &DeviceRegistration| {
            registration.namespace().as_deref() == Some(name.as_str())
        };
        for registration in ctx.stores.registrations.state_filter(in_it) {
            ctx.triggers
                .registration(ObjectRef::from_obj(registration.as_ref()));
        }
    }
    if ctx.is_synced() {
        id_scopes_changed(ctx, change);
    }
    if namespace.metadata.deletion_timestamp.is_some() {
        ctx.triggers.registrations(ctx.index.restless_in(&name));
        ctx.triggers.access(&name);
    }
}

/// Who claims an ID scope that a namespace takes or leaves may get it now, or lose it.
fn id_scopes_changed(ctx: &Context, change: &Change<Namespace>) {
    let scope = |namespace: &Arc<Namespace>| claimed_id_scope(namespace);
    let (old, new) = (
        change.old.as_ref().map(scope),
        change.new.as_ref().map(scope),
    );
    if old == new && !change.comes_or_goes() {
        return;
    }
    let concerned = |namespace: &Namespace| {
        let claimed = Some(claimed_id_scope(namespace));
        claimed == old || claimed == new
    };
    for namespace in ctx.stores.namespaces.state_filter(concerned) {
        let namespace = namespace.name_any();
        for enrollment in ctx.directory.enrollments_in(&namespace) {
            ctx.triggers.enrollment(&namespace, &enrollment);
        }
    }
}

impl<K: Resource<DynamicType = ()>> Change<K> {
    /// The version now or, of an object that is gone, the last one.
    fn any(&self) -> Option<&K> {
        self.new.as_deref().or(self.old.as_deref())
    }

    /// The object that is not there any more, though another of its name may be.
    fn gone(&self) -> Option<&K> {
        self.old.as_deref().filter(|_| self.comes_or_goes())
    }

    /// Whether the object is new, gone, or another one of the same name.
    fn comes_or_goes(&self) -> bool {
        let uid = |object: &Option<Arc<K>>| object.as_ref().and_then(|object| object.uid());
        uid(&self.old) != uid(&self.new)
    }

    /// Whether anything but the status changed that a controller goes by.
    fn is_spec_change(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else {
            return true;
        };
        let (old, new) = (old.meta(), new.meta());
        self.comes_or_goes()
            || old.generation != new.generation
            || old.deletion_timestamp != new.deletion_timestamp
            || old.finalizers != new.finalizers
            || old.labels != new.labels
    }
}
