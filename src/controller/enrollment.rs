//! `Enrollment`: can devices register with it, and how many have?
//!
//! Validates what only other objects can tell, counts, and deletes the registrations of an
//! Enrollment that says so. Moves no device: an edit takes effect at a device's next request.

mod attestation;
mod id_scope;

use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Preconditions};
use kube::core::Selector;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::instrument;

use super::context::Context;
use super::index::Evaluation;
use super::status::{Error, Verdict};
use crate::api::v1alpha1::{
    ConditionType, DeletionPolicy, DeviceRegistration, Enrollment, EnrollmentStatus, Reason, settle,
};
use crate::cluster::apply::{Class, apply_status, bounded};
use crate::cluster::finalizer;
use crate::domain::allocation::Pool;
use crate::domain::twin_limits::{self, InvalidTwin};

/// Registrations that one pass deletes.
const BATCH: usize = 64;
/// Between passes over an Enrollment whose registrations are going.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks at one Enrollment.
#[instrument(level = "error", skip_all, fields(enrollment = %enrollment.name_any(), namespace = enrollment.namespace()))]
pub async fn reconcile(enrollment: Arc<Enrollment>, ctx: Arc<Context>) -> Result<Action, Error> {
    let namespace = enrollment.namespace().unwrap_or_default();
    let name = enrollment.name_any();
    let api: Api<Enrollment> = Api::namespaced(ctx.client.clone(), &namespace);
    let deletes = enrollment.spec.deletion_policy == Some(DeletionPolicy::Delete);
    if enrollment.meta().deletion_timestamp.is_some() {
        if deletes && delete_registrations(&enrollment, &ctx, &namespace).await? {
            return Ok(Action::requeue(AGAIN));
        }
        let released = finalizer::remove(&api, &*enrollment).await;
        released.map_err(|error| Error::new("removing the finalizer", &name, error))?;
        return Ok(Action::await_change());
    }
    if deletes != finalizer::is_set(&*enrollment) {
        let written = if deletes {
            finalizer::add(&api, &*enrollment).await
        } else {
            finalizer::remove(&api, &*enrollment).await
        };
        written.map_err(|error| Error::new("writing the finalizer", &name, error))?;
        return Ok(Action::await_change());
    }
    let verdict = match problem(&enrollment, &ctx, &namespace).await? {
        Some(problem) => problem,
        None => Verdict::yes(Reason::Settled, "devices can register"),
    };
    evaluate(&enrollment, &ctx, &namespace);
    report(&api, &enrollment, &ctx, &verdict).await?;
    ctx.backoff.forget(&enrollment.uid().unwrap_or_default());
    Ok(Action::await_change())
}

/// Deletes some of the registrations; `false` when none is left.
async fn delete_registrations(
    enrollment: &Enrollment,
    ctx: &Context,
    namespace: &str,
) -> Result<bool, Error> {
    let api: Api<DeviceRegistration> = Api::namespaced(ctx.client.clone(), namespace);
    let members = ctx.index.members(&enrollment.uid().unwrap_or_default());
    let stored = |object: &ObjectRef<DeviceRegistration>| ctx.stores.registrations.get(object);
    let is_kept =
        |registration: &Arc<DeviceRegistration>| registration.meta().deletion_timestamp.is_none();
    for registration in members
        .iter()
        .filter_map(stored)
        .filter(is_kept)
        .take(BATCH)
    {
        // Only this very object: a device may have registered again elsewhere meanwhile.
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: registration.uid(),
                resource_version: registration.resource_version(),
            }),
            ..DeleteParams::default()
        };
        let name = registration.name_any();
        match bounded(api.delete(&name, &params)).await {
            Ok(_) => {}
            Err(error) if matches!(error.class(), Class::Gone | Class::Conflict) => {}
            Err(error) => return Err(Error::new("deleting the registration", &name, error)),
        }
    }
    Ok(!members.is_empty())
}

/// The first thing that keeps devices from registering or being placed.
async fn problem(
    enrollment: &Enrollment,
    ctx: &Context,
    namespace: &str,
) -> Result<Option<Verdict>, Error> {
    let outside = id_scope::problem(ctx, namespace).or_else(|| conflict(enrollment, ctx));
    if outside.is_some() {
        return Ok(outside);
    }
    if let Some(problem) = attestation::problem(enrollment, ctx, namespace).await? {
        return Ok(Some(problem));
    }
    Ok(hubs(enrollment, ctx, namespace).or_else(|| initial_twin(enrollment)))
}

