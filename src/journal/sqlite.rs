//! The journal in one SQLite file: WAL, synchronous=FULL, one connection that holds the file exclusively.
//!
//! A second process on the same file is refused when it opens: so every claim is granted, no lease is kept, and a
//! renewal writes nothing. The epoch is checked in the transaction that writes. SQL runs on the connection's own thread; nothing here blocks the async threads. A future that is
//! dropped halfway rolls its transaction back.
mod foreign;

use super::sql::{self, int};
use super::{
    CONFLICTS_MAX, Claim, ClaimTerms, Conflict, EPOCH_MAX, Error, Extent, Journal, LinkId, Mapped, Renewed, Upload,
};
use crate::link::{Checkpoint, Reason, Record, Row, RowState};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection, QueryBuilder, Row as _, Sqlite};
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage_engine::drive::disk;
use storage_engine::feed::Cursor;
use storage_engine::version::VersionId;
use tokio::sync::Mutex;

pub(super) const MIGRATIONS: [(&str, &str); 6] = [
    ("0001_links", include_str!("migrations/sqlite/0001_links.sql")),
    ("0002_verb_state", include_str!("migrations/sqlite/0002_verb_state.sql")),
    ("0003_reach", include_str!("migrations/sqlite/0003_reach.sql")),
    ("0004_brake", include_str!("migrations/sqlite/0004_brake.sql")),
    ("0010_foreign", include_str!("migrations/sqlite/0010_foreign.sql")),
    ("0011_reason", include_str!("migrations/sqlite/0011_reason.sql")),
];

/// Rows a statement: SQLite takes 32,766 parameters and a row has twelve; beyond 512 nothing gets faster.
const ROWS_PER_STATEMENT: usize = 512;
/// How long an open waits for the file: a predecessor that is just ending frees it, another process does not.
const OPEN_WAIT: Duration = Duration::from_millis(500);

/// A journal in a file.
pub struct SqliteJournal {
    path: PathBuf,
    connection: Mutex<SqliteConnection>,
}

impl SqliteJournal {
    /// Opens the file, or makes it, and takes it for this process alone.
    ///
    /// # Errors
    /// [`Error::Unusable`]: another process holds it, it is no journal, or a newer version wrote it.
    /// [`Error::Unavailable`]: it cannot be read or written just now.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(OPEN_WAIT);
        let place = |e: sqlx::Error| opening(path, e);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(place)?;
        // With locking_mode=EXCLUSIVE the lock this takes is kept until the connection ends.
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await.map_err(place)?;
        sqlx::query("COMMIT").execute(&mut connection).await.map_err(place)?;
        match sql::migrator(&MIGRATIONS).run(&mut connection).await {
            Ok(()) => Ok(SqliteJournal { path: path.to_owned(), connection: Mutex::new(connection) }),
            Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => Err(place(e)),
            Err(other) => Err(Error::Unusable(format!("{}: {other}", path.display()))),
        }
    }
}

/// An error of opening, with the path and, where another process holds the file, the way out.
fn opening(path: &Path, e: sqlx::Error) -> Error {
    if matches!(sql::sqlite_code(&e), Some(5 | 6)) {
        let what = "another process holds it; stop that process, or give this one a journal of its own";
        return Error::Unusable(format!("{}: {what}", path.display()));
    }
    match Error::from(e) {
        Error::Unavailable(m) => Error::Unavailable(format!("{}: {m}", path.display())),
        Error::Unusable(m) => Error::Unusable(format!("{}: {m}", path.display())),
        other => other,
    }
}

fn uint(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    sql::uint(row.try_get(column)?, column)
}
fn blob(cursor: &Option<Cursor>) -> Option<Vec<u8>> {
    cursor.as_ref().map(|c| c.0.to_vec())
}
fn cursor(row: &SqliteRow, column: &str) -> Result<Option<Cursor>, Error> {
    Ok(row.try_get::<Option<Vec<u8>>, _>(column)?.map(|b| Cursor(Bytes::from(b))))
}
fn state_word(state: RowState) -> &'static str {
    match state {
        RowState::Pending => "pending",
        RowState::Parked => "parked",
    }
}

fn checkpoint_of(row: &SqliteRow) -> Result<Checkpoint, Error> {
    Ok(Checkpoint {
        cursor: cursor(row, "cursor")?,
        floor: cursor(row, "floor")?,
        committed_through: uint(row, "committed_through")?,
        reach: row.try_get::<Option<String>, _>("reach")?.map(|text| super::reach::from_text(&text)).transpose()?,
        brake: row.try_get::<Option<String>, _>("brake")?.map(|text| super::brake::from_text(&text)).transpose()?,
    })
}

