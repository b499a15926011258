//! The subset of the IoT Hub query language that is answered here: `SELECT * | COUNT() | paths`
//! `FROM devices [WHERE …]` over what a twin shows.
//!
//! A page looks at a bounded number of devices and holds a bounded number of bytes; it may be short
//! or even empty and still have a continuation, as on IoT Hub. There is no index: a query reads
//! devices in order of their ids.

mod evaluate;
mod lexer;
mod parse;

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::Hub;
use super::error::Refusal;
use super::record::Record;
use evaluate::Row;
pub(super) use parse::Query;
use parse::{Column, Selection};

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
            let chunk = self.devices(after.as_deref(), CHUNK).await?;
            let is_last = chunk.len() < CHUNK;
            scanned += chunk.len();
            for (id, record) in chunk {
                if page.items.len() == limit || bytes >= PAGE_BYTES {
                    page.continuation = after.as_deref().map(encode_continuation);
                    return Ok(page);
                }
                if let Some(item) = self.select(query, columns, &id, &record) {
                    bytes += item.to_string().len();
                    page.items.push(item);
                }
                after = Some(id);
            }
            if is_last {
                return Ok(page);
            }
            if scanned >= PAGE_SCAN {
                page.continuation = after.as_deref().map(encode_continuation);
                return Ok(page);
            }
        }
    }

    fn select(
        &self,
        query: &Query,
        columns: Option<&[Column]>,
        id: &str,
        record: &Record,
    ) -> Option<Value> {
        let row = Row::new(self, id, record);
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
        if query.condition.is_none() {
            return Ok(self.counts().await?.total);
        }
        let (mut count, mut after): (u64, Option<Arc<str>>) = (0, None);
        loop {
            let chunk = self.devices(after.as_deref(), CHUNK).await?;
            let condition = query.condition.as_ref();
            let met = chunk
                .iter()
                .filter(|(id, record)| Row::new(self, id, record).meets(condition));
            count += met.count() as u64;
            match chunk.last() {
                Some((id, _)) if chunk.len() == CHUNK => after = Some(Arc::clone(id)),
                _ => return Ok(count),
            }
        }
    }
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
