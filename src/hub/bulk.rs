//! Several registry operations in one request (Azure's page "Service - Bulk Create Or Update
//! Devices"). Each entry succeeds or fails on its own; all of them share the store's commit.

use std::collections::HashSet;

use futures::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Hub;
use super::client::Client;
use super::error::{ErrorCode, Refusal};
use super::etag::IfMatch;
use super::identity::{IdentityBody, IdentityWrite, ModuleBody, ModuleWrite};
use super::operations::TwinMode;
use super::record::Record;
use super::twin::TwinWrite;
use crate::domain::ids::{DeviceId, ModuleId};

/// Most entries of one request.
pub(super) const MAX_ENTRIES: usize = 100;

/// What became of a bulk request.
#[derive(Debug, Default)]
pub(super) struct BulkOutcome {
    pub(super) errors: Vec<(Name, Refusal)>,
    /// Devices that were created.
    pub(super) created: Vec<(DeviceId, Record)>,
}

/// The ids of an entry as sent, to report errors under; the module's is empty for a device.
pub(super) type Name = (String, String);

struct Entry {
    client: Client,
    operation: Operation,
}

enum Operation {
    Create(IdentityWrite, TwinWrite),
    CreateModule(ModuleId, ModuleWrite, TwinWrite, IfMatch),
    Update(IdentityWrite, IfMatch),
    UpdateModule(ModuleId, ModuleWrite, IfMatch),
    Delete(IfMatch),
    UpdateTwin(TwinWrite, IfMatch),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryBody {
    id: Option<String>,
    module_id: Option<String>,
    import_mode: Option<String>,
    #[serde(rename = "eTag")]
    etag: Option<String>,
    #[serde(rename = "twinETag")]
    twin_etag: Option<String>,
    /// Ours: a module is created only while its device is the one of this etag.
    #[serde(rename = "deviceETag")]
    device_etag: Option<String>,
}

impl Hub {
    /// Carries out every entry. Refuses the request as a whole only where its form is wrong.
    pub(super) async fn bulk(
        &self,
        entries: Vec<Map<String, Value>>,
    ) -> Result<BulkOutcome, Refusal> {
        if entries.is_empty() || entries.len() > MAX_ENTRIES {
            let message = format!("a bulk request takes 1 to {MAX_ENTRIES} entries");
            return Err(Refusal::invalid(message));
        }
        let mut seen = HashSet::new();
        for name in entries.iter().map(name_of) {
            if seen.contains(&name) {
                let message = format!("'{}' is listed more than once", name.0);
                return Err(Refusal::new(ErrorCode::DeviceDefinedMultipleTimes, message));
            }
            seen.insert(name);
        }
        let work = entries.into_iter().map(|entry| async move {
            let name = name_of(&entry);
            let done = match Entry::read(&entry) {
                Ok(entry) => Box::pin(self.carry_out(entry)).await,
                Err(refusal) => Err(refusal),
            };
            done.map_err(|refusal| (name, refusal))
        });
        let mut outcome = BulkOutcome::default();
        for done in join_all(work).await {
            match done {
                Ok(created) => outcome.created.extend(created),
                Err(error) => outcome.errors.push(error),
            }
        }
        Ok(outcome)
    }

    async fn carry_out(&self, entry: Entry) -> Result<Option<(DeviceId, Record)>, Refusal> {
        let client = entry.client;
        let id = &client.device;
        match entry.operation {
            Operation::Create(identity, twin) => {
                let record = self.create(id, identity, twin).await?;
                return Ok(Some((client.device, record)));
            }
            Operation::CreateModule(module, write, twin, device) => {
                self.create_module(id, &module, write, twin, &device)
                    .await?;
            }
            Operation::Update(identity, if_match) => {
                self.update(id, identity, &if_match).await?;
            }
            Operation::UpdateModule(module, write, if_match) => {
                self.update_module(id, &module, write, &if_match).await?;
            }
            Operation::Delete(if_match) => match &client.module {
                Some(module) => self.delete_module(id, module, &if_match).await?,
                None => self.delete(id, &if_match).await?,
            },
            Operation::UpdateTwin(write, if_match) => {
                self.write_twin(&client, write, TwinMode::Merge, &if_match)
                    .await?;
            }
        }
        Ok(None)
    }
}

fn name_of(entry: &Map<String, Value>) -> Name {
    let text = |name| {
        let text = entry.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    (text("id"), text("moduleId"))
}

/// Reads the members that `T` wants. Tells not the parser's own words: they quote values, and an
/// entry holds keys.
fn members<T: DeserializeOwned>(entry: &Map<String, Value>) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(entry.clone())).map_err(|_| {
        let message = "a member of the entry does not have the form that is expected";
        Refusal::new(ErrorCode::DeserializationError, message)
    })
}

