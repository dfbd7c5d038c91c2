//! The journal in one PostgreSQL database, shared by the replicators of a site: a bounded pool, set-based statements,
//! retries where transactions collide.
//!
//! Who owns a link is decided by the database's clock (`owner`); every write of a link holds its owner's row in
//! share, so that a claim and a write never pass each other (`rows`). A future that is dropped halfway rolls its
//! transaction back. The password comes from a file that is read again when the database refuses a connection.
mod foreign;
mod owner;
mod rows;
#[cfg(test)]
pub mod server;
#[cfg(test)]
mod tests;

use super::sql::{self, code, int};
use super::{
    CONFLICTS_MAX, Claim, ClaimTerms, Conflict, EPOCH_MAX, Error, Extent, Journal, LinkId, Mapped, Renewed, Upload,
};
use crate::link::{Checkpoint, Record, Row};
use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::{Connection, Row as _};
use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use storage_engine::version::VersionId;

pub(super) const MIGRATIONS: [(&str, &str); 5] = [
    ("0001_journal", include_str!("migrations/postgres/0001_journal.sql")),
    ("0002_reach", include_str!("migrations/postgres/0002_reach.sql")),
    ("0003_brake", include_str!("migrations/postgres/0003_brake.sql")),
    ("0010_foreign", include_str!("migrations/postgres/0010_foreign.sql")),
    ("0011_reason", include_str!("migrations/postgres/0011_reason.sql")),
];

/// How long a call waits for a connection, and a start for a database that is not there yet.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const START_WAIT: Duration = Duration::from_secs(30);
/// What every connection runs under. A statement waits 2 s for another's lock and runs for 30 s at most: longer
/// means that something is wrong, and the link tries again. A transaction whose process was cut off within it
/// must not keep the next owner out: after 5 s it ends, well within the 20 s in which links move.
const SESSION: &str = "SET lock_timeout = '2s'; SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '5s';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// How the server is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// No encryption: for a socket or a machine of one's own.
    Off,
    /// The certificate must chain to the CA.
    VerifyCa,
    /// …and name the host.
    VerifyFull,
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// File that holds `postgres://user:password@host:port/database`; a host that is a folder is a Unix socket.
    pub url_file: PathBuf,
    /// Unix sockets are never encrypted.
    pub tls: Tls,
    /// CA of the server's certificate, PEM; `None`: the CAs that come with the program.
    pub ca_file: Option<PathBuf>,
    /// Connections at most.
    pub connections_max: u32,
}

/// A journal in a database.
pub struct PostgresJournal {
    pool: PgPool,
    settings: Settings,
}

/// Why a statement did not succeed, before it is put into the journal's words.
enum Trouble {
    Sql(sqlx::Error),
    Said(Error),
}
impl From<sqlx::Error> for Trouble {
    fn from(e: sqlx::Error) -> Self {
        Trouble::Sql(e)
    }
}
impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Trouble::Said(e)
    }
}
impl Trouble {
    /// Transactions collided (serialisation, deadlock, lock not had in time): the same one again may go through.
    fn is_collision(&self) -> bool {
        matches!(self, Trouble::Sql(e) if code(e).is_some_and(|c| matches!(c.as_str(), "40001" | "40P01" | "55P03")))
    }
}

