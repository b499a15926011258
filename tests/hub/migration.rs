//! The way of a hub's devices from its file to a real PostgreSQL.

use std::path::Path;

use rehome::hub::store::{Migration, PostgresStore};
use rehome_testing::{Postgres, Process, expect};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, raw_sql};

use super::process::{HOST, HubProcess, START_WITHIN, Service};

/// Devices that are brought over: several pages.
const DEVICES: usize = 3000;
/// How many of them are there when the migration is broken off: two pages.
const BEFORE: usize = 1000;

fn id(number: usize) -> String {
    format!("device-{number:05}")
}

async fn fill(hub: &HubProcess, service: &Service) {
    let numbers: Vec<usize> = (0..DEVICES).collect();
    for some in numbers.chunks(100) {
        let devices = some.iter().map(|number| {
            json!({ "id": id(*number), "importMode": "create",
                "properties": { "desired": { "number": number } } })
        });
        service.done(hub, "POST /devices", &devices.collect()).await;
    }
}

fn migrate(hub: &HubProcess, database: &Path) -> Process {
    let arguments = [
        "hub".to_owned(),
        "migrate".to_owned(),
        format!("--host-name={HOST}"),
        format!("--store={}", hub.store().join("devices.redb").display()),
        format!("--store-postgres={}", database.display()),
    ];
    let environment: [(&str, &str); 0] = [];
    let log = hub.store().join("migrate.log");
    Process::spawn(
        "migrate",
        env!("CARGO_BIN_EXE_rehome"),
        arguments,
        environment,
        log,
    )
    .unwrap()
}

/// Holds up whoever writes the device behind the first pages, for as long as it lives.
struct HoldUp(PgConnection);

impl HoldUp {
    async fn begin(server: &Postgres) -> Self {
        // Makes the tables.
        let store = PostgresStore::open(&server.url(), HOST, Migration::Begin).await;
        drop(store.unwrap());
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        let first = id(BEFORE);
        let hold = format!(
            "SELECT pg_advisory_lock(7);
             CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
             CREATE TRIGGER hold_up BEFORE INSERT ON rehome_devices FOR EACH ROW
             WHEN (NEW.id >= '{first}') EXECUTE FUNCTION hold_up();"
        );
        let hold = raw_sql(AssertSqlSafe(hold));
        hold.execute(&mut connection).await.unwrap();
        Self(connection)
    }

    /// Waits until the migration is held up, in the middle of a page. It may be seen when it has given
    /// up already.
    async fn holds(&mut self, migration: &mut Process) {
        expect("a migration that is held up", START_WITHIN, async || {
            let waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            let seen = raw_sql(waiting).fetch_optional(&mut self.0).await;
            let has_ended = migration.ended().unwrap().is_some();
            (has_ended || seen.unwrap().is_some()).then_some(())
        })
        .await;
    }

    /// Lets it go on, for as far as it lives; how many devices there are then.
    async fn end(mut self) -> i64 {
        let end = "SELECT pg_advisory_unlock(7); DROP TRIGGER hold_up ON rehome_devices";
        raw_sql(end).execute(&mut self.0).await.unwrap();
        let count = sqlx::query("SELECT count(*) FROM rehome_devices");
        count.fetch_one(&mut self.0).await.unwrap().get(0)
    }
}

/// Kills a migration in the middle of a page; how many devices have arrived then.
async fn break_off(server: &Postgres, hub: &HubProcess, database: &Path) -> i64 {
    let mut hold_up = HoldUp::begin(server).await;
    let mut broken_off = migrate(hub, database);
    hold_up.holds(&mut broken_off).await;
    broken_off.kill().unwrap();
    hold_up.end().await
}

