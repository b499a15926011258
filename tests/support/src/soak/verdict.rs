//! What must hold in the end: every device is where its registration says, nowhere else, with all
//! that was ever acknowledged to it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use kube::api::{DynamicObject, ListParams};
use rehome_testing::until;
use serde_json::Value;

use super::body::count_of;
use super::faults::{Fault, Faults};
use super::ground::Ground;
use super::life::Account;

/// Every device must have been served in the last minute.
const LATELY: Duration = Duration::from_mins(1);
/// Longest time for what is under way to end.
const SETTLES: Duration = Duration::from_mins(2);

/// Where a hub has a device.
struct Found {
    /// The hub's host name.
    hub: String,
    twin: Value,
}

/// What was found. Its `Display` is a part of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Those of the fleet, and one pioneer of each group.
    registrations: usize,
    settled: usize,
    at_home: usize,
    /// Devices whose hub has the count that was acknowledged to them last.
    whole: usize,
    devices: usize,
    served: usize,
    /// How long ago the last of them was served.
    longest: Duration,
}

/// Looks at every device, every registration and every hub. `end` is when the run ended.
pub(crate) async fn judge(
    ground: &Ground,
    accounts: &[Account],
    end: Instant,
    faults: &Faults,
) -> Result<Verdict> {
    let mut verdict = Verdict {
        devices: accounts.len(),
        ..Verdict::default()
    };
    judge_service(accounts, end, &mut verdict, faults);
    judge_homes(ground, accounts, &mut verdict, faults).await?;
    Ok(verdict)
}

fn judge_service(accounts: &[Account], end: Instant, verdict: &mut Verdict, faults: &Faults) {
    for account in accounts {
        let before = account
            .served
            .map(|served| end.saturating_duration_since(served));
        let (id, kind) = (&account.registration_id, account.kind);
        match before {
            None => faults.add(Fault::Forgotten, &format!("{id} ({kind}) never was")),
            Some(before) if before > LATELY => {
                let before = before.as_secs();
                faults.add(
                    Fault::Forgotten,
                    &format!("{id} ({kind}) was {before} s ago"),
                );
            }
            Some(_) => verdict.served += 1,
        }
        verdict.longest = verdict.longest.max(before.unwrap_or(Duration::MAX));
    }
}

async fn judge_homes(
    ground: &Ground,
    accounts: &[Account],
    verdict: &mut Verdict,
    faults: &Faults,
) -> Result<()> {
    let records = settled(ground, faults).await?;
    verdict.registrations = records.len();
    verdict.settled = records.iter().filter(|record| is_settled(record)).count();
    let mut found: HashMap<String, Vec<Found>> = HashMap::new();
    for hub in &ground.installation.hubs {
        for twin in hub.census().await? {
            let device = twin["deviceId"].as_str().unwrap_or_default().to_owned();
            let hub = hub.host();
            found.entry(device).or_default().push(Found { hub, twin });
        }
    }
    let mut homes = BTreeMap::new();
    for record in &records {
        let status = &record.data["status"];
        let id = record.data["spec"]["registrationId"].as_str();
        let id = id.unwrap_or_default().to_owned();
        let device = status["deviceId"].as_str().unwrap_or_default();
        let found = found.remove(device).unwrap_or_default();
        match the_home(&found, &status["assignedHub"]) {
            Ok(twin) => {
                homes.insert(id, twin.clone());
            }
            Err(why) => faults.add(Fault::Homeless, &format!("{id}: {why}")),
        }
    }
    verdict.at_home = homes.len();
    for (device, found) in found {
        let hubs: Vec<_> = found.iter().map(|it| it.hub.as_str()).collect();
        faults.add(
            Fault::Orphan,
            &format!("{device} at {}", hubs.join(" and ")),
        );
    }
    let known = |id: &str| {
        records
            .iter()
            .any(|it| it.data["spec"]["registrationId"] == id)
    };
    for account in accounts {
        let id = &account.registration_id;
        match homes.get(id) {
            Some(twin) => verdict.whole += usize::from(judge_twin(account, twin, faults)),
            // Told already, if it has a registration.
            None if known(id) => {}
            None => faults.add(Fault::Homeless, &format!("{id}: it has no registration")),
        }
    }
    Ok(())
}

/// All registrations, once nothing is under way any more.
async fn settled(ground: &Ground, faults: &Faults) -> Result<Vec<DynamicObject>> {
    let registrations = ground.tenant.objects("DeviceRegistration");
    let all = async || anyhow::Ok(registrations.list(&ListParams::default()).await?.items);
    let waited = until(SETTLES, async || {
        let records = all().await?;
        let open = records.iter().filter(|record| !is_settled(record)).count();
        ensure!(open == 0, "{open} registrations are not settled");
        Ok(records)
    });
    match waited.await {
        Ok(records) => Ok(records),
        Err(last) => {
            let last = last.unwrap_or_else(|| anyhow!("no answer"));
            eprintln!("waited {SETTLES:?} for every registration to settle: {last:#}");
            let records = all().await?;
            for record in records.iter().filter(|record| !is_settled(record)) {
                let name = record.metadata.name.as_deref().unwrap_or_default();
                let what = format!("{name}: its status is {}", record.data["status"]);
                faults.add(Fault::Unsettled, &what);
            }
            Ok(records)
        }
    }
}

fn is_settled(record: &DynamicObject) -> bool {
    let (spec, status) = (&record.data["spec"], &record.data["status"]);
    let has_nothing_left = status["cleanup"].as_array().is_none_or(Vec::is_empty);
    status["state"] == "Assigned"
        && status["transfer"].is_null()
        && has_nothing_left
        && status["operationId"] == spec["request"]["operationId"]
}