impl PostgresJournal {
    /// Connects, and brings the tables up to this version; several processes may do so at once.
    ///
    /// A database that cannot be reached is waited for during 30 s.
    ///
    /// # Errors
    /// [`Error::Unusable`]: the settings do not hold, the database refuses the user, or a newer version wrote it.
    /// [`Error::Unavailable`]: it cannot be reached.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        let options = read_options(&settings).await?;
        let connect = || async { PgConnection::connect_with(&options).await.map_err(|e| opening(&options, e)) };
        let first = connect.retry(pauses().with_total_delay(Some(START_WAIT))).when(Error::is_retryable).await?;
        let _ = first.close().await;
        // Tables of millions of rows may take longer to change than a statement usually may: no limits here.
        let unlimited = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_WAIT);
        let unlimited = unlimited.connect_lazy_with(options.clone());
        let migrated = sql::migrator(&MIGRATIONS).run(&unlimited).await;
        unlimited.close().await;
        match migrated {
            Ok(()) => {}
            Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => return Err(opening(&options, e)),
            Err(other) => return Err(Error::Unusable(format!("{}: {other}", place(&options)))),
        }
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(CONNECT_WAIT)
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
            })
            .connect_lazy_with(options);
        Ok(PostgresJournal { pool, settings })
    }

    /// Does it, again where transactions collide; what is wrong comes back in the journal's words.
    async fn attempt<T, F>(&self, work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        // Five times within about a second: then the link's own, slower retries take over.
        let pauses = pauses().with_max_times(5);
        match work.retry(pauses).when(Trouble::is_collision).await {
            Ok(done) => Ok(done),
            Err(Trouble::Said(e)) => Err(e),
            Err(Trouble::Sql(e)) => {
                if code(&e).is_some_and(|c| c.starts_with("28")) || matches!(e, sqlx::Error::PoolTimedOut) {
                    self.read_url_again().await;
                }
                Err(e.into())
            }
        }
    }

    /// The password may have changed since; connections that stand are left alone.
    async fn read_url_again(&self) {
        match read_options(&self.settings).await {
            Ok(options) => self.pool.set_connect_options(options),
            Err(e) => tracing::warn!(error = %e, "The journal's URL file cannot be read again; the old one stays."),
        }
    }
}

fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
}

async fn read_options(settings: &Settings) -> Result<PgConnectOptions, Error> {
    let file = settings.url_file.display();
    let text = tokio::fs::read_to_string(&settings.url_file)
        .await
        .map_err(|e| Error::Unusable(format!("{file}: {e}; write the database's URL into it")))?;
    // The parser takes any scheme, and its error may quote the URL, and with it the password.
    let url = Some(text.trim()).filter(|t| t.starts_with("postgres://") || t.starts_with("postgresql://"));
    let options = url.and_then(|url| PgConnectOptions::from_str(url).ok()).ok_or_else(|| {
        Error::Unusable(format!("{file}: holds no URL such as postgres://user:password@host:5432/database"))
    })?;
    let is_socket = options.get_socket().is_some() || options.get_host().starts_with('/');
    let mode = match settings.tls {
        _ if is_socket => PgSslMode::Disable,
        Tls::Off => PgSslMode::Disable,
        Tls::VerifyCa => PgSslMode::VerifyCa,
        Tls::VerifyFull => PgSslMode::VerifyFull,
    };
    let options = options.ssl_mode(mode).application_name("isthmus");
    Ok(match &settings.ca_file {
        Some(ca) => options.ssl_root_cert(ca),
        None => options,
    })
}

/// What is connected to, without the password.
fn place(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or_else(|| options.get_host().into(), |s| s.display().to_string());
    format!(
        "postgres {host}:{}/{}",
        options.get_port(),
        options.get_database().unwrap_or_else(|| options.get_username())
    )
}

/// An error of opening, with the place and, where a person must do something, what.
fn opening(options: &PgConnectOptions, e: sqlx::Error) -> Error {
    let hint = match code(&e).unwrap_or_default().as_str() {
        c if c.starts_with("28") => "; look at the user and password in the URL file, and at pg_hba.conf",
        "3D000" => "; create the database",
        "42501" => "; grant the user CREATE on the schema",
        _ => "",
    };
    match Error::from(e) {
        Error::Unavailable(m) if hint.is_empty() => Error::Unavailable(format!("{}: {m}", place(options))),
        Error::Unavailable(m) | Error::Unusable(m) => Error::Unusable(format!("{}: {m}{hint}", place(options))),
        other => other,
    }
}

