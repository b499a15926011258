//! What services can do with identities and twins, by the rules of the IoT Hub service API for
//! preconditions: without `If-Match` a PUT of an identity creates and a DELETE is refused; with it
//! a PUT updates.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::device::Subscriptions;
use super::error::{ErrorCode, Refusal};
use super::etag::{self, IfMatch};
use super::identity::{Identity, IdentityWrite};
use super::record::Record;
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
            };
            Ok(Decision {
                record: Some(record.clone()),
                desired: None,
                answer: record,
            })
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
                twin: before.twin.clone(),
                subscriptions: before.subscriptions,
            };
            Ok(Decision {
                record: Some(record.clone()),
                desired: None,
                answer: record,
            })
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
                desired: None,
                answer: (),
            })
        })
        .await
    }

    /// Writes tags and desired properties.
    pub async fn write_twin(
        &self,
        id: &DeviceId,
        write: TwinWrite,
        mode: TwinMode,
        if_match: &IfMatch,
    ) -> Result<Record, Refusal> {
        self.change(id, |before, Moment { now, serial }| {
            let mut record = before.cloned().ok_or_else(|| Refusal::not_found(id))?;
            record.refuse_if_fenced(id.as_str())?;
            check_etag("twin", id, &etag::of_twin(record.twin.serial), if_match)?;
            let desired = match mode {
                TwinMode::Merge => record.twin.patch(write.clone(), serial, now)?,
                TwinMode::Replace => Some(record.twin.replace(write.clone(), serial, now)?),
            };
            record.written = now;
            Ok(Decision {
                record: Some(record.clone()),
                desired,
                answer: record,
            })
        })
        .await
    }

    /// Merges what a device reports of itself and returns the new version. `generation_id` is
    /// that of the identity under which the device connected; `expected`, where the device names
    /// one, the version that it believes to write upon.
    pub async fn report(
        &self,
        id: &DeviceId,
        generation_id: &str,
        patch: &Map<String, Value>,
        expected: Option<u64>,
    ) -> Result<u64, Refusal> {
        self.change(id, |before, Moment { now, .. }| {
            let same = before.filter(|before| before.identity.generation_id == generation_id);
            let mut record = same.cloned().ok_or_else(|| Refusal::not_found(id))?;
            record.refuse_if_fenced(id.as_str())?;
            if !record.identity.enabled {
                let message = format!("device '{id}' is disabled");
                return Err(Refusal::new(ErrorCode::DeviceDisabled, message));
            }
            if expected.is_some_and(|expected| expected != record.twin.reported.version) {
                let message = "the reported properties are not at the version named";
                return Err(Refusal::new(ErrorCode::PreconditionFailed, message));
            }
            let version = record.twin.report(patch, now)?;
            record.written = now;
            Ok(Decision {
                record: Some(record),
                desired: None,
                answer: version,
            })
        })
        .await
    }

    /// Stores what a device of this generation is subscribed to.
    pub(super) async fn keep_subscriptions(
        &self,
        id: &DeviceId,
        generation_id: &str,
        subscriptions: Subscriptions,
    ) -> Result<(), Refusal> {
        self.change(id, |before, Moment { now, .. }| {
            let same = before.filter(|before| before.identity.generation_id == generation_id);
            let mut record = same.cloned().ok_or_else(|| Refusal::not_found(id))?;
            record.subscriptions = subscriptions;
            record.written = now;
            Ok(Decision {
                record: Some(record),
                desired: None,
                answer: (),
            })
        })
        .await
    }
}

fn check_identity_etag(id: &DeviceId, found: &Record, if_match: &IfMatch) -> Result<(), Refusal> {
    check_etag(
        "device",
        id,
        &etag::of_identity(found.identity.serial),
        if_match,
    )
}

fn check_etag(what: &str, id: &DeviceId, found: &str, wanted: &IfMatch) -> Result<(), Refusal> {
    if wanted.admits(found) {
        return Ok(());
    }
    let message = format!("etag mismatch: the {what} '{id}' was changed; read it and decide again");
    Err(Refusal::new(ErrorCode::PreconditionFailed, message))
}