fn row_of(row: &SqliteRow) -> Result<Row, Error> {
    let id: String = row.try_get("version_id")?;
    Ok(Row {
        key: row.try_get("key")?,
        version_id: id.parse().map_err(|e| Error::Unusable(format!("version_id: {e}")))?,
        pending_since: uint(row, "pending_since")?,
        bytes: uint(row, "bytes")?,
        attempts: u32::try_from(uint(row, "attempts")?).unwrap_or(u32::MAX),
        next_attempt: uint(row, "next_attempt")?,
        last_error: row.try_get("last_error")?,
        reason: Reason::of(row.try_get("reason")?),
        state: match row.try_get::<String, _>("state")?.as_str() {
            "parked" => RowState::Parked,
            _ => RowState::Pending,
        },
        floor: cursor(row, "floor")?,
        traceparent: row.try_get("traceparent")?,
    })
}

/// Number and epoch of a link; `None`: it was never acquired.
async fn find(db: &mut SqliteConnection, link: &LinkId) -> Result<Option<(i64, u64)>, Error> {
    let found = sqlx::query("SELECT id, epoch FROM link WHERE rule = ? AND bucket = ? AND peer = ?")
        .bind(&link.rule)
        .bind(&link.bucket)
        .bind(&link.peer)
        .fetch_optional(db)
        .await?;
    found.map(|r| Ok((r.try_get("id")?, uint(&r, "epoch")?))).transpose()
}

/// Number of a link that is owned under exactly this epoch.
async fn owned(db: &mut SqliteConnection, link: &LinkId, epoch: u64) -> Result<i64, Error> {
    match find(db, link).await? {
        Some((id, current)) if current == epoch => Ok(id),
        found => Err(Error::Fenced { ours: epoch, current: found.map_or(0, |(_, current)| current) }),
    }
}

async fn put_checkpoint(db: &mut SqliteConnection, link: i64, checkpoint: &Checkpoint) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO checkpoint (link, cursor, floor, committed_through, reach, brake) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (link) DO UPDATE SET cursor = excluded.cursor, floor = excluded.floor,
         committed_through = excluded.committed_through, reach = excluded.reach, brake = excluded.brake",
    )
    .bind(link)
    .bind(blob(&checkpoint.cursor))
    .bind(blob(&checkpoint.floor))
    .bind(int(checkpoint.committed_through))
    .bind(checkpoint.reach.as_ref().map(super::reach::to_text))
    .bind(checkpoint.brake.as_ref().map(super::brake::to_text))
    .execute(db)
    .await?;
    Ok(())
}

async fn delete_rows(db: &mut SqliteConnection, link: i64, record: &Record) -> Result<(), Error> {
    for chunk in record.deletes.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM link_row WHERE link = ");
        sql.push_bind(link).push(" AND (key, version_id) IN (");
        sql.push_values(chunk, |mut b, (key, id)| {
            b.push_bind(key.clone()).push_bind(id.to_string());
        });
        sql.push(")").build().execute(&mut *db).await?;
    }
    Ok(())
}

