//! Every device that a hub has, as a back end finds out: by a query, page by page.

use anyhow::{Context, Result, bail};
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::hub::{API_VERSION, Hub, POLICY};

/// Devices of one page.
const PAGE: u16 = 1000;
const CONTINUATION: &str = "x-ms-continuation";

impl Hub {
    /// The twins of all devices; `status` and `statusReason` are those of the identity.
    pub async fn census(&self) -> Result<Vec<Value>> {
        let client = self.client()?;
        let url = format!(
            "{}/devices/query?api-version={API_VERSION}",
            self.endpoint()
        );
        let (mut twins, mut next) = (Vec::new(), None::<String>);
        loop {
            let token = self.key.token(&self.host(), Some(POLICY))?;
            let mut request = client
                .post(&url)
                .header(AUTHORIZATION, token)
                .header("x-ms-max-item-count", PAGE)
                .json(&json!({ "query": "SELECT * FROM devices" }));
            if let Some(next) = &next {
                request = request.header(CONTINUATION, next);
            }
            let response = request.send().await.with_context(|| url.clone())?;
            let status = response.status();
            next = response
                .headers()
                .get(CONTINUATION)
                .map(|value| value.to_str().map(str::to_owned))
                .transpose()?;
            let page: Value = response.json().await.with_context(|| url.clone())?;
            let Value::Array(page) = page else {
                bail!("{}: the query was answered {status}: {page}", self.name);
            };
            if status != StatusCode::OK {
                bail!("{}: the query was answered {status}", self.name);
            }
            twins.extend(page);
            if next.is_none() {
                return Ok(twins);
            }
        }
    }
}
