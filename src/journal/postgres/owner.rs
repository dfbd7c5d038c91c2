//! Who pushes a link, by the database's clock. Called by the journal alone.
//!
//! A claim takes its owner's row for update, a write of the link (`rows`) takes it in key share, a renewal changes no
//! key: so claims and writes wait for each other and renewals for neither.
use super::{Trouble, uint};
use crate::journal::sql::int;
use crate::journal::{Claim, ClaimTerms, Error, LinkId, Renewed};
use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{Connection as _, Row as _};
use std::time::Duration;

/// SQL counts in milliseconds.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The owner's row; `None`: the link was never claimed.
async fn owner(db: &mut PgConnection, link: &LinkId) -> Result<Option<PgRow>, sqlx::Error> {
    sqlx::query(
        "SELECT o.holder, o.expires > clock_timestamp() AS is_held
         FROM link_owner o JOIN link l ON l.id = o.link WHERE l.rule = $1 AND l.bucket = $2 AND l.peer = $3",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .fetch_optional(db)
    .await
}

fn held(row: &PgRow, holder: &str) -> Result<Option<Claim>, sqlx::Error> {
    let by: String = row.try_get("holder")?;
    let is_held = row.try_get("is_held")?;
    Ok((is_held && !by.is_empty() && by != holder).then_some(Claim::Held { by: Some(by) }))
}

/// Takes the link if its holder is this one, or its time is over and `patience` too.
pub async fn claim(pool: &PgPool, link: &LinkId, holder: &str, terms: ClaimTerms) -> Result<Claim, Trouble> {
    let mut connection = pool.acquire().await?;
    // Whoever waits for a link asks often: the question alone takes no lock.
    if let Some(row) = owner(&mut connection, link).await?
        && let Some(held) = held(&row, holder)?
    {
        return Ok(held);
    }
    let mut tx = connection.begin().await?;
    let id = number(&mut tx, link).await?;
    // Nobody's since now: patience is counted from here.
    sqlx::query(
        "INSERT INTO link_owner (link, holder, epoch, expires) VALUES ($1, '', 0, clock_timestamp())
         ON CONFLICT (link) DO NOTHING",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?;
    // Waits for writes under the old epoch that are about to commit, and keeps later ones out.
    let row =
        sqlx::query("SELECT epoch FROM link_owner WHERE link = $1 FOR UPDATE").bind(id).fetch_one(&mut *tx).await?;
    let epoch = crate::journal::next_epoch(uint(&row, "epoch")?, terms.at_least)?;
    let taken = sqlx::query(
        "UPDATE link_owner SET holder = $2, epoch = $3, expires = clock_timestamp() + $4 * interval '1 millisecond'
         WHERE link = $1 AND (holder = $2 OR expires + $5 * interval '1 millisecond' <= clock_timestamp())",
    )
    .bind(id)
    .bind(holder)
    .bind(int(epoch))
    .bind(millis(terms.lease))
    .bind(millis(terms.patience))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    if taken.rows_affected() == 1 {
        return Ok(Claim::Owned { epoch });
    }
    let row = owner(&mut connection, link).await?;
    let found = row.map(|row| held(&row, holder)).transpose()?.flatten();
    Ok(found.unwrap_or(Claim::Held { by: None }))
}

async fn number(db: &mut PgConnection, link: &LinkId) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO link (rule, bucket, peer) VALUES ($1, $2, $3) ON CONFLICT (rule, bucket, peer) DO NOTHING",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .execute(&mut *db)
    .await?;
    sqlx::query_scalar("SELECT id FROM link WHERE rule = $1 AND bucket = $2 AND peer = $3")
        .bind(&link.rule)
        .bind(&link.bucket)
        .bind(&link.peer)
        .fetch_one(db)
        .await
}

/// One statement for all links of a holder, one for the holder itself.
pub async fn renew(
    pool: &PgPool,
    holder: &str,
    links_wanted: u64,
    held: &[(LinkId, u64)],
    lease: Duration,
) -> Result<Renewed, Trouble> {
    let column = |of: fn(&LinkId) -> &String| held.iter().map(|(link, _)| of(link).clone()).collect::<Vec<_>>();
    let epochs: Vec<i64> = held.iter().map(|(_, epoch)| int(*epoch)).collect();
    let mut tx = pool.begin().await?;
    let kept = sqlx::query(
        "UPDATE link_owner o SET expires = clock_timestamp() + $6 * interval '1 millisecond'
         FROM link l, unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS h (rule, bucket, peer, epoch)
         WHERE l.rule = h.rule AND l.bucket = h.bucket AND l.peer = h.peer
         AND o.link = l.id AND o.holder = $5 AND o.epoch = h.epoch
         RETURNING l.rule, l.bucket, l.peer",
    )
    .bind(column(|l| &l.rule))
    .bind(column(|l| &l.bucket))
    .bind(column(|l| &l.peer))
    .bind(epochs)
    .bind(holder)
    .bind(millis(lease))
    .fetch_all(&mut *tx)
    .await?;
    // Those long gone are taken out by whoever comes by; a late one comes back with its next renewal.
    sqlx::query("DELETE FROM holder WHERE expires <= clock_timestamp() OR (holder = $1 AND $2 = 0)")
        .bind(holder)
        .bind(int(links_wanted))
        .execute(&mut *tx)
        .await?;
    if links_wanted > 0 {
        sqlx::query(
            "INSERT INTO holder (holder, links_wanted, expires)
             VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
             ON CONFLICT (holder) DO UPDATE SET links_wanted = excluded.links_wanted, expires = excluded.expires",
        )
        .bind(holder)
        .bind(int(links_wanted))
        .bind(millis(lease))
        .execute(&mut *tx)
        .await?;
    }
    let holders: i64 = sqlx::query_scalar("SELECT count(*) FROM holder").fetch_one(&mut *tx).await?;
    tx.commit().await?;
    let link =
        |r: &PgRow| Ok(LinkId { rule: r.try_get("rule")?, bucket: r.try_get("bucket")?, peer: r.try_get("peer")? });
    let kept = kept.iter().map(link).collect::<Result<_, sqlx::Error>>()?;
    Ok(Renewed { kept, holders: holders.unsigned_abs() })
}

/// Makes the link nobody's from now on.
pub async fn free(pool: &PgPool, link: &LinkId, epoch: u64) -> Result<(), Trouble> {
    let freed = sqlx::query(
        "UPDATE link_owner o SET holder = '', expires = clock_timestamp() FROM link l
         WHERE l.rule = $1 AND l.bucket = $2 AND l.peer = $3 AND o.link = l.id AND o.epoch = $4",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .bind(int(epoch))
    .execute(pool)
    .await?;
    if freed.rows_affected() == 1 {
        return Ok(());
    }
    let mut connection = pool.acquire().await?;
    Err(fenced(&mut connection, link, epoch).await?.into())
}

/// What a write under another epoch than the link's is told.
pub async fn fenced(db: &mut PgConnection, link: &LinkId, ours: u64) -> Result<Error, Trouble> {
    let row = sqlx::query(
        "SELECT o.epoch FROM link_owner o JOIN link l ON l.id = o.link
         WHERE l.rule = $1 AND l.bucket = $2 AND l.peer = $3",
    )
    .bind(&link.rule)
    .bind(&link.bucket)
    .bind(&link.peer)
    .fetch_optional(db)
    .await?;
    let current = row.map(|row| uint(&row, "epoch")).transpose()?.unwrap_or(0);
    Ok(Error::Fenced { ours, current })
}