async fn upsert_rows(db: &mut SqliteConnection, link: i64, rows: &[Row]) -> Result<(), Error> {
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO link_row (link, key, version_id, pending_since, bytes, attempts, next_attempt, last_error, state, floor, reason, traceparent) ",
        );
        sql.push_values(chunk, |mut b, row| {
            b.push_bind(link)
                .push_bind(row.key.clone())
                .push_bind(row.version_id.to_string())
                .push_bind(int(row.pending_since))
                .push_bind(int(row.bytes))
                .push_bind(i64::from(row.attempts))
                .push_bind(int(row.next_attempt))
                .push_bind(row.last_error.clone())
                .push_bind(state_word(row.state))
                .push_bind(blob(&row.floor))
                .push_bind(row.reason.word())
                .push_bind(row.traceparent.clone());
        });
        sql.push(
            " ON CONFLICT (link, key, version_id) DO UPDATE SET pending_since = excluded.pending_since,
             bytes = excluded.bytes, attempts = excluded.attempts, next_attempt = excluded.next_attempt,
             last_error = excluded.last_error, state = excluded.state, floor = excluded.floor, reason = excluded.reason,
             traceparent = excluded.traceparent",
        );
        sql.build().execute(&mut *db).await?;
    }
    Ok(())
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn claim(&self, link: &LinkId, holder: &str, terms: ClaimTerms) -> Result<Claim, Error> {
        let mut db = self.connection.lock().await;
        let mut tx = db.begin().await?;
        let current = find(&mut tx, link).await?.map_or(0, |(_, epoch)| epoch);
        let epoch = super::next_epoch(current, terms.at_least)?;
        sqlx::query(
            "INSERT INTO link (rule, bucket, peer, holder, epoch) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (rule, bucket, peer) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch",
        )
        .bind(&link.rule)
        .bind(&link.bucket)
        .bind(&link.peer)
        .bind(holder)
        .bind(int(epoch))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Claim::Owned { epoch })
    }

    async fn renew(&self, _: &str, _: u64, held: &[(LinkId, u64)], _: Duration) -> Result<Renewed, Error> {
        let mut db = self.connection.lock().await;
        let mut kept = Vec::new();
        for (link, epoch) in held {
            if owned(&mut db, link, *epoch).await.is_ok() {
                kept.push(link.clone());
            }
        }
        Ok(Renewed { kept, holders: 1 })
    }

    async fn free(&self, link: &LinkId, epoch: u64) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        owned(&mut db, link, epoch).await.map(drop)
    }

    async fn load(&self, link: &LinkId, limit: usize) -> Result<(Option<Checkpoint>, Vec<Row>), Error> {
        let mut db = self.connection.lock().await;
        let Some((id, _)) = find(&mut db, link).await? else { return Ok((None, Vec::new())) };
        let checkpoint =
            sqlx::query("SELECT * FROM checkpoint WHERE link = ?").bind(id).fetch_optional(&mut *db).await?;
        let rows = sqlx::query("SELECT * FROM link_row WHERE link = ? ORDER BY state DESC, next_attempt LIMIT ?")
            .bind(id)
            .bind(int(limit as u64))
            .fetch_all(&mut *db)
            .await?;
        let rows = rows.iter().map(row_of).collect::<Result<_, _>>()?;
        Ok((checkpoint.as_ref().map(checkpoint_of).transpose()?, rows))
    }

    async fn parked(&self, link: &LinkId) -> Result<u64, Error> {
        let mut db = self.connection.lock().await;
        let Some((id, _)) = find(&mut db, link).await? else { return Ok(0) };
        let count = sqlx::query_scalar("SELECT count(*) FROM link_row WHERE link = ? AND state = 'parked'");
        sql::uint(count.bind(id).fetch_one(&mut *db).await?, "count")
    }

    async fn record(&self, link: &LinkId, epoch: u64, record: &Record) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        let mut tx = db.begin().await?;
        let id = owned(&mut tx, link, epoch).await?;
        put_checkpoint(&mut tx, id, &record.checkpoint).await?;
        delete_rows(&mut tx, id, record).await?;
        upsert_rows(&mut tx, id, &record.upserts).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn release(&self, link: &LinkId, epoch: u64) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        let mut tx = db.begin().await?;
        let id = owned(&mut tx, link, epoch).await?;
        for forget in [
            "DELETE FROM checkpoint WHERE link = ?",
            "DELETE FROM link_row WHERE link = ?",
            "DELETE FROM version_map WHERE link = ?",
            "DELETE FROM upload WHERE link = ?",
        ] {
            sqlx::query(forget).bind(id).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn links(&self, rule: Option<&str>) -> Result<Vec<(LinkId, Checkpoint)>, Error> {
        let mut db = self.connection.lock().await;
        let mut sql = QueryBuilder::new(
            "SELECT rule, bucket, peer, cursor, floor, committed_through, reach, brake
             FROM checkpoint JOIN link ON link.id = checkpoint.link",
        );
        if let Some(rule) = rule {
            sql.push(" WHERE rule = ").push_bind(rule);
        }
        let found = sql.push(" ORDER BY rule, bucket, peer").build().fetch_all(&mut *db).await?;
        found
            .iter()
            .map(|r| {
                let link = LinkId { rule: r.try_get("rule")?, bucket: r.try_get("bucket")?, peer: r.try_get("peer")? };
                Ok((link, checkpoint_of(r)?))
            })
            .collect()
    }

    async fn mapped(
        &self,
        link: &LinkId,
        from: Option<&str>,
        upto: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Mapped>, Error> {
        let mut db = self.connection.lock().await;
        foreign::mapped(&mut db, link, from, upto, limit).await
    }

    async fn remap(
        &self,
        link: &LinkId,
        epoch: u64,
        upserts: &[Mapped],
        deletes: &[(String, VersionId)],
    ) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        foreign::remap(&mut db, link, epoch, upserts, deletes).await
    }

    async fn uploads(&self, link: &LinkId) -> Result<Vec<Upload>, Error> {
        let mut db = self.connection.lock().await;
        foreign::uploads(&mut db, link).await
    }

    async fn set_upload(
        &self,
        link: &LinkId,
        epoch: u64,
        version: (&str, VersionId),
        upload_id: Option<&str>,
    ) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        foreign::set_upload(&mut db, link, epoch, version, upload_id).await
    }

    async fn see_epoch(&self, incoming: &str, epoch: u64) -> Result<u64, Error> {
        if epoch > EPOCH_MAX {
            return Err(Error::EpochTooHigh { epoch });
        }
        let mut db = self.connection.lock().await;
        let known = sqlx::query("SELECT epoch FROM inbound_epoch WHERE incoming = ?").bind(incoming);
        let known = known.fetch_optional(&mut *db).await?.map_or(Ok(0), |row| uint(&row, "epoch"))?;
        if known >= epoch {
            return Ok(known);
        }
        let row = sqlx::query(
            "INSERT INTO inbound_epoch (incoming, epoch) VALUES (?, ?)
             ON CONFLICT (incoming) DO UPDATE SET epoch = max(epoch, excluded.epoch) RETURNING epoch",
        )
        .bind(incoming)
        .bind(int(epoch))
        .fetch_one(&mut *db)
        .await?;
        uint(&row, "epoch")
    }

    async fn add_conflict(&self, conflict: &Conflict) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        sqlx::query(
            "INSERT INTO conflict (bucket, key, later, earlier, seen_millis) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (bucket, key, later, earlier) DO NOTHING",
        )
        .bind(&conflict.bucket)
        .bind(&conflict.key)
        .bind(&conflict.later)
        .bind(&conflict.earlier)
        .bind(int(conflict.seen_millis))
        .execute(&mut *db)
        .await?;
        sqlx::query("DELETE FROM conflict WHERE id <= (SELECT id FROM conflict ORDER BY id DESC LIMIT 1 OFFSET ?)")
            .bind(int(CONFLICTS_MAX as u64))
            .execute(&mut *db)
            .await?;
        Ok(())
    }

    async fn conflicts(&self, limit: usize) -> Result<Vec<Conflict>, Error> {
        let mut db = self.connection.lock().await;
        let found = sqlx::query("SELECT * FROM conflict ORDER BY seen_millis DESC, id DESC LIMIT ?")
            .bind(int(limit as u64))
            .fetch_all(&mut *db)
            .await?;
        found
            .iter()
            .map(|r| {
                Ok(Conflict {
                    bucket: r.try_get("bucket")?,
                    key: r.try_get("key")?,
                    later: r.try_get("later")?,
                    earlier: r.try_get("earlier")?,
                    seen_millis: uint(r, "seen_millis")?,
                })
            })
            .collect()
    }

    async fn accepted_spec(&self, document: &str) -> Result<Option<(u64, String)>, Error> {
        let mut db = self.connection.lock().await;
        let found = sqlx::query("SELECT generation, spec FROM accepted_spec WHERE document = ?")
            .bind(document)
            .fetch_optional(&mut *db)
            .await?;
        found.map(|r| Ok((uint(&r, "generation")?, r.try_get("spec")?))).transpose()
    }

    async fn accepted_specs(&self) -> Result<Vec<(String, u64, String)>, Error> {
        let mut db = self.connection.lock().await;
        let found = sqlx::query("SELECT document, generation, spec FROM accepted_spec ORDER BY document")
            .fetch_all(&mut *db)
            .await?;
        found.iter().map(|r| Ok((r.try_get("document")?, uint(r, "generation")?, r.try_get("spec")?))).collect()
    }

    async fn forget_spec(&self, document: &str) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        sqlx::query("DELETE FROM accepted_spec WHERE document = ?").bind(document).execute(&mut *db).await?;
        Ok(())
    }

    async fn accept_spec(&self, document: &str, generation: u64, spec: &str) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        sqlx::query(
            "INSERT INTO accepted_spec (document, generation, spec) VALUES (?, ?, ?)
             ON CONFLICT (document) DO UPDATE SET generation = excluded.generation, spec = excluded.spec",
        )
        .bind(document)
        .bind(int(generation))
        .bind(spec)
        .execute(&mut *db)
        .await?;
        Ok(())
    }

    async fn verb_states(&self) -> Result<Vec<(String, String)>, Error> {
        let mut db = self.connection.lock().await;
        let found = sqlx::query("SELECT subject, state FROM verb_state ORDER BY subject").fetch_all(&mut *db).await?;
        found.iter().map(|r| Ok((r.try_get("subject")?, r.try_get("state")?))).collect()
    }

    async fn set_verb_state(&self, subject: &str, state: Option<&str>) -> Result<(), Error> {
        let mut db = self.connection.lock().await;
        let query = match state {
            Some(state) => sqlx::query(
                "INSERT INTO verb_state (subject, state) VALUES (?, ?)
                 ON CONFLICT (subject) DO UPDATE SET state = excluded.state",
            )
            .bind(subject)
            .bind(state),
            None => sqlx::query("DELETE FROM verb_state WHERE subject = ?").bind(subject),
        };
        query.execute(&mut *db).await?;
        Ok(())
    }

    async fn extent(&self) -> Result<Extent, Error> {
        let mut db = self.connection.lock().await;
        let found = sqlx::query_as(sql::COUNT).fetch_all(&mut *db).await?;
        let free_bytes = disk::space(&self.path).ok().map(|(free, _)| free);
        Ok(Extent { rows: sql::counted(found)?, free_bytes })
    }
}

#[cfg(test)]
mod tests;
