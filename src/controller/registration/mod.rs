//! `DeviceRegistration`: observe → decide → apply one effect → report, until settled.
//!
//! Decisions are taken in `domain::transfer`. Here is what surrounds them: reading, doing, writing.
//! A pass may be dropped at any await: the next one chooses the same step again.

mod apply;
mod ledger;
mod mutants;
mod observe;
mod report;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::field::Empty;
use tracing::instrument;

pub use ledger::Ledger;

use super::context::Context;
use crate::api::v1alpha1::{DeviceRegistration, DeviceRegistrationStatus};
use crate::cluster::apply::{ApplyError, Class, bounded};
use crate::cluster::finalizer;
use crate::domain::transfer::{self, EnrollmentFacts, Facts, Step, Surroundings, Views};

/// Steps of one pass; a registration that needs more goes to the end of the queue.
const STEPS: usize = 48;
/// Pause before an object that changed under our hands is looked at again.
const AGAIN: Duration = Duration::from_millis(50);

/// A pass that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do what it was asked.
    #[error("the registration could not be read or written")]
    Cluster(#[from] ApplyError),
}

impl Error {
    /// What follows from it.
    pub fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
        }
    }
}

/// Carries one registration as far as it goes now. The span is at the highest level, so that log lines
/// say whose they are whatever is logged.
#[instrument(level = "error", skip_all, fields(
    registration = %object.name_any(), namespace = object.namespace(),
    operation = Empty, transfer = Empty, otel.kind = Empty,
))]
pub async fn reconcile(
    object: Arc<DeviceRegistration>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    if ctx.written.is_stale(&object) {
        // Our own write is still on its way through the watch, and will wake us.
        return Ok(Action::await_change());
    }
    let mut pass = Pass::new(object, ctx);
    for _ in 0..STEPS {
        match pass.decide() {
            Step::Look(look) => pass.look(&look).await,
            Step::Effect(effect) => pass.apply(&effect).await?,
            Step::Record(record) => pass.record(*record).await?,
            Step::Release { warning } => return pass.release(warning).await,
            Step::Wait(wait) => return pass.wait(&wait).await,
            Step::Settled => return pass.settled().await,
        }
    }
    Ok(Action::requeue(AGAIN))
}

/// When to come back after a pass failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that the controller runtime asks for"
)]
pub fn on_error(object: Arc<DeviceRegistration>, error: &Error, ctx: Arc<Context>) -> Action {
    let class = error.class();
    ctx.metrics.failed("registration", class.as_str());
    match class {
        Class::Gone => Action::await_change(),
        Class::Conflict => Action::requeue(AGAIN),
        Class::Transient | Class::Throttled | Class::Invalid => {
            tracing::warn!(registration = %object.name_any(), error = error as &dyn std::error::Error, "will try again");
            Action::requeue(ctx.backoff.next(&object.uid().unwrap_or_default()))
        }
    }
}

/// One pass over one registration.
struct Pass {
    ctx: Arc<Context>,
    api: Api<DeviceRegistration>,
    object: Arc<DeviceRegistration>,
    uid: String,
    name: String,
    namespace: String,
    views: Views,
    /// Looked at once per version of the object.
    enrollment: EnrollmentFacts,
}

impl Pass {
    fn new(object: Arc<DeviceRegistration>, ctx: Arc<Context>) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let mut pass = Self {
            api: Api::namespaced(ctx.client.clone(), &namespace),
            uid: object.uid().unwrap_or_default(),
            name: object.name_any(),
            namespace,
            views: Views::default(),
            enrollment: EnrollmentFacts::Missing,
            ctx,
            object,
        };
        pass.enrollment = pass.enrollment_facts();
        subject::trace(&pass.object);
        subject::label(&pass.object, None);
        pass
    }

    fn decide(&self) -> Step {
        let restored = self.restored_at();
        let checked = self
            .status()
            .home_checked_at
            .as_ref()
            .map(|checked| checked.0);
        let unchecked =
            restored.is_some_and(|restored| checked.is_none_or(|checked| checked < restored));
        let deleting = self.object.meta().deletion_timestamp.is_some();
        let fresh_id = self.ctx.fresh_id();
        transfer::decide(&Facts {
            uid: &self.uid,
            spec: &self.object.spec,
            status: self.status(),
            deleting,
            letting_go: deleting && self.is_namespace_going(),
            enrollment: self.enrollment.clone(),
            hubs: self.hub_facts(),
            views: &self.views,
            surroundings: self,
            check_home: unchecked || self.ctx.home_checks.is_wanted(&self.uid),
            look_everywhere: unchecked,
            now: self.ctx.clock.now(),
            fresh_id: &fresh_id,
            patience: self.ctx.patience,
            call_life: self.ctx.call_life().try_into().unwrap_or_default(),
            #[cfg(feature = "mutants")]
            mutant: self.ctx.mutant,
        })
    }

    fn status(&self) -> &DeviceRegistrationStatus {
        static NOTHING: std::sync::LazyLock<DeviceRegistrationStatus> =
            std::sync::LazyLock::new(DeviceRegistrationStatus::default);
        self.object.status.as_ref().unwrap_or(&NOTHING)
    }

    fn enrolled_device_id(&self) -> Option<String> {
        match &self.enrollment {
            EnrollmentFacts::Valid(enrolled) => Some(enrolled.device_id.clone()),
            EnrollmentFacts::Missing | EnrollmentFacts::Invalid(_) => None,
        }
    }

    /// Goes on with a later version of the object; hub reads older than it decide nothing.
    fn adopt(&mut self, object: DeviceRegistration) {
        if self.status().home_checked_at
            != object
                .status
                .as_ref()
                .and_then(|status| status.home_checked_at.clone())
        {
            self.ctx.home_checks.done(&self.uid);
        }
        subject::label(&object, Some(&self.object));
        self.object = Arc::new(object);
        self.views = Views::default();
        self.enrollment = self.enrollment_facts();
    }

    /// Whether the object is still the version that was decided on. Goes on with the live one when
    /// it is not.
    async fn is_current(&mut self) -> Result<bool, Error> {
        let live = bounded(self.api.get(&self.name)).await?;
        if live.uid().as_ref() == Some(&self.uid)
            && live.resource_version() == self.object.resource_version()
        {
            return Ok(true);
        }
        if live.uid().as_ref() != Some(&self.uid) {
            return Err(Error::Cluster(ApplyError::Replaced));
        }
        self.adopt(live);
        Ok(false)
    }

    /// Removes the finalizer: nothing of the registration is left at any hub.
    async fn release(&self, warning: Option<String>) -> Result<Action, Error> {
        if let Some(warning) = warning {
            self.ctx
                .events
                .warn_left_behind(self.object.as_ref(), &warning);
        }
        finalizer::remove(&self.api, self.object.as_ref()).await?;
        self.ctx.backoff.forget(&self.uid);
        Ok(Action::await_change())
    }
}

impl Surroundings for Pass {
    fn is_registered(&self, uid: &str) -> bool {
        self.ctx.index.is_registered(uid)
    }

    fn owner_of(&self, host_name: &str, device_id: &str) -> Option<String> {
        self.ctx.index.owner_of(host_name, device_id)
    }

    fn quiet_in(&self, hub_uid: &str) -> jiff::SignedDuration {
        Self::quiet_in(self, hub_uid)
    }
}
