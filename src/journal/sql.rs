//! What both SQL journals share: their migrations as sqlx has them, a database's errors in the journal's words, and
//! integers as SQL has them.
use super::Error;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgDatabaseError;
use std::collections::BTreeMap;

/// The migrations of a journal out of their files: name without `.sql`, such as `0003_reach`, and text. A database
/// remembers the hash of each text it has run, and refuses another: a file that was released is never altered.
pub fn migrator(files: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(name, text): &(&'static str, &'static str)| {
        let (number, title) = name.split_once('_').expect("a number stands before the title");
        let number = number.parse().expect("digits");
        Migration::new(number, title.replace('_', " ").into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// Code of an error the database gave: SQLSTATE of PostgreSQL, extended result code of SQLite.
pub fn code(e: &sqlx::Error) -> Option<String> {
    Some(e.as_database_error()?.code()?.into_owned())
}

/// Primary result code of SQLite: the low byte of the extended one.
pub fn sqlite_code(e: &sqlx::Error) -> Option<i32> {
    if is_postgres(e) { None } else { code(e)?.parse().ok().map(|c: i32| c & 0xff) }
}

fn is_postgres(e: &sqlx::Error) -> bool {
    e.as_database_error().is_some_and(|d| d.try_downcast_ref::<PgDatabaseError>().is_some())
}

/// Nearly all may pass: a full disk, a server that starts, stops or fails over. Trying again does not cure a file
/// that is corrupt or no database (SQLITE_CORRUPT, SQLITE_NOTADB), nor what tables, rights or types do not allow
/// (SQLSTATE classes 42 and 22), nor what cannot be decoded.
impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        let is_lasting = match &e {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => true,
            e if is_postgres(e) => code(e).is_some_and(|c| c.starts_with("42") || c.starts_with("22")),
            e => matches!(sqlite_code(e), Some(11 | 26)),
        };
        if is_lasting { Error::Unusable(e.to_string()) } else { Error::Unavailable(e.to_string()) }
    }
}

/// What a journal keeps that grows, by table.
pub const KEPT: [&str; 8] =
    ["checkpoint", "link_row", "version_map", "upload", "inbound_epoch", "conflict", "accepted_spec", "verb_state"];

/// Counts the rows of each of [`KEPT`]: name and number.
pub const COUNT: &str = "SELECT 'checkpoint' AS kept, count(*) AS n FROM checkpoint
    UNION ALL SELECT 'link_row', count(*) FROM link_row
    UNION ALL SELECT 'version_map', count(*) FROM version_map
    UNION ALL SELECT 'upload', count(*) FROM upload
    UNION ALL SELECT 'inbound_epoch', count(*) FROM inbound_epoch
    UNION ALL SELECT 'conflict', count(*) FROM conflict
    UNION ALL SELECT 'accepted_spec', count(*) FROM accepted_spec
    UNION ALL SELECT 'verb_state', count(*) FROM verb_state";

/// What [`COUNT`] has found.
pub fn counted(rows: Vec<(String, i64)>) -> Result<BTreeMap<String, u64>, Error> {
    rows.into_iter().map(|(kept, n)| Ok((kept, uint(n, "n")?))).collect()
}

/// SQL's integers are signed; what does not fit (a time in the year 292,278,994) is kept as the greatest.
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An integer that was never negative when it was written.
pub fn uint(value: i64, column: &str) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::Unusable(format!("{column} is negative")))
}

#[cfg(test)]
mod tests {
    use super::super::{postgres, sqlite};
    use std::path::Path;

    #[test]
    fn every_migration_file_is_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/journal/migrations");
        for (folder, listed) in [("sqlite", &sqlite::MIGRATIONS[..]), ("postgres", &postgres::MIGRATIONS[..])] {
            let files = std::fs::read_dir(root.join(folder)).unwrap();
            let mut there: Vec<String> =
                files.map(|f| f.unwrap().file_name().to_string_lossy().trim_end_matches(".sql").into()).collect();
            there.sort();
            assert_eq!(there, listed.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
            assert_eq!(super::migrator(listed).iter().count(), there.len());
        }
    }
}
