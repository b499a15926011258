//! Several registry operations in one request (Azure's page "Service - Bulk Create Or Update
//! Devices"). Each entry succeeds or fails on its own; all of them share the store's commit.

use std::collections::HashSet;

use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Hub;
use super::error::{ErrorCode, Refusal};
use super::etag::IfMatch;
use super::identity::{IdentityBody, IdentityWrite};
use super::operations::TwinMode;
use super::record::Record;
use super::twin::TwinWrite;
use crate::domain::ids::DeviceId;

/// Most entries of one request.
pub(super) const MAX_ENTRIES: usize = 100;

/// What became of a bulk request.
#[derive(Debug, Default)]
pub(super) struct BulkOutcome {
    pub(super) errors: Vec<(String, Refusal)>,
    pub(super) created: Vec<(DeviceId, Record)>,
}

struct Entry {
    id: DeviceId,
    operation: Operation,
}

enum Operation {
    Create(IdentityWrite, TwinWrite),
    Update(IdentityWrite, IfMatch),
    Delete(IfMatch),
    UpdateTwin(TwinWrite, IfMatch),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryBody {
    #[serde(flatten)]
    identity: IdentityBody,
    module_id: Option<String>,
    import_mode: Option<String>,
    #[serde(rename = "eTag")]
    etag: Option<String>,
    #[serde(rename = "twinETag")]
    twin_etag: Option<String>,
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
                let message = format!("device '{name}' is listed more than once");
                return Err(Refusal::new(ErrorCode::DeviceDefinedMultipleTimes, message));
            }
            seen.insert(name);
        }
        let work = entries.into_iter().map(|entry| async move {
            let name = name_of(&entry);
            let done = match Entry::read(entry) {
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
        let id = entry.id;
        match entry.operation {
            Operation::Create(identity, twin) => {
                let record = self.create(&id, identity, twin).await?;
                return Ok(Some((id, record)));
            }
            Operation::Update(identity, if_match) => {
                self.update(&id, identity, &if_match).await?;
            }
            Operation::Delete(if_match) => self.delete(&id, &if_match).await?,
            Operation::UpdateTwin(write, if_match) => {
                self.write_twin(&id, write, TwinMode::Merge, &if_match)
                    .await?;
            }
        }
        Ok(None)
    }
}

/// The id as sent, to report errors under.
fn name_of(entry: &Map<String, Value>) -> String {
    entry
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

impl Entry {
    fn read(entry: Map<String, Value>) -> Result<Self, Refusal> {
        let twin = TwinWrite::from_body(&entry)?;
        let body: EntryBody = serde_json::from_value(Value::Object(entry)).map_err(|_| {
            // Not the parser's own words: they quote values, and an entry holds keys.
            let message = "a member of the entry does not have the form that is expected";
            Refusal::new(ErrorCode::DeserializationError, message)
        })?;
        if body.module_id.is_some_and(|module| !module.is_empty()) {
            let message = "this hub keeps no module identities: leave moduleId out";
            return Err(Refusal::new(ErrorCode::InvalidOperation, message));
        }
        let missing = |what| Refusal::new(ErrorCode::ArgumentNull, format!("{what} is missing"));
        let id = body
            .identity
            .device_id
            .as_deref()
            .ok_or_else(|| missing("id"))?;
        let id = id.parse::<DeviceId>()?;
        let tag = |text: Option<&str>, what| match IfMatch::parse(text) {
            IfMatch::Absent => {
                let message = format!("etag missing: this importMode needs {what}");
                Err(Refusal::new(ErrorCode::PreconditionFailed, message))
            }
            present @ (IfMatch::Any | IfMatch::Tag(_)) => Ok(present),
        };
        let etag = || tag(body.etag.as_deref(), "eTag");
        let mode = body
            .import_mode
            .as_deref()
            .ok_or_else(|| missing("importMode"))?;
        let operation = match mode {
            "create" => Operation::Create(body.identity.try_into()?, twin),
            "update" | "updateIfMatchETag" if !twin.is_empty() => {
                return Err(Refusal::invalid(format!(
                    "importMode {mode} writes the identity alone: use updateTwin for tags and \
                     properties"
                )));
            }
            "update" => Operation::Update(body.identity.try_into()?, IfMatch::Any),
            "updateIfMatchETag" => {
                let etag = etag()?;
                Operation::Update(body.identity.try_into()?, etag)
            }
            "delete" => Operation::Delete(IfMatch::Any),
            "deleteIfMatchETag" => Operation::Delete(etag()?),
            "updateTwin" => Operation::UpdateTwin(twin, IfMatch::Any),
            "updateTwinIfMatchETag" => {
                Operation::UpdateTwin(twin, tag(body.twin_etag.as_deref(), "twinETag")?)
            }
            other => {
                let message = format!("importMode {other:?} is not one of a bulk request");
                return Err(Refusal::invalid(message));
            }
        };
        Ok(Self { id, operation })
    }
}
