//! The chapters with a device in them, one for each thing that may become of it.

use anyhow::{Context, Result};
use rehome_testing::device::{Applicant, Key, Protocol, Refused, Session, Told};
use rehome_testing::installation::Twin;
use serde_json::{Value, json};

use super::{DEVICE, INITIAL_DESIRED, INITIAL_TAGS, Stage, applicant};

/// A device whose SDK is from before reprovisioning policies existed.
const OLD_DEVICE: &str = "press-1";

impl Stage {
    /// First assignment. Ends with a device that has a history worth keeping.
    pub(super) async fn provision(&mut self) -> Result<()> {
        self.narration
            .chapter("A device that runs azure-iot-device 2.14.0 from PyPI registers");
        let told = self.device.ask("register").await?;
        self.narration.quote(&told.to_string());
        let host = self.west().host();
        self.claim_told(&told, &host, "initialAssignment")?;
        self.device.ask("connect").await?;
        let twin = self.device.ask("twin").await?;
        let interval = &twin["desired"]["interval"];
        self.narration
            .claim_equal("it starts with the initial twin", interval, &json!(60))?;

        self.narration
            .say("\nIt reports a random number, once; nobody else knows it.");
        let nonce = Key::random()?.to_base64();
        let report = json!({ "firmware": "4.2", "nonce": nonce });
        self.device.ask(&format!("report {report}")).await?;
        self.narration
            .say("A back end sets a tag and a desired property at hub-west.");
        let patch = json!({
            "tags": { "owner": "night shift" }, "properties": { "desired": { "interval": 5 } },
        });
        self.west().patch_twin(DEVICE, &patch).await?;
        let change = self.device.ask("desired").await?;
        let what = "the device is notified of the desired property";
        self.narration
            .claim_equal(what, &change["interval"], &json!(5))?;
        self.show_registrations().await?;
        self.show_twins(DEVICE).await?;
        self.claim_only_home(DEVICE, "hub-west").await
    }

    /// `MigrateData`: the device moves with its twin.
    pub(super) async fn migrate(&mut self) -> Result<()> {
        self.narration.chapter("kubectl moves the line to hub-east");
        let before = self.west().twin(DEVICE).await?.context("no twin to move")?;
        let last = self.operation().await?;
        self.patch_enrollment(&static_hub("hub-east")).await?;
        self.claim_only_home(DEVICE, "hub-west").await?;
        self.narration
            .say("\nNothing moves until the device checks in, as it does at every start:");
        let told = self.check_in(&last, "").await?;
        self.narration.quote(&told.to_string());
        let host = self.east().host();
        self.claim_told(&told, &host, "deviceDataMigrated")?;

        self.narration
            .say("\nBefore the device connects again, at the hubs:");
        let after = self.east().twin(DEVICE).await?;
        self.show_twins(DEVICE).await?;
        let nonce = before.reported["nonce"]
            .as_str()
            .context("no nonce")?
            .to_owned();
        let moved = after
            .as_ref()
            .is_some_and(|twin| twin.reported["nonce"] == *nonce);
        self.narration
            .claim("the random number is at hub-east", moved)?;
        let equal = after.as_ref() == Some(&before);
        self.narration
            .claim("tags, desired and reported are what they were", equal)?;
        self.claim_only_home(DEVICE, "hub-east").await?;
        self.device.ask("lost").await?;
        self.narration
            .claim("the device has lost its connection to hub-west", true)?;
        self.claim_refused("hub-west").await?;

        let text = format!(
            "\nThe same process ({}) goes on at hub-east:",
            self.device.pid()
        );
        self.narration.say(&text);
        self.device.ask("connect").await?;
        let twin = self.device.ask("twin").await?;
        let what = "it reads its twin with the number";
        self.narration
            .claim_equal(what, &twin["reported"]["nonce"], &nonce.into())?;
        let patch = json!({ "properties": { "desired": { "interval": 7 } } });
        self.east().patch_twin(DEVICE, &patch).await?;
        let change = self.device.ask("desired").await?;
        let what = "it is notified of a desired property that is set there";
        self.narration
            .claim_equal(what, &change["interval"], &json!(7))?;
        self.show_registrations().await
    }