impl Entry {
    fn read(entry: &Map<String, Value>) -> Result<Self, Refusal> {
        let twin = TwinWrite::from_body(entry)?;
        let body: EntryBody = members(entry)?;
        let missing = |what| Refusal::new(ErrorCode::ArgumentNull, format!("{what} is missing"));
        let device = body.id.as_deref().ok_or_else(|| missing("id"))?.parse()?;
        let module = body.module_id.as_deref().filter(|id| !id.is_empty());
        let module = module.map(str::parse::<ModuleId>).transpose()?;
        let mode = body
            .import_mode
            .as_deref()
            .ok_or_else(|| missing("importMode"))?;
        // The Node service SDK writes Delete and DeleteIfMatchETag.
        let mode = mode
            .strip_prefix('D')
            .map_or_else(|| mode.to_owned(), |rest| format!("d{rest}"));
        let etag = || needed(body.etag.as_deref(), "eTag");
        let twin_etag = || needed(body.twin_etag.as_deref(), "twinETag");
        let operation = match (mode.as_str(), &module) {
            ("update" | "updateIfMatchETag", _) if !twin.is_empty() => {
                return Err(Refusal::invalid(format!(
                    "importMode {mode} writes the identity alone: use updateTwin for tags and \
                     properties"
                )));
            }
            ("create", None) => Operation::Create(identity(entry)?, twin),
            ("create", Some(module)) => {
                let device = IfMatch::parse(body.device_etag.as_deref());
                Operation::CreateModule(module.clone(), module_write(entry)?, twin, device)
            }
            ("update", None) => Operation::Update(identity(entry)?, IfMatch::Any),
            ("update", Some(module)) => {
                Operation::UpdateModule(module.clone(), module_write(entry)?, IfMatch::Any)
            }
            ("updateIfMatchETag", None) => Operation::Update(identity(entry)?, etag()?),
            ("updateIfMatchETag", Some(module)) => {
                Operation::UpdateModule(module.clone(), module_write(entry)?, etag()?)
            }
            ("delete", _) => Operation::Delete(IfMatch::Any),
            ("deleteIfMatchETag", _) => Operation::Delete(etag()?),
            ("updateTwin", _) => Operation::UpdateTwin(twin, IfMatch::Any),
            ("updateTwinIfMatchETag", _) => Operation::UpdateTwin(twin, twin_etag()?),
            (other, _) => {
                let message = format!("importMode {other:?} is not one of a bulk request");
                return Err(Refusal::invalid(message));
            }
        };
        let client = Client { device, module };
        Ok(Self { client, operation })
    }
}

fn identity(entry: &Map<String, Value>) -> Result<IdentityWrite, Refusal> {
    members::<IdentityBody>(entry)?.try_into()
}

fn module_write(entry: &Map<String, Value>) -> Result<ModuleWrite, Refusal> {
    members::<ModuleBody>(entry)?.try_into()
}

fn needed(etag: Option<&str>, what: &str) -> Result<IfMatch, Refusal> {
    match IfMatch::parse(etag) {
        IfMatch::Absent => {
            let message = format!("etag missing: this importMode needs {what}");
            Err(Refusal::new(ErrorCode::PreconditionFailed, message))
        }
        present @ (IfMatch::Any | IfMatch::Tag(_)) => Ok(present),
    }
}
