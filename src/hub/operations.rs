//! What services can do with identities and twins, by the rules of the IoT Hub service API for
//! preconditions: without `If-Match` a PUT of an identity creates and a DELETE is refused; with it
//! a PUT updates.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::client::Client;
use super::device::Subscriptions;
use super::error::{ErrorCode, Refusal};
use super::etag::{self, IfMatch};
use super::identity::{Identity, IdentityWrite};
use super::record::Record;
use super::sessions::Notice;
use super::store::Counts;
use super::twin::{Twin, TwinWrite};
use super::{Decision, Hub, Moment};
use crate::domain::ids::DeviceId;

/// How a write treats what the twin holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwinMode {
    Merge,
    Replace,
}

impl Hub {
    pub async fn device(&self, id: &DeviceId) -> Result<Arc<Record>, Refusal> {
        self.read(id).await?.ok_or_else(|| Refusal::not_found(id))
    }

    pub async fn counts(&self) -> Result<Counts, Refusal> {
        Ok(self.store.counts().await?)
    }

    /// Up to `limit` devices in order of their ids, beginning behind `after`.
    pub async fn devices(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, Arc<Record>)>, Refusal> {
        let page = self.store.scan(after, limit).await?;
        let decode = |(id, stored)| Ok((Arc::clone(&id), Record::decode(&id, &stored)?));
        page.into_iter().map(decode).collect()
    }

    /// Creates a device with its twin.
    pub async fn create(
        &self,
        id: &DeviceId,
        identity: IdentityWrite,
        twin: TwinWrite,
    ) -> Result<Record, Refusal> {
        self.change(id, |before, moment| {
            if before.is_some() {
                let message = format!("device '{id}' is registered at this hub already");
                return Err(Refusal::new(ErrorCode::DeviceAlreadyExists, message));
            }
            let record = Record {
                written: moment.now,
                identity: self.identity(identity.clone(), None, moment),
                twin: Twin::new(twin.clone(), moment.serial, moment.now)?,
                subscriptions: Subscriptions::default(),
                modules: BTreeMap::new(),
                messages: VecDeque::new(),
            };
            Ok(Decision::quiet(record.clone(), record))
        })
        .await
    }

    /// Replaces a device's identity; its twin stays.
    pub async fn update(
        &self,
        id: &DeviceId,
        identity: IdentityWrite,
        if_match: &IfMatch,
    ) -> Result<Record, Refusal> {
        self.change(id, |before, moment| {
            let before = before.ok_or_else(|| Refusal::not_found(id))?;
            check_identity_etag(id, before, if_match)?;
            let record = Record {
                written: moment.now,
                identity: self.identity(identity.clone(), Some(&before.identity), moment),
                ..before.clone()
            };
            Ok(Decision::quiet(record.clone(), record))
        })
        .await
    }

    fn identity(
        &self,
        write: IdentityWrite,
        before: Option<&Identity>,
        moment: Moment,
    ) -> Identity {
        let generation = || format!("{}-{}", moment.serial, self.random_hex());
        write.apply(before, generation, moment.serial, moment.now, &*self.random)
    }

    /// Removes a device with its twin. `Absent` removes whatever is there.
    pub async fn delete(&self, id: &DeviceId, if_match: &IfMatch) -> Result<(), Refusal> {
        self.change(id, |before, _| {
            let before = before.ok_or_else(|| Refusal::not_found(id))?;
            check_identity_etag(id, before, if_match)?;
            Ok(Decision {
                record: None,
                notice: None,
                answer: (),
            })
        })
        .await
    }

    /// Writes tags and desired properties of a device or module.
    pub async fn write_twin(
        &self,
        client: &Client,
        write: TwinWrite,
        mode: TwinMode,
        if_match: &IfMatch,
    ) -> Result<Record, Refusal> {
        let id = &client.device;
        self.change(id, |before, Moment { now, serial }| {
            let mut record = before.cloned().ok_or_else(|| Refusal::not_found(client))?;
            record.refuse_if_fenced(id.as_str())?;
            let twin = record
                .twin_mut(client.module())
                .ok_or_else(|| Refusal::not_found(client))?;
            check_etag("twin", client, &etag::of_twin(twin.serial), if_match)?;
            let desired = match mode {
                TwinMode::Merge => twin.patch(write.clone(), serial, now)?,
                TwinMode::Replace => Some(twin.replace(write.clone(), serial, now)?),
            };
            record.written = now;
            let module = client.module().map(str::to_owned);
            Ok(Decision {
                record: Some(record.clone()),
                notice: desired.map(|change| Notice::Desired { module, change }),
                answer: record,
            })
        })
        .await
    }

    /// Merges what a device or module reports of itself and returns the new version.
    /// `generation_id` is that of the identity under which it connected; `expected`, where it names
    /// one, the version that it believes to write upon.
    pub async fn report(
        &self,
        client: &Client,
        generation_id: &str,
        patch: &Map<String, Value>,
        expected: Option<u64>,
    ) -> Result<u64, Refusal> {
        let id = &client.device;
        self.change(id, |before, Moment { now, .. }| {
            let mut record = of_generation(client, before, generation_id)?.clone();
            record.refuse_if_fenced(id.as_str())?;
            if !record.identity.enabled {
                let message = format!("device '{id}' is disabled");
                return Err(Refusal::new(ErrorCode::DeviceDisabled, message));
            }
            let twin = record
                .twin_mut(client.module())
                .ok_or_else(|| Refusal::not_found(client))?;
            if expected.is_some_and(|expected| expected != twin.reported.version) {
                let message = "the reported properties are not at the version named";
                return Err(Refusal::new(ErrorCode::PreconditionFailed, message));
            }
            let version = twin.report(patch, now)?;
            record.written = now;
            Ok(Decision::quiet(record, version))
        })
        .await
    }

    /// Stores what a device or module of this generation is subscribed to.
    pub(super) async fn keep_subscriptions(
        &self,
        client: &Client,
        generation_id: &str,
        subscriptions: Subscriptions,
    ) -> Result<(), Refusal> {
        self.change(&client.device, |before, Moment { now, .. }| {
            let mut record = of_generation(client, before, generation_id)?.clone();
            if let Some(kept) = record.subscriptions_mut(client.module()) {
                *kept = subscriptions;
            }
            record.written = now;
            Ok(Decision::quiet(record, ()))
        })
        .await
    }
}

/// The record, if the client in it is still the one of that generation.
pub(super) fn of_generation<'a>(
    client: &Client,
    record: Option<&'a Record>,
    generation_id: &str,
) -> Result<&'a Record, Refusal> {
    record
        .filter(|record| {
            record
                .party(client.module())
                .is_some_and(|party| party.generation_id == generation_id)
        })
        .ok_or_else(|| Refusal::not_found(client))
}

fn check_identity_etag(id: &DeviceId, found: &Record, if_match: &IfMatch) -> Result<(), Refusal> {
    let found = etag::of_identity(found.identity.serial);
    check_etag("device", id, &found, if_match)
}

pub(super) fn check_etag(
    what: &str,
    id: impl std::fmt::Display,
    found: &str,
    wanted: &IfMatch,
) -> Result<(), Refusal> {
    if wanted.admits(found) {
        return Ok(());
    }
    let message = format!("etag mismatch: the {what} '{id}' was changed; read it and decide again");
    Err(Refusal::new(ErrorCode::PreconditionFailed, message))
}