    /// `ResetData`: the initial twin, on another hub and on the same one.
    pub(super) async fn reset(&mut self) -> Result<()> {
        self.narration
            .chapter("ResetData: the device starts afresh");
        let last = self.operation().await?;
        let mut spec = static_hub("hub-west");
        spec["reprovisionPolicy"] = "ResetData".into();
        self.patch_enrollment(&spec).await?;
        let told = self.check_in(&last, "").await?;
        let host = self.west().host();
        self.claim_told(&told, &host, "deviceDataReset")?;
        self.claim_initial_twin().await?;
        self.claim_only_home(DEVICE, "hub-west").await?;

        self.narration
            .say("\nOn the same hub that is a factory reset:");
        self.device.ask("connect").await?;
        self.device.ask(r#"report {"wear":"high"}"#).await?;
        let before = self.generation().await?;
        let told = self.check_in(&told, r#"{"wish":"factory reset"}"#).await?;
        self.claim_told(&told, &host, "deviceDataReset")?;
        self.claim_initial_twin().await?;
        let is_new = self.generation().await? != before;
        self.narration
            .claim("the identity was created anew", is_new)?;
        self.show_twins(DEVICE).await
    }

    /// `Never`: the device stays, whatever allocation says.
    pub(super) async fn stay(&mut self) -> Result<()> {
        self.narration
            .chapter("Never: the device stays where it is");
        self.device.ask("connect").await?;
        self.device.ask(r#"report {"wear":"low"}"#).await?;
        let before = (self.generation().await?, self.west().twin(DEVICE).await?);
        let last = self.operation().await?;
        let mut spec = static_hub("hub-east");
        spec["reprovisionPolicy"] = "Never".into();
        self.patch_enrollment(&spec).await?;
        let told = self.check_in(&last, "").await?;
        let host = self.west().host();
        self.claim_told(&told, &host, "deviceDataReset")?;
        let after = (self.generation().await?, self.west().twin(DEVICE).await?);
        self.narration
            .claim("its identity and twin are untouched", before == after)?;
        self.claim_only_home(DEVICE, "hub-west").await?;
        self.device.ask(r#"report {"wear":"none"}"#).await?;
        self.narration
            .claim("it is still connected and can report", true)
    }

    /// No policy: devices from before 2018-04-01 stay, newer ones move.
    pub(super) async fn stick(&mut self) -> Result<()> {
        self.narration
            .chapter("No policy: old devices stay, new ones move");
        self.patch_enrollment(&json!({
            "reprovisionPolicy": null, "allocation": { "policy": "Static", "hubs": ["hub-west"] },
        }))
        .await?;
        let old = applicant(&self.namespace, &self.group_key, OLD_DEVICE, "2017-11-15");
        let first = self.register_old(&old).await?;
        let home = self.west().host();
        let what = "press-1, which speaks api-version 2017-11-15, is assigned to hub-west";
        self.narration
            .claim(what, first.status == "assigned" && first.hub == home)?;
        let mut session = self.session(&old.key, OLD_DEVICE, "hub-west").await?;
        session.report(&json!({ "age": "old" })).await?;

        let last = self.operation().await?;
        self.patch_enrollment(&static_hub("hub-east")).await?;
        let told = self.check_in(&last, "").await?;
        let host = self.east().host();
        self.claim_told(&told, &host, "deviceDataMigrated")?;
        self.claim_only_home(DEVICE, "hub-east").await?;
        let again = self.register_old(&old).await?;
        let stays = again.status == "assigned" && again.hub == home;
        self.narration
            .claim("press-1 is told hub-west again", stays)?;
        let is_asked = again.operation_id != first.operation_id;
        self.narration
            .claim("that was decided anew, for the new allocation", is_asked)?;
        self.claim_only_home(OLD_DEVICE, "hub-west").await?;
        let twin = session.twin().await?;
        let what = "press-1 is still connected and has its twin";
        self.narration
            .claim_equal(what, &twin["reported"]["age"], &json!("old"))?;
        self.device.ask("connect").await?;
        self.show_registrations().await?;
        // Counters are written every ten seconds at most.
        let total = "{.status.registrations.total}";
        self.kubectl.wait_for("enr/line-3", total, "2").await?;
        for hub in ["iothub/hub-west", "iothub/hub-east"] {
            self.kubectl
                .wait_for(hub, "{.status.assignedDevices}", "1")
                .await?;
        }
        self.narration.claim("the counters have it, too", true)?;
        self.kubectl.show(&["get", "enrollments"]).await?;
        self.kubectl.show(&["get", "iothubs"]).await
    }

    fn claim_told(&mut self, told: &Value, host: &str, substatus: &str) -> Result<()> {
        let hub = self.installation.hub_at(host)?.name.clone();
        let seen = json!([
            told["status"],
            told["hub"],
            told["device"],
            told["substatus"]
        ]);
        let wanted = json!(["assigned", host, DEVICE, substatus]);
        let what = format!("{DEVICE} is told: assigned to {hub}, {substatus}");
        self.narration.claim_equal(&what, &seen, &wanted)
    }

    async fn claim_initial_twin(&mut self) -> Result<()> {
        let initial = Twin {
            tags: serde_json::from_str(INITIAL_TAGS)?,
            desired: serde_json::from_str(INITIAL_DESIRED)?,
            reported: json!({}),
        };
        let twin = self.west().twin(DEVICE).await?;
        let what = "its twin at hub-west is the Enrollment's initial twin";
        self.narration.claim(what, twin == Some(initial))
    }

    /// Claims that a hub does not let the device in with its own key.
    async fn claim_refused(&mut self, hub: &str) -> Result<()> {
        let key = self.group_key.of_device(DEVICE);
        let refusal = self.session(&key, DEVICE, hub).await.err();
        let code = refusal.and_then(|error| error.downcast_ref().copied());
        let what = format!("{hub} refuses the device's key (CONNACK 5)");
        self.narration.claim(&what, code == Some(Refused(5)))
    }

    async fn session(&self, key: &Key, device_id: &str, hub: &str) -> Result<Session> {
        let mut hubs = self.installation.hubs.iter();
        let hub = hubs
            .find(|known| known.name == hub)
            .context("no such hub")?;
        let trust = &self.installation.registrar.trust;
        Session::connect(&hub.host(), hub.place.mqtt(), trust, device_id, key).await
    }

    async fn register_old(&self, old: &Applicant) -> Result<Told> {
        let registrar = &self.installation.registrar;
        registrar.register(old, Protocol::Mqtt, None).await
    }

    /// What the device was told last, as the record has it.
    async fn operation(&self) -> Result<Value> {
        let path = "jsonpath={.status.operationId}";
        let id = self
            .kubectl
            .run(&["get", "devreg", DEVICE, "-o", path])
            .await?;
        Ok(json!({ "operation": id }))
    }

    /// Generation id of the device's identity at hub-west.
    async fn generation(&self) -> Result<Value> {
        let identity = self.west().identity(DEVICE).await?;
        Ok(identity.context("no identity at hub-west")?["generationId"].clone())
    }
}

fn static_hub(hub: &str) -> Value {
    json!({ "allocation": { "policy": "Static", "hubs": [hub] } })
}
