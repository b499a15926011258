//! Reads of hubs, and effects on them: exactly one at a time.

use serde_json::{Map, Value};

use super::{Error, Pass};
use crate::api::v1alpha1::HubRef;
use crate::domain::identity::{Identity, IdentityChange, NewIdentity};
use crate::domain::module::NewModule;
use crate::domain::transfer::{Call, Effect, Look, Room, Trouble, TroubleKind, View};
use crate::registry::{Cause, Created, HubClient, HubError};

impl Pass {
    /// Reads something of a hub into the views.
    pub(super) async fn look(&mut self, look: &Look) {
        let hub = look.hub();
        let client = match self.ctx.hub_client(&self.namespace, hub) {
            Ok(client) => client,
            Err(trouble) => return self.note(hub, trouble),
        };
        let device = self.device_id();
        let in_flight = self.quiet_in(&hub.uid).is_positive();
        let outcome = match look {
            Look::Identity(_) => client.read(&device).await.map(|identity| {
                let view = self.views.of_mut(&hub.uid);
                view.identity = Some(identity);
                view.in_flight = in_flight;
            }),
            Look::Twin(_) => client.read_twin(&device).await.map(|twin| {
                self.views.saw_twin(&hub.uid, twin);
            }),
            Look::Room(_) => client.probe().await.map(|facts| {
                let full = facts
                    .max_device_count
                    .filter(|limit| facts.device_count >= *limit);
                let room = full.map_or(Room::Free, |limit| Room::Full { limit });
                self.views.of_mut(&hub.uid).room = Some(room);
            }),
            Look::Modules(_) => client.modules(&device).await.map(|modules| {
                self.views.of_mut(&hub.uid).modules = Some(modules);
            }),
            Look::Module(_, id) => client.read_module(&device, id).await.map(|module| {
                let read = &mut self.views.of_mut(&hub.uid).read_modules;
                read.insert(id.clone(), module);
            }),
        };
        if let Err(error) = outcome {
            self.note(hub, trouble_of(&error));
        }
    }

    /// Does one thing at a hub. An effect that must rest on the live status is left out when the
    /// status has moved on; the views are dropped then, and the decision is taken again.
    pub(super) async fn apply(&mut self, effect: &Effect) -> Result<(), Error> {
        let Effect {
            hub,
            call,
            needs_live_status,
        } = effect;
        if *needs_live_status && !self.breaks_live_read() && !self.is_current().await? {
            return Ok(());
        }
        let client = match self.ctx.hub_client(&self.namespace, hub) {
            Ok(client) => client,
            Err(trouble) => {
                self.note(hub, trouble);
                return Ok(());
            }
        };
        let in_flight = self.quiet_in(&hub.uid).is_positive();
        self.ctx
            .ledger
            .sending(&self.uid, &hub.uid, self.ctx.clock.monotonic());
        let outcome = match call {
            Call::Create(new) => self.create(&client, hub, new).await,
            Call::CreateModule(new) => self.create_module(&client, hub, new).await,
            Call::Update(change) => self.update(&client, hub, change).await,
            Call::Delete => self.delete(&client, hub).await,
            Call::WriteTwin { tags, desired } => self.write_twin(&client, hub, tags, desired).await,
        };
        match outcome {
            Ok(()) => self.ctx.ledger.answered(&self.uid, &hub.uid),
            Err(error) => {
                if error.is_without_effect() {
                    self.ctx.ledger.answered(&self.uid, &hub.uid);
                }
                self.failed(hub, &error);
            }
        }
        self.views.of_mut(&hub.uid).in_flight = in_flight;
        Ok(())
    }

    async fn create(
        &mut self,
        client: &HubClient,
        hub: &HubRef,
        new: &NewIdentity,
    ) -> Result<(), HubError> {
        let created = client.create(new).await?;
        let view = self.views.of_mut(&hub.uid);
        view.forget();
        match created {
            Created::New {
                generation_id,
                etag,
            } => {
                view.identity = Some(Some(new.created(generation_id, etag)));
            }
            Created::NewUnstamped | Created::WithoutTwin | Created::AlreadyExists => {
                view.exists = true;
            }
        }
        if self.creates_enabled() {
            let reason = Some(new.mark.to_string());
            let change = IdentityChange {
                enabled: true,
                reason,
                credential: None,
            };
            self.update(client, hub, &change).await?;
        }
        Ok(())
    }