#[tokio::test]
async fn devices_are_brought_to_postgresql_though_the_migration_is_killed() {
    let server = Postgres::start().await.unwrap();
    let mut hub = HubProcess::start().await;
    let service = hub.service();
    fill(&hub, &service).await;
    let last = format!("GET /devices/{}", id(DEVICES - 1));
    let before = service.done(&hub, &last, &Value::Null).await;
    assert!(hub.terminate().await);
    let database = hub.move_to(&server);

    let arrived = break_off(&server, &hub, &database).await;
    assert_eq!(arrived, i64::try_from(BEFORE).unwrap(), "half a page");
    // The hub does not serve half of its devices.
    hub.begin();
    assert!(!hub.process().wait(START_WITHIN).await.unwrap().success());
    assert!(
        hub.log().contains("run `rehome hub migrate` again"),
        "{}",
        hub.log()
    );

    let mut resumed = migrate(&hub, &database);
    assert!(resumed.wait(START_WITHIN).await.unwrap().success());
    let log = resumed.output().unwrap();
    assert!(log.contains("every device was brought over"), "{log}");
    let gone_on = format!("after=\"{}\"", id(BEFORE - 1));
    assert!(log.contains(&gone_on), "{log}");
    let pages = log.matches("brought over devices=").count();
    assert_eq!(pages, (DEVICES - BEFORE) / 500, "it began anew: {log}");
    let mut again = migrate(&hub, &database);
    assert!(
        again.wait(START_WITHIN).await.unwrap().success(),
        "once more does nothing"
    );

    hub.restart().await;
    for number in [0, 499, 500, 1777, DEVICES - 1] {
        let twin = service
            .done(&hub, &format!("GET /twins/{}", id(number)), &Value::Null)
            .await;
        assert_eq!(twin["properties"]["desired"]["number"], number);
    }
    let after = service.done(&hub, &last, &Value::Null).await;
    assert_eq!(before["etag"], after["etag"]);
    assert_eq!(before["generationId"], after["generationId"]);
    let counts = service
        .done(&hub, "GET /statistics/devices", &Value::Null)
        .await;
    assert_eq!(counts["totalDeviceCount"], DEVICES);
    // Numbers go on where the file's ended.
    let body = json!([{ "id": "new", "importMode": "create" }]);
    let made = service.done(&hub, "POST /devices", &body).await;
    let serial = |generation: &Value| -> u64 {
        let (serial, _) = generation.as_str().unwrap().split_once('-').unwrap();
        serial.parse().unwrap()
    };
    let new = serial(&made["devices"][0]["generationId"]);
    assert!(new > serial(&after["generationId"]), "{made}");
}

#[tokio::test]
async fn what_changed_in_the_file_after_a_migration_began_is_not_lost() {
    let server = Postgres::start().await.unwrap();
    let mut hub = HubProcess::start().await;
    let service = hub.service();
    fill(&hub, &service).await;
    let change = async |hub: &mut HubProcess, color: &str| {
        hub.move_back();
        hub.restart().await;
        let twin = format!("PATCH /twins/{}", id(7));
        let color = json!({ "tags": { "color": color } });
        service.done(hub, &twin, &color).await;
        assert!(hub.terminate().await);
    };
    assert!(hub.terminate().await);
    let database = hub.move_to(&server);
    break_off(&server, &hub, &database).await;

    change(&mut hub, "red").await;
    let mut anew = migrate(&hub, &database);
    assert!(anew.wait(START_WITHIN).await.unwrap().success());
    let log = anew.output().unwrap();
    assert!(log.contains("they are removed"), "{log}");
    hub.move_to(&server);
    hub.restart().await;
    let twin = format!("GET /twins/{}", id(7));
    let seen = service.done(&hub, &twin, &Value::Null).await;
    assert_eq!(seen["tags"]["color"], "red");
    assert!(hub.terminate().await);

    change(&mut hub, "blue").await;
    let mut late = migrate(&hub, &database);
    assert!(!late.wait(START_WITHIN).await.unwrap().success());
    let log = late.output().unwrap();
    assert!(log.contains("has served from the file since"), "{log}");
}

#[tokio::test]
async fn devices_of_another_origin_are_not_written_over() {
    let server = Postgres::start().await.unwrap();
    let occupied = HubProcess::start_in(&server).await;
    let body = json!([{ "id": "press-7", "importMode": "create" }]);
    occupied
        .service()
        .done(&occupied, "POST /devices", &body)
        .await;
    let mut hub = HubProcess::start().await;
    assert!(hub.terminate().await);
    let database = hub.move_to(&server);
    let mut waits = migrate(&hub, &database);
    waits
        .wait_for_line("another process serves hub", START_WITHIN)
        .await
        .unwrap();
    drop(occupied);
    assert!(!waits.wait(START_WITHIN).await.unwrap().success());
    let log = waits.output().unwrap();
    assert!(log.contains("did not come from a migration"), "{log}");
}