fn uint(row: &PgRow, column: &str) -> Result<u64, Error> {
    sql::uint(row.try_get(column)?, column)
}
/// Text that may hold NUL.
fn text(row: &PgRow, column: &str) -> Result<String, Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    String::from_utf8(bytes).map_err(|_| Error::Unusable(format!("{column} is not UTF-8")))
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn claim(&self, link: &LinkId, holder: &str, terms: ClaimTerms) -> Result<Claim, Error> {
        if terms.at_least > EPOCH_MAX {
            return Err(Error::EpochTooHigh { epoch: terms.at_least });
        }
        self.attempt(|| owner::claim(&self.pool, link, holder, terms)).await
    }

    async fn renew(
        &self,
        holder: &str,
        links_wanted: u64,
        held: &[(LinkId, u64)],
        lease: Duration,
    ) -> Result<Renewed, Error> {
        self.attempt(|| owner::renew(&self.pool, holder, links_wanted, held, lease)).await
    }

    async fn free(&self, link: &LinkId, epoch: u64) -> Result<(), Error> {
        self.attempt(|| owner::free(&self.pool, link, epoch)).await
    }

    async fn load(&self, link: &LinkId, limit: usize) -> Result<(Option<Checkpoint>, Vec<Row>), Error> {
        self.attempt(|| rows::load(&self.pool, link, limit)).await
    }

    async fn parked(&self, link: &LinkId) -> Result<u64, Error> {
        self.attempt(|| rows::parked(&self.pool, link)).await
    }

    async fn record(&self, link: &LinkId, epoch: u64, record: &Record) -> Result<(), Error> {
        self.attempt(|| rows::record(&self.pool, link, epoch, record)).await
    }

    async fn release(&self, link: &LinkId, epoch: u64) -> Result<(), Error> {
        self.attempt(|| rows::release(&self.pool, link, epoch)).await
    }

    async fn links(&self, rule: Option<&str>) -> Result<Vec<(LinkId, Checkpoint)>, Error> {
        self.attempt(|| rows::links(&self.pool, rule)).await
    }

    async fn mapped(
        &self,
        link: &LinkId,
        from: Option<&str>,
        upto: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Mapped>, Error> {
        self.attempt(|| foreign::mapped(&self.pool, link, from, upto, limit)).await
    }

    async fn remap(
        &self,
        link: &LinkId,
        epoch: u64,
        upserts: &[Mapped],
        deletes: &[(String, VersionId)],
    ) -> Result<(), Error> {
        self.attempt(|| foreign::remap(&self.pool, link, epoch, upserts, deletes)).await
    }

    async fn uploads(&self, link: &LinkId) -> Result<Vec<Upload>, Error> {
        self.attempt(|| foreign::uploads(&self.pool, link)).await
    }

    async fn set_upload(
        &self,
        link: &LinkId,
        epoch: u64,
        version: (&str, VersionId),
        upload_id: Option<&str>,
    ) -> Result<(), Error> {
        self.attempt(|| foreign::set_upload(&self.pool, link, epoch, version, upload_id)).await
    }

    async fn see_epoch(&self, incoming: &str, epoch: u64) -> Result<u64, Error> {
        if epoch > EPOCH_MAX {
            return Err(Error::EpochTooHigh { epoch });
        }
        self.attempt(|| async move {
            let known = sqlx::query("SELECT epoch FROM inbound_epoch WHERE incoming = $1").bind(incoming.as_bytes());
            let known = known.fetch_optional(&self.pool).await?.map_or(Ok(0), |row| uint(&row, "epoch"))?;
            if known >= epoch {
                return Ok(known);
            }
            let row = sqlx::query(
                "INSERT INTO inbound_epoch AS known (incoming, epoch) VALUES ($1, $2)
                 ON CONFLICT (incoming) DO UPDATE SET epoch = greatest(known.epoch, excluded.epoch) RETURNING epoch",
            )
            .bind(incoming.as_bytes())
            .bind(int(epoch))
            .fetch_one(&self.pool)
            .await?;
            Ok(uint(&row, "epoch")?)
        })
        .await
    }

    async fn add_conflict(&self, conflict: &Conflict) -> Result<(), Error> {
        self.attempt(|| async move {
            sqlx::query(
                "INSERT INTO conflict (bucket, key, later, earlier, seen_millis) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (bucket, key, later, earlier) DO NOTHING",
            )
            .bind(&conflict.bucket)
            .bind(conflict.key.as_bytes())
            .bind(&conflict.later)
            .bind(&conflict.earlier)
            .bind(int(conflict.seen_millis))
            .execute(&self.pool)
            .await?;
            sqlx::query(
                "DELETE FROM conflict WHERE id <= (SELECT id FROM conflict ORDER BY id DESC LIMIT 1 OFFSET $1)",
            )
            .bind(int(CONFLICTS_MAX as u64))
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    async fn conflicts(&self, limit: usize) -> Result<Vec<Conflict>, Error> {
        let read = |r: &PgRow| -> Result<Conflict, Error> {
            Ok(Conflict {
                bucket: r.try_get("bucket")?,
                key: text(r, "key")?,
                later: r.try_get("later")?,
                earlier: r.try_get("earlier")?,
                seen_millis: uint(r, "seen_millis")?,
            })
        };
        self.attempt(|| async move {
            let found = sqlx::query("SELECT * FROM conflict ORDER BY seen_millis DESC, id DESC LIMIT $1")
                .bind(int(limit as u64))
                .fetch_all(&self.pool)
                .await?;
            Ok(found.iter().map(read).collect::<Result<Vec<_>, Error>>()?)
        })
        .await
    }

    async fn accepted_spec(&self, document: &str) -> Result<Option<(u64, String)>, Error> {
        self.attempt(|| async move {
            let found = sqlx::query("SELECT generation, spec FROM accepted_spec WHERE document = $1")
                .bind(document)
                .fetch_optional(&self.pool)
                .await?;
            let Some(row) = found else { return Ok(None) };
            Ok(Some((uint(&row, "generation")?, row.try_get("spec")?)))
        })
        .await
    }

    async fn accepted_specs(&self) -> Result<Vec<(String, u64, String)>, Error> {
        self.attempt(|| async move {
            let found = sqlx::query("SELECT document, generation, spec FROM accepted_spec ORDER BY document")
                .fetch_all(&self.pool)
                .await?;
            let read = |r: &PgRow| Ok((r.try_get("document")?, uint(r, "generation")?, r.try_get("spec")?));
            Ok(found.iter().map(read).collect::<Result<_, Error>>()?)
        })
        .await
    }

    async fn forget_spec(&self, document: &str) -> Result<(), Error> {
        self.attempt(|| async move {
            sqlx::query("DELETE FROM accepted_spec WHERE document = $1").bind(document).execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    async fn accept_spec(&self, document: &str, generation: u64, spec: &str) -> Result<(), Error> {
        self.attempt(|| async move {
            sqlx::query(
                "INSERT INTO accepted_spec (document, generation, spec) VALUES ($1, $2, $3)
                 ON CONFLICT (document) DO UPDATE SET generation = excluded.generation, spec = excluded.spec",
            )
            .bind(document)
            .bind(int(generation))
            .bind(spec)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    async fn verb_states(&self) -> Result<Vec<(String, String)>, Error> {
        self.attempt(|| async move {
            let query = sqlx::query("SELECT subject, state FROM verb_state ORDER BY subject");
            let found = query.fetch_all(&self.pool).await?;
            let read = |r: &PgRow| Ok((r.try_get("subject")?, r.try_get("state")?));
            Ok(found.iter().map(read).collect::<Result<_, Error>>()?)
        })
        .await
    }

    async fn set_verb_state(&self, subject: &str, state: Option<&str>) -> Result<(), Error> {
        self.attempt(|| async move {
            let query = match state {
                Some(state) => sqlx::query(
                    "INSERT INTO verb_state (subject, state) VALUES ($1, $2)
                     ON CONFLICT (subject) DO UPDATE SET state = excluded.state",
                )
                .bind(subject)
                .bind(state),
                None => sqlx::query("DELETE FROM verb_state WHERE subject = $1").bind(subject),
            };
            query.execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    async fn extent(&self) -> Result<Extent, Error> {
        self.attempt(|| async move {
            let found = sqlx::query_as(sql::COUNT).fetch_all(&self.pool).await?;
            Ok(Extent { rows: sql::counted(found)?, free_bytes: None })
        })
        .await
    }
}
