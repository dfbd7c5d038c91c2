//! What the PostgreSQL journal keeps of foreign targets. Called by the journal alone.
use super::rows::owned;
use super::{Trouble, text, uint};
use crate::journal::sql::int;
use crate::journal::{Error, LinkId, Mapped, Upload};
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};
use storage_engine::version::VersionId;

/// Rows a statement, as for rows of links.
const ROWS_PER_STATEMENT: usize = 512;

fn version_id(row: &PgRow) -> Result<VersionId, Error> {
    let id: Vec<u8> = row.try_get("version_id")?;
    let id = id.try_into().map_err(|_| Error::Unusable("version_id has not 16 bytes".into()))?;
    Ok(VersionId::from_bytes(id))
}

fn mapped_of(row: &PgRow) -> Result<Mapped, Error> {
    let state: Vec<u8> = row.try_get("state")?;
    let state = state.try_into().map_err(|_| Error::Unusable("state has not 16 bytes".into()))?;
    Ok(Mapped {
        key: text(row, "key")?,
        version_id: version_id(row)?,
        remote_id: text(row, "remote_id")?,
        born: uint(row, "born")?,
        state: u128::from_be_bytes(state),
    })
}

pub async fn mapped(
    pool: &PgPool,
    link: &LinkId,
    from: Option<&str>,
    upto: Option<&str>,
    limit: usize,
) -> Result<Vec<Mapped>, Trouble> {
    let found = sqlx::query(
        "SELECT m.* FROM version_map m JOIN link l ON l.id = m.link
         WHERE l.rule = $1 AND l.bucket = $2 AND l.peer = $3
         AND ($4::bytea IS NULL OR m.key >= $4) AND ($5::bytea IS NULL OR m.key <= $5)
         ORDER BY m.key, m.version_id LIMIT $6",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .bind(from.map(str::as_bytes))
    .bind(upto.map(str::as_bytes))
    .bind(int(limit as u64))
    .fetch_all(pool)
    .await?;
    Ok(found.iter().map(mapped_of).collect::<Result<_, _>>()?)
}

pub async fn remap(
    pool: &PgPool,
    link: &LinkId,
    epoch: u64,
    upserts: &[Mapped],
    deletes: &[(String, VersionId)],
) -> Result<(), Trouble> {
    let mut tx = pool.begin().await?;
    let id = owned(&mut tx, link, epoch).await?;
    for chunk in deletes.chunks(ROWS_PER_STATEMENT) {
        sqlx::query(
            "DELETE FROM version_map m USING unnest($2::bytea[], $3::bytea[]) AS gone (key, version_id)
             WHERE m.link = $1 AND m.key = gone.key AND m.version_id = gone.version_id",
        )
        .bind(id)
        .bind(chunk.iter().map(|(key, _)| key.as_bytes()).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(_, version)| version.as_bytes().to_vec()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    for chunk in upserts.chunks(ROWS_PER_STATEMENT) {
        sqlx::query(
            "INSERT INTO version_map (link, key, version_id, remote_id, born, state)
             SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bytea[])
             ON CONFLICT (link, key, version_id) DO UPDATE SET remote_id = excluded.remote_id,
             born = excluded.born, state = excluded.state",
        )
        .bind(id)
        .bind(chunk.iter().map(|m| m.key.as_bytes()).collect::<Vec<_>>())
        .bind(chunk.iter().map(|m| m.version_id.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(chunk.iter().map(|m| m.remote_id.as_bytes()).collect::<Vec<_>>())
        .bind(chunk.iter().map(|m| int(m.born)).collect::<Vec<_>>())
        .bind(chunk.iter().map(|m| m.state.to_be_bytes().to_vec()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

pub async fn uploads(pool: &PgPool, link: &LinkId) -> Result<Vec<Upload>, Trouble> {
    let found = sqlx::query(
        "SELECT u.* FROM upload u JOIN link l ON l.id = u.link
         WHERE l.rule = $1 AND l.bucket = $2 AND l.peer = $3 ORDER BY u.key, u.version_id",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .fetch_all(pool)
    .await?;
    let read = |row: &PgRow| -> Result<Upload, Error> {
        Ok(Upload { key: text(row, "key")?, version_id: version_id(row)?, upload_id: text(row, "upload_id")? })
    };
    Ok(found.iter().map(read).collect::<Result<_, _>>()?)
}

pub async fn set_upload(
    pool: &PgPool,
    link: &LinkId,
    epoch: u64,
    (key, version): (&str, VersionId),
    upload_id: Option<&str>,
) -> Result<(), Trouble> {
    let mut tx = pool.begin().await?;
    let id = owned(&mut tx, link, epoch).await?;
    let query = match upload_id {
        Some(_) => sqlx::query(
            "INSERT INTO upload (link, key, version_id, upload_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT (link, key, version_id) DO UPDATE SET upload_id = excluded.upload_id",
        ),
        None => sqlx::query("DELETE FROM upload WHERE link = $1 AND key = $2 AND version_id = $3"),
    };
    let query = query.bind(id).bind(key.as_bytes()).bind(version.as_bytes().to_vec());
    let query = match upload_id {
        Some(upload_id) => query.bind(upload_id.as_bytes()),
        None => query,
    };
    query.execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
