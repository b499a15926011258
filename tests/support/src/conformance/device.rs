//! One device of one SDK, as the scenarios use it.

use anyhow::Result;
use rehome_testing::device::{Applicant, Key};
use serde_json::{Value, json};

use super::driver::Driver;
use super::expectation::Variant;
use super::life::Life;

/// How every device speaks to hubs.
const HUB_TRANSPORT: &str = "mqtt";

/// A device with its credential.
pub(crate) struct Device<'a> {
    pub(crate) driver: &'a Driver,
    pub(crate) variant: Variant<'a>,
    pub(crate) registration_id: String,
    pub(crate) id_scope: String,
    pub(crate) key: Key,
}

/// What a device is told, or what its SDK reports instead.
pub(crate) type Answer = Result<Value, String>;

impl<'a> Device<'a> {
    pub(crate) fn new(
        driver: &'a Driver,
        variant: Variant<'a>,
        life: Life,
        id_scope: &str,
        enrolled: &Key,
    ) -> Self {
        let registration_id = life.registration_id(variant);
        let key = if variant.attestation.is_group() {
            enrolled.of_device(&registration_id)
        } else {
            enrolled.clone()
        };
        Self {
            driver,
            variant,
            registration_id,
            id_scope: id_scope.to_owned(),
            key,
        }
    }

    pub(crate) async fn register(&self, host: &str) -> Result<Answer> {
        let mut command = json!({
            "do": "register",
            "host": host,
            "idScope": self.id_scope,
            "registrationId": self.registration_id,
            "transport": self.variant.transport.to_string(),
        });
        self.add_credential(&mut command);
        self.driver.ask(command).await
    }

    /// Connects to a hub. There is one session at a time with each.
    pub(crate) async fn connect(&self, hub: &str) -> Result<Answer> {
        let mut command = json!({
            "do": "connect",
            "session": self.session(hub),
            "hub": hub,
            "device": self.registration_id,
            "transport": HUB_TRANSPORT,
        });
        self.add_credential(&mut command);
        self.driver.ask(command).await
    }

    pub(crate) async fn twin(&self, hub: &str) -> Result<Value> {
        let session = self.session(hub);
        let command = json!({ "do": "twin", "session": session });
        self.driver.must(command).await
    }

    pub(crate) async fn report(&self, hub: &str, patch: &Value) -> Result<Value> {
        let session = self.session(hub);
        let command = json!({ "do": "report", "session": session, "patch": patch });
        self.driver.must(command).await
    }

    /// Waits until the hub has ended the session, which is over then.
    pub(crate) async fn lost(&self, hub: &str) -> Result<bool> {
        let command = json!({ "do": "lost", "session": self.session(hub) });
        Ok(self.driver.must(command).await?["lost"] == true)
    }

    pub(crate) async fn close(&self, hub: &str) -> Result<()> {
        let command = json!({ "do": "close", "session": self.session(hub) });
        self.driver.must(command).await.map(drop)
    }

    /// The same device as the harness's own client sees it.
    pub(crate) fn applicant(&self, api_version: &str) -> Applicant {
        Applicant {
            scope: self.id_scope.clone(),
            registration_id: self.registration_id.clone(),
            key: self.key.clone(),
            api_version: api_version.to_owned(),
        }
    }

    fn session(&self, hub: &str) -> String {
        format!("{}@{hub}", self.registration_id)
    }

    fn add_credential(&self, command: &mut Value) {
        command["key"] = self.key.to_base64().into();
    }
}
