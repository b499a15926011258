//! A client's requests about its own twin, and the answers.

use bytes::Bytes;
use serde_json::json;

use super::Connection;
use crate::hub::error::{ErrorCode, Refusal};
use crate::hub::time;
use crate::hub::twin::parse_object;

impl Connection {
    pub(super) async fn twin_get(&self, rid: &str) -> (String, Bytes) {
        let record = match self.hub.device(&self.client.device).await {
            Ok(record) => record,
            Err(refusal) => return self.refusal(rid, &refusal),
        };
        let party = record.party(self.client.module());
        let Some(party) = party.filter(|party| party.generation_id == self.generation_id) else {
            return self.refusal(rid, &Refusal::not_found(&self.client));
        };
        let body = json!({
            "desired": party.twin.desired.for_device(),
            "reported": party.twin.reported.for_device(),
        });
        let topic = format!("$iothub/twin/res/200/?$rid={rid}");
        (topic, body.to_string().into())
    }

    pub(super) async fn report(
        &self,
        rid: &str,
        expected: Option<u64>,
        body: &[u8],
    ) -> (String, Bytes) {
        let patch = match parse_object(body) {
            Ok(patch) => patch,
            Err(refusal) => return self.refusal(rid, &refusal),
        };
        match self
            .hub
            .report(&self.client, &self.generation_id, &patch, expected)
            .await
        {
            Ok(version) => (
                format!("$iothub/twin/res/204/?$rid={rid}&$version={version}"),
                Bytes::new(),
            ),
            Err(refusal) => self.refusal(rid, &refusal),
        }
    }

    /// Some SDKs look at the topic's status, others at the body alone.
    fn refusal(&self, rid: &str, refusal: &Refusal) -> (String, Bytes) {
        let code: ErrorCode = refusal.code;
        let body = json!({
            "errorCode": code.number(),
            "trackingId": self.hub.random_hex(),
            "message": refusal.message,
            "timestampUtc": time::format(self.hub.now()),
        });
        let topic = format!("$iothub/twin/res/{}/?$rid={rid}", code.status().as_u16());
        (topic, body.to_string().into())
    }
}
