//! Checkpoints and rows of links in PostgreSQL: whole columns as arrays, so that a statement writes many rows and stays
//! one prepared statement. Called by the journal alone.
use super::owner::fenced;
use super::{Trouble, text, uint};
use crate::journal::sql::int;
use crate::journal::{Error, LinkId, brake, reach};
use crate::link::{Checkpoint, Reason, Record, Row, RowState};
use bytes::Bytes;
use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{QueryBuilder, Row as _};
use storage_engine::feed::Cursor;
use storage_engine::version::VersionId;

/// Rows a statement: beyond 512 nothing gets faster, and the arrays of 1 KiB keys stay below 1 MiB.
const ROWS_PER_STATEMENT: usize = 512;

fn blob(cursor: &Option<Cursor>) -> Option<Vec<u8>> {
    cursor.as_ref().map(|c| c.0.to_vec())
}
fn cursor(row: &PgRow, column: &str) -> Result<Option<Cursor>, Error> {
    Ok(row.try_get::<Option<Vec<u8>>, _>(column)?.map(|b| Cursor(Bytes::from(b))))
}

fn checkpoint_of(row: &PgRow) -> Result<Checkpoint, Error> {
    Ok(Checkpoint {
        cursor: cursor(row, "cursor")?,
        floor: cursor(row, "floor")?,
        committed_through: uint(row, "committed_through")?,
        reach: row.try_get::<Option<String>, _>("reach")?.map(|text| reach::from_text(&text)).transpose()?,
        brake: row.try_get::<Option<String>, _>("brake")?.map(|text| brake::from_text(&text)).transpose()?,
    })
}

fn row_of(row: &PgRow) -> Result<Row, Error> {
    let id: Vec<u8> = row.try_get("version_id")?;
    let id = id.try_into().map_err(|_| Error::Unusable("version_id has not 16 bytes".into()))?;
    Ok(Row {
        key: text(row, "key")?,
        version_id: VersionId::from_bytes(id),
        pending_since: uint(row, "pending_since")?,
        bytes: uint(row, "bytes")?,
        attempts: u32::try_from(uint(row, "attempts")?).unwrap_or(u32::MAX),
        next_attempt: uint(row, "next_attempt")?,
        last_error: text(row, "last_error")?,
        reason: Reason::of(row.try_get("reason")?),
        state: if row.try_get("parked")? { RowState::Parked } else { RowState::Pending },
        floor: cursor(row, "floor")?,
        traceparent: row.try_get::<Option<Vec<u8>>, _>("traceparent")?.and_then(|b| String::from_utf8(b).ok()),
    })
}

/// Number of a link that is owned under exactly this epoch, held so until the transaction ends.
pub(super) async fn owned(db: &mut PgConnection, link: &LinkId, epoch: u64) -> Result<i64, Trouble> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT o.link FROM link_owner o JOIN link l ON l.id = o.link
         WHERE l.rule = $1 AND l.bucket = $2 AND l.peer = $3 AND o.epoch = $4 FOR KEY SHARE OF o",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .bind(int(epoch))
    .fetch_optional(&mut *db)
    .await?;
    match found {
        Some(id) => Ok(id),
        None => Err(fenced(db, link, epoch).await?.into()),
    }
}