/// Of two individual Enrollments for one registration id the older counts.
fn conflict(enrollment: &Enrollment, ctx: &Context) -> Option<Verdict> {
    let claimants = ctx.directory.claimants_of_id(enrollment);
    let first = claimants.first()?;
    (enrollment.uid().as_ref() != Some(&first.uid)).then(|| {
        let name = &first.name.1;
        Verdict::no(
            Reason::Conflict,
            format!(
                "Enrollment {name} is older and for the same registration id (case does not \
                 count); it decides, and this one is ignored: delete one of them"
            ),
        )
    })
}

fn hubs(enrollment: &Enrollment, ctx: &Context, namespace: &str) -> Option<Verdict> {
    let allocation = enrollment.spec.allocation.as_ref()?;
    if let Some(Err(error)) = allocation.hub_selector.clone().map(Selector::try_from) {
        let message = format!("allocation.hubSelector cannot be read: {error}");
        return Some(Verdict::no(Reason::SelectorInvalid, message));
    }
    let named = allocation.hubs.iter().flatten();
    let missing: Vec<_> = named
        .filter(|name| ctx.hub(namespace, name).is_none())
        .collect();
    let first = missing.first()?;
    let others = match missing.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    let message = format!(
        "IoTHub {first}{others} in allocation.hubs does not exist in this namespace; create it or \
         take it off the list"
    );
    Some(Verdict::no(Reason::HubNotFound, message))
}

fn initial_twin(enrollment: &Enrollment) -> Option<Verdict> {
    let twin = enrollment.spec.initial_twin.as_ref()?;
    let tags = twin.tags.as_ref().map(|tags| {
        twin_limits::check("tags", tags)?;
        twin_limits::check_growth("tags", 0, tags, twin_limits::TAGS_BYTES)
    });
    let desired = twin
        .properties
        .as_ref()
        .and_then(|properties| properties.desired.as_ref());
    let desired = desired.map(|desired| {
        let section = "properties.desired";
        twin_limits::check(section, desired)?;
        twin_limits::check_growth(section, 0, desired, twin_limits::PROPERTIES_BYTES)
    });
    let broken = tags.into_iter().chain(desired).find_map(Result::err);
    broken.map(|InvalidTwin(why)| {
        let message = format!("no hub takes this initialTwin: {why}");
        Verdict::no(Reason::InitialTwinInvalid, message)
    })
}

/// Which registrations would move at their next request. Hubs that blink change nothing here: a
/// hub counts as able to take devices unless its spec says otherwise.
fn evaluate(enrollment: &Enrollment, ctx: &Context, namespace: &str) {
    let hubs = ctx.hubs(namespace);
    let allocation = enrollment.spec.allocation.as_ref();
    let mut pool = Pool::of(allocation, hubs.iter().map(AsRef::as_ref));
    for member in &mut pool.members {
        let hub = hubs
            .iter()
            .find(|hub| hub.uid().as_ref() == Some(&member.hub.uid));
        member.available = hub
            .is_some_and(|hub| !hub.spec.is_cordoned() && hub.meta().deletion_timestamp.is_none());
    }
    let evaluation = Evaluation {
        pool,
        policy: enrollment.spec.reprovision_policy,
    };
    ctx.index
        .evaluate(&enrollment.uid().unwrap_or_default(), evaluation);
}

/// Writes the status if it says something new.
async fn report(
    api: &Api<Enrollment>,
    enrollment: &Enrollment,
    ctx: &Context,
    ready: &Verdict,
) -> Result<(), Error> {
    let old = enrollment.status.clone().unwrap_or_default();
    let uid = enrollment.uid().unwrap_or_default();
    let generation = enrollment.meta().generation;
    let (registrations, hubs) = ctx.counters.enrollment(ctx, &uid);
    let mut status = EnrollmentStatus {
        observed_generation: generation,
        registrations: Some(registrations),
        hubs,
        certificates: attestation::certificates(enrollment),
        conditions: old.conditions.clone(),
    };
    let condition = ready.condition(ConditionType::Ready, generation, ctx.clock.now());
    let before = old
        .conditions
        .iter()
        .find(|known| known.type_ == condition.type_);
    let is_news = before.is_none_or(|before| {
        (&before.status, &before.reason) != (&condition.status, &condition.reason)
    });
    settle(&mut status.conditions, condition);
    if status == old {
        return Ok(());
    }
    let seen = enrollment.resource_version().unwrap_or_default();
    let name = enrollment.name_any();
    let written = apply_status(api, &name, &seen, &status).await;
    written.map_err(|error| Error::new("writing the status", &name, error))?;
    let uid = enrollment.uid().unwrap_or_default();
    ctx.counters.enrollment_written(ctx, &uid);
    if is_news {
        ctx.metrics.decided(ready.reason);
        // A new Enrollment that is fine is no news.
        if ready.holds != Some(true) {
            tracing::warn!(reason = %ready.reason, "{}", ready.message);
            ctx.events
                .publish(enrollment, EventType::Warning, ready.reason, &ready.message);
        }
    }
    Ok(())
}
