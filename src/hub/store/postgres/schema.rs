//! The tables, and who may write a hub's part of them.

use sqlx::error::DatabaseError;
use sqlx::{Connection as _, PgConnection, Row as _};

/// Names the lock under which tables are made: two programs at once would fail.
const MAKING: i64 = 0x7265_686f_6d65;

/// Ids are compared byte by byte, as every store does.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS rehome_hubs (
         host text COLLATE \"C\" PRIMARY KEY,
         epoch bigint NOT NULL DEFAULT 0,
         reserved bigint NOT NULL DEFAULT 0,
         total bigint NOT NULL DEFAULT 0,
         enabled bigint NOT NULL DEFAULT 0,
         migration text
     )",
    "CREATE TABLE IF NOT EXISTS rehome_devices (
         host text COLLATE \"C\" NOT NULL REFERENCES rehome_hubs,
         id text COLLATE \"C\" NOT NULL,
         revision bigint NOT NULL,
         enabled boolean NOT NULL,
         body bytea NOT NULL,
         PRIMARY KEY (host, id)
     )",
];

/// Makes the tables where there are none.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut making = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MAKING)
        .execute(&mut *making)
        .await?;
    for table in TABLES {
        sqlx::query(table).execute(&mut *making).await?;
    }
    making.commit().await
}

/// Takes the hub for as long as the connection lives; the new epoch and how far a migration is, or
/// `None` where another connection has it.
pub(super) async fn take(
    connection: &mut PgConnection,
    host: &str,
) -> Result<Option<(i64, Option<String>)>, sqlx::Error> {
    let lock = sqlx::query("SELECT pg_try_advisory_lock(hashtextextended($1, $2)) AS ours");
    let row = lock
        .bind(host)
        .bind(MAKING)
        .fetch_one(&mut *connection)
        .await?;
    if !row.try_get::<bool, _>("ours")? {
        return Ok(None);
    }
    let begin = sqlx::query(
        "INSERT INTO rehome_hubs (host, epoch) VALUES ($1, 1) \
         ON CONFLICT (host) DO UPDATE SET epoch = rehome_hubs.epoch + 1 RETURNING epoch, migration",
    );
    let row = begin.bind(host).fetch_one(connection).await?;
    Ok(Some((row.try_get("epoch")?, row.try_get("migration")?)))
}

/// A write is acknowledged when it survives the loss of power, whatever the database's own setting;
/// one that asks for more than that is left as it is.
pub(super) async fn make_durable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::query("SHOW synchronous_commit")
        .fetch_one(&mut *connection)
        .await?;
    if row.try_get::<String, _>(0)? == "off" {
        sqlx::query("SET synchronous_commit TO on")
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Whether a device of some size could be written. It is, and taken back; no device has such an id.
pub(super) async fn has_room(
    connection: &mut PgConnection,
    host: &str,
) -> Result<bool, sqlx::Error> {
    let mut trying = connection.begin().await?;
    // Random, for what can be compressed needs no room.
    let write = sqlx::query(
        "INSERT INTO rehome_devices (host, id, revision, enabled, body) \
         SELECT $1, '', 0, false, string_agg(uuid_send(gen_random_uuid()), '') \
         FROM generate_series(1, 8192)",
    );
    match write.bind(host).execute(&mut *trying).await {
        Ok(_) => {
            trying.rollback().await?;
            Ok(true)
        }
        Err(why) if is_full(&why) => Ok(false),
        Err(why) => Err(why),
    }
}

/// Whether the server says that it has no room, so that the transaction did not happen.
pub(super) fn is_full(why: &sqlx::Error) -> bool {
    let said = why.as_database_error().and_then(DatabaseError::code);
    said.as_deref() == Some("53100")
}
