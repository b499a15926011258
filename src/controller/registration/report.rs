//! What a decision leaves for people: conditions and events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource as _;
use kube::runtime::controller::Action;

use super::{Error, Pass};
use crate::api::v1alpha1::{
    ConditionType, DeviceRegistrationStatus, Reason, RegistrationState, is_true, settle,
};
use crate::cluster::apply::apply_status;
use crate::domain::transfer::{EventKind, Record, Standing, Wait};
use kube::runtime::events::EventType;

impl Pass {
    /// Writes a status, and tells about the transition. What was read of the hubs before counts no
    /// more.
    pub(super) async fn record(&mut self, record: Record) -> Result<(), Error> {
        let Record {
            mut status,
            standing,
            reason,
            message,
            event,
        } = record;
        self.describe(&mut status, standing, reason, &message);
        let before = self.object.clone();
        self.write(&status).await?;
        self.ctx
            .metrics
            .stepped(&before, &status, self.ctx.clock.now());
        tracing::info!(reason = reason.as_str(), "{message}");
        self.ctx.metrics.decided(reason);
        if let Some(kind) = event {
            let type_ = match kind {
                EventKind::Normal => EventType::Normal,
                EventKind::Warning => EventType::Warning,
            };
            self.ctx
                .events
                .publish(self.object.as_ref(), type_, reason, &message);
        }
        Ok(())
    }

    /// Shows why nothing can be done now, once, and comes back later.
    pub(super) async fn wait(&mut self, wait: &Wait) -> Result<Action, Error> {
        if !wait.quiet && !self.shows(wait.reason, &wait.message) {
            let mut status = self.status().clone();
            status.state.get_or_insert(RegistrationState::Assigning);
            self.describe(&mut status, Standing::Working, wait.reason, &wait.message);
            self.write(&status).await?;
            tracing::warn!(reason = wait.reason.as_str(), "{}", wait.message);
            self.ctx.metrics.decided(wait.reason);
        }
        let after = wait.after.and_then(|after| after.try_into().ok());
        Ok(Action::requeue(
            after.unwrap_or_else(|| self.ctx.backoff.next(&self.uid)),
        ))
    }

    /// Nothing is to be done. Writes only when the status does not say so yet.
    pub(super) async fn settled(&mut self) -> Result<Action, Error> {
        self.ctx.backoff.forget(&self.uid);
        let status = self.status();
        let current = status.observed_generation == self.object.meta().generation;
        let ready = is_true(&status.conditions, ConditionType::Ready);
        let should_be_ready = status.state == Some(RegistrationState::Assigned);
        if !current || (should_be_ready && !ready) {
            let mut status = status.clone();
            if should_be_ready && !ready {
                let message = format!(
                    "lives at {}",
                    status.assigned_hub.as_deref().unwrap_or("its hub")
                );
                self.describe(&mut status, Standing::Ready, Reason::Settled, &message);
            }
            self.write(&status).await?;
        }
        Ok(Action::await_change())
    }

    async fn write(&mut self, status: &DeviceRegistrationStatus) -> Result<(), Error> {
        let mut status = status.clone();
        status.observed_generation = self.object.meta().generation;
        for condition in &mut status.conditions {
            condition.observed_generation = status.observed_generation;
        }
        let seen = self
            .object
            .meta()
            .resource_version
            .clone()
            .unwrap_or_default();
        let written = apply_status(&self.api, &self.name, &seen, &status).await?;
        self.ctx.written.note(&written);
        self.adopt(written);
        Ok(())
    }

    fn describe(
        &self,
        status: &mut DeviceRegistrationStatus,
        standing: Standing,
        reason: Reason,
        message: &str,
    ) {
        let condition = |type_: ConditionType, value: &str| Condition {
            type_: type_.as_str().to_owned(),
            status: value.to_owned(),
            reason: reason.as_str().to_owned(),
            message: message.to_owned(),
            observed_generation: None,
            last_transition_time: Time(self.ctx.clock.now()),
        };
        let ready = if standing == Standing::Ready {
            "True"
        } else {
            "False"
        };
        settle(
            &mut status.conditions,
            condition(ConditionType::Ready, ready),
        );
        for (type_, applies) in [
            (ConditionType::Reconciling, standing == Standing::Working),
            (ConditionType::Stalled, standing == Standing::Blocked),
        ] {
            if applies {
                settle(&mut status.conditions, condition(type_, "True"));
            } else {
                status
                    .conditions
                    .retain(|known| known.type_ != type_.as_str());
            }
        }
    }

    /// Whether the conditions already give this reason for not being ready.
    fn shows(&self, reason: Reason, message: &str) -> bool {
        self.status().conditions.iter().any(|condition| {
            condition.type_ == ConditionType::Ready.as_str()
                && condition.status == "False"
                && condition.reason == reason.as_str()
                && condition.message == message
        })
    }
}
