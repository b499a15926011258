//! The subset of the IoT Hub query language that is answered here: `SELECT * | COUNT() | paths`
//! `FROM devices | devices.modules [WHERE …]` over what a twin shows.
//!
//! A page looks at a bounded number of devices and holds a bounded number of bytes; it may be short
//! or even empty and still have a continuation, as on IoT Hub. There is no index: a query reads
//! devices in order of their ids.

mod evaluate;
mod lexer;
mod parse;

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::Hub;
use super::error::Refusal;
use super::record::Record;
use evaluate::Row;
pub(super) use parse::Query;
use parse::{Column, Selection, Source};

/// Most results of one page.
const PAGE_ITEMS: usize = 1000;
/// About how many bytes of results one page holds.
const PAGE_BYTES: usize = 4 << 20;
/// Most devices that one page looks at.
const PAGE_SCAN: usize = 20_000;
/// Devices read from the store at a time.
const CHUNK: usize = 200;

/// One page of results.
#[derive(Debug)]
pub(super) struct ResultPage {
    pub(super) items: Vec<Value>,
    /// Whether the items are whole twins, rather than columns.
    pub(super) are_twins: bool,
    /// Where the next page begins; `None` on the last one.
    pub(super) continuation: Option<String>,
}

impl Hub {
    /// One page of a query, from its beginning or from where another page ended.
    pub(super) async fn query(
        &self,
        query: &Query,
        max_items: Option<usize>,
        continuation: Option<&str>,
    ) -> Result<ResultPage, Refusal> {
        let columns = match &query.selection {
            Selection::Count(name) => {
                let count = self.count(query).await?;
                let items = vec![json!({ name.as_str(): count })];
                return Ok(ResultPage {
                    items,
                    are_twins: false,
                    continuation: None,
                });
            }
            Selection::Twins => None,
            Selection::Columns(columns) => Some(columns.as_slice()),
        };
        let limit = max_items
            .filter(|it| *it > 0)
            .unwrap_or(PAGE_ITEMS)
            .min(PAGE_ITEMS);
        let mut after = continuation.map(decode_continuation).transpose()?;
        let mut page = ResultPage {
            items: vec![],
            are_twins: columns.is_none(),
            continuation: None,
        };
        let (mut bytes, mut scanned) = (0, 0);
        loop {
            let chunk = self.chunk(query.source, after.as_deref()).await?;
            scanned += chunk.devices;
            for (position, record) in &chunk.rows {
                if page.items.len() == limit || bytes >= PAGE_BYTES {
                    page.continuation = after.as_deref().map(encode_continuation);
                    return Ok(page);
                }
                if let Some(item) = self.select(query, columns, position, record) {
                    bytes += item.to_string().len();
                    page.items.push(item);
                }
                after = Some(Arc::clone(position));
            }
            if chunk.is_last {
                return Ok(page);
            }
            after = chunk.end;
            if scanned >= PAGE_SCAN {
                page.continuation = after.as_deref().map(encode_continuation);
                return Ok(page);
            }
        }
    }

    /// The next rows behind a position: `device` is behind the device and all its modules,
    /// `device/module` behind that module.
    async fn chunk(&self, source: Source, after: Option<&str>) -> Result<Chunk, Refusal> {
        let modules = |id: &Arc<str>, record: &Arc<Record>, behind: &str| -> Vec<_> {
            let behind = (Bound::Excluded(behind), Bound::Unbounded);
            let names = record.modules.range::<str, _>(behind);
            names
                .map(|(module, _)| (format!("{id}/{module}").into(), Arc::clone(record)))
                .collect()
        };
        if let Some((id, module)) = after.and_then(|after| after.split_once('/')) {
            let record = self.read(&id.parse()?).await?;
            let id: Arc<str> = id.into();
            let rows = record.map_or_else(Vec::new, |record| modules(&id, &record, module));
            return Ok(Chunk {
                rows,
                devices: 1,
                end: Some(id),
                is_last: false,
            });
        }
        let devices = self.devices(after, CHUNK).await?;
        let (count, end) = (devices.len(), devices.last().map(|(id, _)| Arc::clone(id)));
        let rows = match source {
            Source::Devices => devices,
            Source::Modules => {
                let each = devices.iter();
                each.flat_map(|(id, record)| modules(id, record, ""))
                    .collect()
            }
        };
        Ok(Chunk {
            rows,
            devices: count,
            end,
            is_last: count < CHUNK,
        })
    }

    fn select(
        &self,
        query: &Query,
        columns: Option<&[Column]>,
        position: &str,
        record: &Record,
    ) -> Option<Value> {
        let row = Row::new(self, position, record);
        if !row.meets(query.condition.as_ref()) {
            return None;
        }
        let Some(columns) = columns else {
            return Some(row.twin());
        };
        let cell =
            |column: &Column| Some((column.name.clone(), row.value(&column.path)?.into_owned()));
        Some(Value::Object(
            columns.iter().filter_map(cell).collect::<Map<_, _>>(),
        ))
    }

    async fn count(&self, query: &Query) -> Result<u64, Refusal> {
        if query.condition.is_none() && query.source == Source::Devices {
            return Ok(self.counts().await?.total);
        }
        let (mut count, mut after): (u64, Option<Arc<str>>) = (0, None);
        loop {
            let chunk = self.chunk(query.source, after.as_deref()).await?;
            let condition = query.condition.as_ref();
            let rows = chunk.rows.iter();
            let met = rows.filter(|(id, record)| Row::new(self, id, record).meets(condition));
            count += met.count() as u64;
            if chunk.is_last {
                return Ok(count);
            }
            after = chunk.end;
        }
    }
}

/// Some of the rows that a query looks at.
struct Chunk {
    /// With the position of each.
    rows: Vec<(Arc<str>, Arc<Record>)>,
    /// Devices that were read for it.
    devices: usize,
    /// Where the next chunk begins.
    end: Option<Arc<str>>,
    is_last: bool,
}

fn encode_continuation(after: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(after)
}

fn decode_continuation(text: &str) -> Result<Arc<str>, Refusal> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Arc::from)
        .ok_or_else(|| Refusal::invalid("x-ms-continuation is not one that this hub gave out"))
}
