//! What services can do with module identities (Azure's page "Modules - Create Or Update
//! Identity"). As on IoT Hub, a device that is missing or disabled takes no such operation; one
//! that a move holds shows its modules, so that they can be carried.

use std::sync::Arc;

use super::client::Client;
use super::device::Subscriptions;
use super::error::{ErrorCode, Refusal};
use super::etag::{self, IfMatch};
use super::identity::{ModuleWrite, SymmetricKeys};
use super::operations::check_etag;
use super::record::{Module, Record};
use super::twin::{Twin, TwinWrite};
use super::{Decision, Hub, Moment};
use crate::domain::ids::{DeviceId, ModuleId};
use crate::hub::identity::Authentication;

/// Modules of one device, as on IoT Hub.
pub(super) const MAX_MODULES: usize = 50;

impl Hub {
    /// The device, whose modules may be looked at.
    pub async fn device_with_modules(&self, id: &DeviceId) -> Result<Arc<Record>, Refusal> {
        self.read(id)
            .await?
            .filter(|record| record.identity.enabled || record.identity.is_fenced())
            .ok_or_else(|| takes_no_modules(id))
    }

    /// Creates a module with its twin. `device_etag`, where it is given, must be that of the
    /// device: then a device that a move holds takes modules too, as long as nobody touched it.
    pub async fn create_module(
        &self,
        id: &DeviceId,
        module: &ModuleId,
        write: ModuleWrite,
        twin: TwinWrite,
        device_etag: &IfMatch,
    ) -> Result<Record, Refusal> {
        self.change(id, |before, moment| {
            let mut record = writable(id, before, device_etag)?;
            if record.modules.contains_key(module.as_str()) {
                let message = format!("device '{id}' has a module '{module}' already");
                let code = ErrorCode::ModuleAlreadyExistsOnDevice;
                return Err(Refusal::new(code, message));
            }
            if record.modules.len() >= MAX_MODULES {
                let message = format!("device '{id}' has {MAX_MODULES} modules already");
                return Err(Refusal::new(ErrorCode::TooManyModulesOnDevice, message));
            }
            let created = Module {
                generation_id: format!("{}-{}", moment.serial, self.random_hex()),
                serial: moment.serial,
                managed_by: write.managed_by.clone(),
                authentication: self.authentication(&write),
                twin: Twin::new(twin.clone(), moment.serial, moment.now)?,
                subscriptions: Subscriptions::default(),
            };
            record.modules.insert(module.as_str().to_owned(), created);
            record.written = moment.now;
            Ok(Decision::quiet(record.clone(), record))
        })
        .await
    }

    /// Replaces a module's identity; its twin stays.
    pub async fn update_module(
        &self,
        id: &DeviceId,
        module: &ModuleId,
        write: ModuleWrite,
        if_match: &IfMatch,
    ) -> Result<Record, Refusal> {
        self.change(id, |before, Moment { now, serial }| {
            let mut record = writable(id, before, &IfMatch::Absent)?;
            let found = of(&mut record, id, module, if_match)?;
            found.serial = serial;
            found.managed_by.clone_from(&write.managed_by);
            found.authentication = self.authentication(&write);
            record.written = now;
            Ok(Decision::quiet(record.clone(), record))
        })
        .await
    }

    /// Removes a module with its twin. `Absent` removes whatever is there.
    pub async fn delete_module(
        &self,
        id: &DeviceId,
        module: &ModuleId,
        if_match: &IfMatch,
    ) -> Result<(), Refusal> {
        self.change(id, |before, Moment { now, .. }| {
            let mut record = writable(id, before, &IfMatch::Absent)?;
            of(&mut record, id, module, if_match)?;
            record.modules.remove(module.as_str());
            record.written = now;
            Ok(Decision::quiet(record, ()))
        })
        .await
    }

    fn authentication(&self, write: &ModuleWrite) -> Authentication {
        let mint = || Authentication::Sas(SymmetricKeys::mint(&*self.random));
        write.authentication.clone().unwrap_or_else(mint)
    }
}

/// The device, whose modules may be written.
fn writable(
    id: &DeviceId,
    before: Option<&Record>,
    device_etag: &IfMatch,
) -> Result<Record, Refusal> {
    let record = before.ok_or_else(|| takes_no_modules(id))?;
    let found = etag::of_identity(record.identity.serial);
    check_etag("device", id, &found, device_etag)?;
    let is_held = matches!(device_etag, IfMatch::Tag(_)) && record.identity.is_fenced();
    if !is_held {
        record.refuse_if_fenced(id.as_str())?;
        if !record.identity.enabled {
            return Err(takes_no_modules(id));
        }
    }
    Ok(record.clone())
}

fn of<'a>(
    record: &'a mut Record,
    id: &DeviceId,
    module: &ModuleId,
    if_match: &IfMatch,
) -> Result<&'a mut Module, Refusal> {
    let client = Client {
        device: id.clone(),
        module: Some(module.clone()),
    };
    let found = record
        .modules
        .get_mut(module.as_str())
        .ok_or_else(|| Refusal::module_not_found(&client))?;
    check_etag("module", client, &etag::of_identity(found.serial), if_match)?;
    Ok(found)
}

fn takes_no_modules(id: &DeviceId) -> Refusal {
    let message = format!(
        "device '{id}' is not registered at this hub or is disabled, and then takes no operation \
         on its modules"
    );
    Refusal::new(ErrorCode::IotHubUnauthorizedAccess, message)
}
