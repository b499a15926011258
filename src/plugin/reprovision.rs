//! `kubectl rehome reprovision`: the operator's wish that a device move or start afresh now.
//!
//! Writes `spec.reprovision` and nothing else; with `--wait`, follows the registration to its end.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, Outcome, fleet, output};
use crate::api::v1alpha1::{
    DeviceRegistration, DeviceRegistrationStatus, ReprovisionMode, ReprovisionTrigger,
};
use crate::cluster::apply::bounded;
use crate::random::Random;

/// What to do, and to whom.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Registration id, or name of the object.
    pub(super) registration: String,
    /// `policy` does what the Enrollment says; the others do it whatever it says.
    #[arg(long, value_enum, default_value = "policy")]
    mode: Mode,
    /// IoTHub to move to, instead of what allocation chooses; with a mode other than policy.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Name of the wish; each is carried out once.
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// Wait until it is done.
    #[arg(long)]
    wait: bool,
    /// Longest wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "wait")]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    #[value(alias = "Policy")]
    Policy,
    #[value(alias = "MigrateData")]
    MigrateData,
    #[value(alias = "ResetData")]
    ResetData,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    registration: String,
    trigger: String,
    /// False when it was not waited for, or in vain.
    finished: bool,
    /// Host name of the hub where the device lives.
    hub: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

impl Options {
    /// Writes the wish, and waits if it is to.
    pub(super) async fn run(
        &self,
        client: &Client,
        namespace: &str,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<(Done, Outcome), Failure> {
        let found = fleet::registration(client, namespace, &self.registration).await?;
        let trigger = self.trigger(now, random)?;
        let api: Api<DeviceRegistration> = Api::namespaced(client.clone(), namespace);
        let name = found.name_any();
        // A merge: what an earlier wish named must not be left in this one.
        let patch = json!({ "spec": { "reprovision": {
            "id": trigger.id, "mode": trigger.mode,
            "hub": trigger.hub.as_ref().map_or(Value::Null, |hub| json!(hub)),
        } } });
        let params = PatchParams {
            field_manager: Some("kubectl-rehome".to_owned()),
            ..PatchParams::default()
        };
        let failed =
            |error| Failure::of_request("patch", "deviceregistrations", Some(namespace), error);
        let written = bounded(api.patch(&name, &params, &Patch::Merge(patch)))
            .await
            .map_err(failed)?;
        if !self.wait {
            return Ok((Done::of(&written, &trigger, false), Outcome::Fine));
        }
        let patience = Duration::from_secs(self.timeout);
        let Ok(ended) = tokio::time::timeout(patience, follow(api, &name, &trigger)).await else {
            let last = fleet::registration(client, namespace, &self.registration).await?;
            return Ok((Done::of(&last, &trigger, false), Outcome::Trouble));
        };
        let ended = ended?;
        let outcome = if is_given_up(&ended) {
            Outcome::Trouble
        } else {
            Outcome::Fine
        };
        Ok((Done::of(&ended, &trigger, true), outcome))
    }

    fn trigger(&self, now: Timestamp, random: &dyn Random) -> Result<ReprovisionTrigger, Failure> {
        let mode = match self.mode {
            Mode::Policy => ReprovisionMode::Policy,
            Mode::MigrateData => ReprovisionMode::MigrateData,
            Mode::ResetData => ReprovisionMode::ResetData,
        };
        if self.hub.is_some() && mode == ReprovisionMode::Policy {
            return Err(Failure::new(
                "--hub needs --mode migrate-data or reset-data: by policy, allocation chooses the hub",
            ));
        }
        let fresh = || {
            let [one, two, three, four, ..] = random.bytes();
            let time = now.strftime("%Y%m%dT%H%M%SZ");
            format!("{time}-{one:02x}{two:02x}{three:02x}{four:02x}")
        };
        Ok(ReprovisionTrigger {
            id: self.id.clone().unwrap_or_else(fresh),
            mode,
            hub: self.hub.clone(),
        })
    }
}

/// Follows the registration until the wish is carried out, and says how far it is.
async fn follow(
    api: Api<DeviceRegistration>,
    name: &str,
    trigger: &ReprovisionTrigger,
) -> Result<DeviceRegistration, Failure> {
    let mut progress = Progress::default();
    let seen = watcher::watch_object(api, name);
    pin_mut!(seen);
    while let Some(seen) = seen.next().await {
        // The watch goes on by itself after an error; the time limit ends it.
        let Ok(object) = seen else { continue };
        let Some(object) = object else {
            return Err(Failure::new(format!(
                "registration {name} was deleted meanwhile"
            )));
        };
        let nothing = DeviceRegistrationStatus::default();
        let status = object.status.as_ref().unwrap_or(&nothing);
        progress.show(status, trigger);
        if status.reprovision_id.as_ref() == Some(&trigger.id) && status.transfer.is_none() {
            progress.end();
            return Ok(object);
        }
    }
    Err(Failure::new(format!(
        "the watch of registration {name} ended"
    )))
}

/// Whether the move was given up: the device is where it was.
fn is_given_up(registration: &DeviceRegistration) -> bool {
    registration
        .status
        .as_ref()
        .is_some_and(|status| status.refused.is_some())
}

/// One line on a terminal that changes; a line for each change elsewhere.
#[derive(Default)]
struct Progress {
    last: String,
}

impl Progress {
    fn show(&mut self, status: &DeviceRegistrationStatus, trigger: &ReprovisionTrigger) {
        let ready = status.conditions.iter().find(|one| one.type_ == "Ready");
        let message = ready.map_or("", |ready| ready.message.as_str());
        let text = match &status.transfer {
            Some(transfer) => format!("{:?}: {message}", transfer.phase),
            None if status.reprovision_id.as_ref() == Some(&trigger.id) => message.to_owned(),
            None => "waiting for the controller".to_owned(),
        };
        if text == self.last {
            return;
        }
        if std::io::stderr().is_terminal() {
            // Nobody to tell is no reason to fail.
            let _ = write!(std::io::stderr(), "\r\u{1b}[K{text}");
        } else {
            output::remark(&text);
        }
        self.last = text;
    }

    fn end(&self) {
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

impl Done {
    fn of(registration: &DeviceRegistration, trigger: &ReprovisionTrigger, finished: bool) -> Self {
        let status = registration.status.as_ref();
        let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
        let ready = conditions.find(|one| one.type_ == "Ready");
        Self {
            registration: registration.spec.registration_id.clone(),
            trigger: trigger.id.clone(),
            finished,
            hub: status.and_then(|status| status.assigned_hub.clone()),
            reason: ready.map(|ready| ready.reason.clone()),
            message: ready.map(|ready| ready.message.clone()),
        }
    }

    /// As a person reads it.
    pub(super) fn text(&self, waited: bool) -> String {
        let (id, trigger) = (&self.registration, &self.trigger);
        let reason = self.reason.as_deref().unwrap_or("no reason");
        let message = self.message.as_deref().unwrap_or("no message");
        match (self.finished, waited) {
            (true, _) => format!("{id}: {reason}: {message}\n"),
            (false, true) => format!(
                "{id}: trigger {trigger} is not done yet: {reason}: {message}\n\
                 \nNext: kubectl rehome explain {id}\n"
            ),
            (false, false) => {
                format!("{id}: trigger {trigger} written\n\nNext: kubectl rehome explain {id}\n")
            }
        }
    }
}

impl Options {
    /// Whether the end was waited for.
    pub(super) fn waits(&self) -> bool {
        self.wait
    }
}
