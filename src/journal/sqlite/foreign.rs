//! What the SQLite journal keeps of foreign targets. Called by the journal alone, within its transactions.
use super::{ROWS_PER_STATEMENT, find, owned, uint};
use crate::journal::sql::int;
use crate::journal::{Error, LinkId, Mapped, Upload};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, QueryBuilder, Row as _, Sqlite};
use storage_engine::version::VersionId;

fn version_id(row: &SqliteRow) -> Result<VersionId, Error> {
    let id: String = row.try_get("version_id")?;
    id.parse().map_err(|e| Error::Unusable(format!("version_id: {e}")))
}

fn mapped_of(row: &SqliteRow) -> Result<Mapped, Error> {
    let state: Vec<u8> = row.try_get("state")?;
    let state = state.try_into().map_err(|_| Error::Unusable("state has not 16 bytes".into()))?;
    Ok(Mapped {
        key: row.try_get("key")?,
        version_id: version_id(row)?,
        remote_id: row.try_get("remote_id")?,
        born: uint(row, "born")?,
        state: u128::from_be_bytes(state),
    })
}

pub async fn mapped(
    db: &mut SqliteConnection,
    link: &LinkId,
    from: Option<&str>,
    upto: Option<&str>,
    limit: usize,
) -> Result<Vec<Mapped>, Error> {
    let Some((id, _)) = find(db, link).await? else { return Ok(Vec::new()) };
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM version_map WHERE link = ");
    sql.push_bind(id);
    if let Some(from) = from {
        sql.push(" AND key >= ").push_bind(from);
    }
    if let Some(upto) = upto {
        sql.push(" AND key <= ").push_bind(upto);
    }
    sql.push(" ORDER BY key, version_id LIMIT ").push_bind(int(limit as u64));
    sql.build().fetch_all(db).await?.iter().map(mapped_of).collect()
}

pub async fn remap(
    db: &mut SqliteConnection,
    link: &LinkId,
    epoch: u64,
    upserts: &[Mapped],
    deletes: &[(String, VersionId)],
) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    let id = owned(&mut tx, link, epoch).await?;
    for chunk in deletes.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM version_map WHERE link = ");
        sql.push_bind(id).push(" AND (key, version_id) IN (");
        sql.push_values(chunk, |mut b, (key, version)| {
            b.push_bind(key.clone()).push_bind(version.to_string());
        });
        sql.push(")").build().execute(&mut *tx).await?;
    }
    for chunk in upserts.chunks(ROWS_PER_STATEMENT) {
        let mut sql =
            QueryBuilder::<Sqlite>::new("INSERT INTO version_map (link, key, version_id, remote_id, born, state) ");
        sql.push_values(chunk, |mut b, row| {
            b.push_bind(id)
                .push_bind(row.key.clone())
                .push_bind(row.version_id.to_string())
                .push_bind(row.remote_id.clone())
                .push_bind(int(row.born))
                .push_bind(row.state.to_be_bytes().to_vec());
        });
        sql.push(
            " ON CONFLICT (link, key, version_id) DO UPDATE SET remote_id = excluded.remote_id,
             born = excluded.born, state = excluded.state",
        );
        sql.build().execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

pub async fn uploads(db: &mut SqliteConnection, link: &LinkId) -> Result<Vec<Upload>, Error> {
    let Some((id, _)) = find(db, link).await? else { return Ok(Vec::new()) };
    let query = sqlx::query("SELECT * FROM upload WHERE link = ? ORDER BY key, version_id").bind(id);
    let found = query.fetch_all(db).await?;
    let read = |row: &SqliteRow| {
        let (key, version_id, upload_id) = (row.try_get("key")?, version_id(row)?, row.try_get("upload_id")?);
        Ok(Upload { key, version_id, upload_id })
    };
    found.iter().map(read).collect()
}

pub async fn set_upload(
    db: &mut SqliteConnection,
    link: &LinkId,
    epoch: u64,
    (key, version): (&str, VersionId),
    upload_id: Option<&str>,
) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    let id = owned(&mut tx, link, epoch).await?;
    let query = match upload_id {
        Some(upload_id) => sqlx::query(
            "INSERT INTO upload (upload_id, link, key, version_id) VALUES (?, ?, ?, ?)
             ON CONFLICT (link, key, version_id) DO UPDATE SET upload_id = excluded.upload_id",
        )
        .bind(upload_id),
        None => sqlx::query("DELETE FROM upload WHERE link = ? AND key = ? AND version_id = ?"),
    };
    query.bind(id).bind(key).bind(version.to_string()).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