pub async fn record(pool: &PgPool, link: &LinkId, epoch: u64, record: &Record) -> Result<(), Trouble> {
    let mut tx = pool.begin().await?;
    let id = owned(&mut tx, link, epoch).await?;
    sqlx::query(
        "INSERT INTO checkpoint (link, cursor, floor, committed_through, reach, brake) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (link) DO UPDATE SET cursor = excluded.cursor, floor = excluded.floor,
         committed_through = excluded.committed_through, reach = excluded.reach, brake = excluded.brake",
    )
    .bind(id)
    .bind(blob(&record.checkpoint.cursor))
    .bind(blob(&record.checkpoint.floor))
    .bind(int(record.checkpoint.committed_through))
    .bind(record.checkpoint.reach.as_ref().map(reach::to_text))
    .bind(record.checkpoint.brake.as_ref().map(brake::to_text))
    .execute(&mut *tx)
    .await?;
    for chunk in record.deletes.chunks(ROWS_PER_STATEMENT) {
        sqlx::query(
            "DELETE FROM link_row r USING unnest($2::bytea[], $3::bytea[]) AS d (key, version_id)
             WHERE r.link = $1 AND r.key = d.key AND r.version_id = d.version_id",
        )
        .bind(id)
        .bind(chunk.iter().map(|(key, _)| key.as_bytes()).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(_, id)| id.as_bytes().as_slice()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    for chunk in record.upserts.chunks(ROWS_PER_STATEMENT) {
        upsert(&mut tx, id, chunk).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn upsert(db: &mut PgConnection, link: i64, rows: &[Row]) -> Result<(), sqlx::Error> {
    let ints = |of: fn(&Row) -> u64| rows.iter().map(|r| int(of(r))).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO link_row (link, key, version_id, pending_since, bytes, attempts, next_attempt, last_error,
             parked, floor, reason, traceparent)
         SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
             $8::bytea[], $9::boolean[], $10::bytea[], $11::text[], $12::bytea[])
         ON CONFLICT (link, key, version_id) DO UPDATE SET pending_since = excluded.pending_since,
             bytes = excluded.bytes, attempts = excluded.attempts, next_attempt = excluded.next_attempt,
             last_error = excluded.last_error, parked = excluded.parked, floor = excluded.floor,
             reason = excluded.reason, traceparent = excluded.traceparent",
    )
    .bind(link)
    .bind(rows.iter().map(|r| r.key.as_bytes()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.version_id.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(ints(|r| r.pending_since))
    .bind(ints(|r| r.bytes))
    .bind(ints(|r| r.attempts.into()))
    .bind(ints(|r| r.next_attempt))
    .bind(rows.iter().map(|r| r.last_error.as_bytes()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.state == RowState::Parked).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| blob(&r.floor)).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.reason.word()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.traceparent.as_deref().map(str::as_bytes)).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Checkpoint and the rows due first; `None` and none for a link that was never claimed.
pub async fn load(pool: &PgPool, link: &LinkId, limit: usize) -> Result<(Option<Checkpoint>, Vec<Row>), Trouble> {
    let mut db = pool.acquire().await?;
    let id: Option<i64> = sqlx::query_scalar("SELECT id FROM link WHERE rule = $1 AND bucket = $2 AND peer = $3")
        .bind(&link.rule)
        .bind(&link.bucket)
        .bind(&link.peer)
        .fetch_optional(&mut *db)
        .await?;
    let Some(id) = id else { return Ok((None, Vec::new())) };
    let checkpoint = sqlx::query("SELECT * FROM checkpoint WHERE link = $1").bind(id).fetch_optional(&mut *db).await?;
    let rows = sqlx::query("SELECT * FROM link_row WHERE link = $1 ORDER BY parked, next_attempt LIMIT $2")
        .bind(id)
        .bind(int(limit as u64))
        .fetch_all(&mut *db)
        .await?;
    let rows = rows.iter().map(row_of).collect::<Result<_, _>>()?;
    Ok((checkpoint.as_ref().map(checkpoint_of).transpose()?, rows))
}

/// How many rows of a link wait for a person.
pub async fn parked(pool: &PgPool, link: &LinkId) -> Result<u64, Trouble> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM link_row r JOIN link l ON l.id = r.link
         WHERE rule = $1 AND bucket = $2 AND peer = $3 AND parked",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .fetch_one(pool)
    .await?;
    Ok(crate::journal::sql::uint(count, "count")?)
}

/// Checkpoint, rows and what is kept of a foreign target go; link and owner stay.
pub async fn release(pool: &PgPool, link: &LinkId, epoch: u64) -> Result<(), Trouble> {
    let mut tx = pool.begin().await?;
    let id = owned(&mut tx, link, epoch).await?;
    for forget in [
        "DELETE FROM checkpoint WHERE link = $1",
        "DELETE FROM link_row WHERE link = $1",
        "DELETE FROM version_map WHERE link = $1",
        "DELETE FROM upload WHERE link = $1",
    ] {
        sqlx::query(forget).bind(id).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Every link that stands somewhere, or those of one rule.
pub async fn links(pool: &PgPool, rule: Option<&str>) -> Result<Vec<(LinkId, Checkpoint)>, Trouble> {
    let mut sql = QueryBuilder::new(
        "SELECT rule, bucket, peer, cursor, floor, committed_through, reach, brake
         FROM checkpoint c JOIN link l ON l.id = c.link",
    );
    if let Some(rule) = rule {
        sql.push(" WHERE rule = ").push_bind(rule);
    }
    let found = sql.push(" ORDER BY rule, bucket, peer").build().fetch_all(pool).await?;
    let read = |r: &PgRow| -> Result<(LinkId, Checkpoint), Error> {
        let link = LinkId { rule: r.try_get("rule")?, bucket: r.try_get("bucket")?, peer: r.try_get("peer")? };
        Ok((link, checkpoint_of(r)?))
    };
    Ok(found.iter().map(read).collect::<Result<_, Error>>()?)
}