/// The twin at the one hub that has the device.
fn the_home<'f>(found: &'f [Found], recorded: &Value) -> Result<&'f Value, String> {
    let [home] = found else {
        let hubs: Vec<_> = found.iter().map(|it| it.hub.as_str()).collect();
        return Err(format!("{} hubs have it: {}", found.len(), hubs.join(", ")));
    };
    if *recorded != home.hub {
        return Err(format!("{} has it, and {recorded} is recorded", home.hub));
    }
    let status = &home.twin["status"];
    if status != "enabled" {
        return Err(format!("its identity at {} is {status}", home.hub));
    }
    Ok(&home.twin)
}

/// Whether what it reported last is there, and what it was given first.
fn judge_twin(account: &Account, twin: &Value, faults: &Faults) -> bool {
    let Account {
        registration_id,
        kind,
        acknowledged,
        is_unsure,
        ..
    } = account;
    let reported = &twin["properties"]["reported"];
    let is_right = count_of(reported)
        .is_ok_and(|seen| seen == *acknowledged || *is_unsure && seen == acknowledged + 1);
    if !is_right {
        let seen = &reported["count"];
        let what = format!("its hub has the count {seen} where {acknowledged} was acknowledged");
        faults.add(
            Fault::LostWrite,
            &format!("{registration_id} ({kind}): {what}"),
        );
    }
    let is_whole = twin["tags"]["line"] == 3 && twin["properties"]["desired"]["interval"] == 60;
    if !is_whole {
        let what = format!("its initial twin is lost: {twin}");
        faults.add(
            Fault::LostWrite,
            &format!("{registration_id} ({kind}): {what}"),
        );
    }
    is_right && is_whole
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registrations,
            devices,
            ..
        } = self;
        let mut line =
            |what: &str, count: usize, all: usize| writeln!(f, "{what:<40}{count:>8} of {all}");
        line(
            "registrations Assigned, nothing left",
            self.settled,
            *registrations,
        )?;
        line(
            "at one hub, enabled, the recorded one",
            self.at_home,
            *registrations,
        )?;
        line("with all that was acknowledged", self.whole, *devices)?;
        line("served in the last minute", self.served, *devices)?;
        let longest = self.longest.as_secs();
        writeln!(f, "{:<40}{longest:>8} s", "  the last of them before")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::body::Kind;
    use super::*;

    fn found(hub: &str, status: &str) -> Found {
        Found {
            hub: hub.to_owned(),
            twin: json!({ "status": status }),
        }
    }

    fn account(acknowledged: u64, is_unsure: bool) -> Account {
        Account {
            registration_id: "one".to_owned(),
            kind: Kind {
                client: "fast client",
                protocol: "mqtt",
            },
            acknowledged,
            is_unsure,
            served: None,
        }
    }

    #[test]
    fn a_home_is_the_only_one_enabled_and_recorded() {
        let west = json!("west");
        assert!(the_home(&[found("west", "enabled")], &west).is_ok());
        for wrong in [
            vec![],
            vec![found("west", "disabled")],
            vec![found("east", "enabled")],
            vec![found("west", "enabled"), found("east", "disabled")],
        ] {
            assert!(the_home(&wrong, &west).is_err());
        }
    }

    #[test]
    fn a_count_may_be_ahead_only_of_a_device_that_does_not_know() {
        let twin = |count: u64| {
            json!({
                "tags": { "line": 3 },
                "properties": { "desired": { "interval": 60 }, "reported": { "count": count } },
            })
        };
        let judged = |account: &Account, count| {
            let faults = Faults::new();
            let is_fine = judge_twin(account, &twin(count), &faults);
            assert_eq!(is_fine, faults.count() == 0);
            faults.count()
        };
        assert_eq!(judged(&account(7, false), 7), 0);
        assert_eq!(judged(&account(7, false), 8), 1);
        assert_eq!(judged(&account(7, true), 8), 0);
        assert_eq!(judged(&account(7, true), 6), 1);
        let faults = Faults::new();
        assert!(!judge_twin(&account(0, false), &json!({}), &faults));
        assert_eq!(faults.count(), 1, "the initial twin");
    }

    #[test]
    fn whoever_was_never_served_or_long_ago_is_forgotten() {
        let faults = Faults::new();
        let end = Instant::now() + Duration::from_mins(5);
        let served = |before: u64| Account {
            served: end.checked_sub(Duration::from_secs(before)),
            ..account(0, false)
        };
        let mut verdict = Verdict::default();
        judge_service(&[served(59), served(61)], end, &mut verdict, &faults);
        assert_eq!((verdict.served, verdict.longest.as_secs()), (1, 61));
        judge_service(&[account(0, false)], end, &mut verdict, &faults);
        assert_eq!(faults.count(), 2);
    }

    #[test]
    fn a_registration_with_anything_left_is_not_settled() {
        let record = |status: Value| {
            let mut record: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
                "metadata": { "name": "one" },
                "spec": { "request": { "operationId": "a" } },
            }))
            .unwrap();
            record.data["status"] = status;
            record
        };
        let fine = json!({ "state": "Assigned", "operationId": "a", "cleanup": [] });
        assert!(is_settled(&record(fine.clone())));
        for (member, value) in [
            ("state", json!("Assigning")),
            ("operationId", json!("b")),
            ("transfer", json!({ "id": "t" })),
            ("cleanup", json!([{}])),
        ] {
            let mut status = fine.clone();
            status[member] = value;
            assert!(!is_settled(&record(status)), "{member}");
        }
    }
}