    /// A module that the hub refuses for good does not hold up the device.
    async fn create_module(
        &mut self,
        client: &HubClient,
        hub: &HubRef,
        new: &NewModule,
    ) -> Result<(), HubError> {
        let created = client.create_module(new).await;
        let view = self.views.of_mut(&hub.uid);
        match created {
            Ok(Created::WithoutTwin) => {
                let why = format!("{} made it without its twin", hub.host_name);
                view.refused_modules.insert(new.id.clone(), why);
            }
            Ok(Created::New { .. } | Created::NewUnstamped | Created::AlreadyExists) => {
                let there = view.identity.take().flatten();
                view.identity = Some(there.map(|there| there.with_module(&new.id)));
            }
            Err(error) if matches!(error.cause, Cause::Refused { .. }) => {
                view.refused_modules
                    .insert(new.id.clone(), error.to_string());
            }
            Err(error) => return Err(error),
        }
        view.modules = None;
        Ok(())
    }

    async fn update(
        &mut self,
        client: &HubClient,
        hub: &HubRef,
        change: &IdentityChange,
    ) -> Result<(), HubError> {
        let Some(identity) = self.looked_at(hub) else {
            return Ok(());
        };
        let changed = client.update(&identity, change).await?;
        let keep_twin = self.keeps_twin_views();
        let view = self.views.of_mut(&hub.uid);
        view.acknowledged = true;
        view.identity = Some(Some(changed));
        if !keep_twin {
            view.twin = None;
        }
        Ok(())
    }

    async fn delete(&mut self, client: &HubClient, hub: &HubRef) -> Result<(), HubError> {
        let Some(identity) = self.looked_at(hub) else {
            return Ok(());
        };
        client.delete(&identity.device_id, &identity.etag).await?;
        let view = self.views.of_mut(&hub.uid);
        view.forget();
        view.identity = Some(None);
        Ok(())
    }

    async fn write_twin(
        &mut self,
        client: &HubClient,
        hub: &HubRef,
        tags: &Map<String, Value>,
        desired: &Map<String, Value>,
    ) -> Result<(), HubError> {
        let Some((Some(twin), _)) = self.views.of(&hub.uid).twin.clone() else {
            return Ok(());
        };
        let device = self.device_id();
        let written = client
            .replace_twin(&device, &twin.etag, tags, desired)
            .await?;
        self.views.saw_twin(&hub.uid, Some(written));
        Ok(())
    }

    /// The identity that the decision looked at.
    fn looked_at(&self, hub: &HubRef) -> Option<Identity> {
        let identity = self.views.of(&hub.uid).identity.clone().flatten();
        identity.map(|identity| self.with_its_etag(identity))
    }

    /// What a failed effect leaves: another look, or trouble.
    fn failed(&mut self, hub: &HubRef, error: &HubError) {
        let view = self.views.of_mut(&hub.uid);
        view.forget();
        match error.cause {
            Cause::PreconditionFailed | Cause::NotFound | Cause::Fenced => {}
            Cause::Unreachable(_)
            | Cause::FateUnknown(_)
            | Cause::Unauthorized(_)
            | Cause::Throttled { .. }
            | Cause::Refused { .. } => self.note(hub, trouble_of(error)),
        }
    }

    fn note(&mut self, hub: &HubRef, trouble: Trouble) {
        tracing::debug!(hub = hub.host_name, kind = ?trouble.kind, "{}", trouble.message);
        let view: &mut View = self.views.of_mut(&hub.uid);
        view.trouble = Some(trouble);
    }

    /// Id of the device at its hub.
    fn device_id(&self) -> String {
        let recorded = self.status().device_id.clone();
        recorded
            .or_else(|| self.enrolled_device_id())
            .unwrap_or_else(|| self.object.spec.registration_id.clone())
    }
}

fn trouble_of(error: &HubError) -> Trouble {
    let kind = match error.cause {
        Cause::Unreachable(_) | Cause::FateUnknown(_) => TroubleKind::Unreachable,
        Cause::Unauthorized(_) => TroubleKind::Unauthorized,
        Cause::Throttled { .. } => TroubleKind::Throttled,
        Cause::PreconditionFailed | Cause::NotFound | Cause::Fenced | Cause::Refused { .. } => {
            TroubleKind::Refused
        }
    };
    Trouble {
        kind,
        message: error.to_string(),
    }
}
