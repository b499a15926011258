//! What a control plane of one's own takes: its database, and the memory of its API server.

use anyhow::{Context, Result};
use http::Request;
use serde_json::{Value, json};

use super::Cluster;

/// What a control plane takes when nothing is left that it does not need: after etcd has dropped old
/// revisions, and the API server has collected garbage.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Bytes of etcd's database that are in use.
    pub database: u64,
    /// Bytes that the API server has on its heap.
    pub heap: u64,
}

impl Cluster {
    /// What a private cluster takes.
    pub async fn footprint(&self) -> Result<Footprint> {
        let etcd = self.plane()?.lock().await.etcd_address();
        let request = Request::get("/debug/pprof/heap?gc=1&debug=1").body(Vec::new())?;
        let profile = self.client().request_text(request).await?;
        Ok(Footprint {
            database: compacted(&etcd).await?,
            heap: number_behind(&profile, "# HeapAlloc = ")?,
        })
    }
}

/// Has etcd drop every revision but the newest; gives the bytes that are left.
async fn compacted(etcd: &str) -> Result<u64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ask = async |path: &str, body: Value| {
        let request = client.post(format!("{etcd}{path}")).json(&body);
        let response = request.send().await?.error_for_status()?;
        anyhow::Ok(response.json::<Value>().await?)
    };
    // "AA==" is a key that nobody has: only the revision is wanted.
    let seen = ask("/v3/kv/range", json!({ "key": "AA==" })).await?;
    let revision = &seen["header"]["revision"];
    ask(
        "/v3/kv/compaction",
        json!({ "revision": revision, "physical": true }),
    )
    .await
    .with_context(|| format!("cannot compact at revision {revision}"))?;
    let metrics = client.get(format!("{etcd}/metrics")).send().await?;
    number_behind(
        &metrics.text().await?,
        "etcd_mvcc_db_total_size_in_use_in_bytes ",
    )
}

/// The number of the line that begins like this.
fn number_behind(text: &str, begin: &str) -> Result<u64> {
    let number = text.lines().find_map(|line| line.strip_prefix(begin));
    let number: f64 = number.with_context(|| format!("no {begin}"))?.parse()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes, written as a number with an exponent"
    )]
    Ok(number as u64)
}
