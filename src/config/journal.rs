//! Where the journal is, as settings say it: a file, or a database that the replicators of a site share. Roles
//! `site` and `replicator` have it.
use crate::journal::{Settings, postgres};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Text or a map. The schema has told them apart before.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum JournalFile {
    Sqlite(PathBuf),
    Shared { postgres: PostgresFile },
}

impl Default for JournalFile {
    fn default() -> Self {
        JournalFile::Sqlite("journal.sqlite".into())
    }
}

pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut postgres = generator.subschema_for::<PostgresFile>();
    postgres.insert("description".into(), "A PostgreSQL database, version 12 or later.".into());
    schemars::json_schema!({"type": ["string", "object"], "properties": {"postgres": postgres}, "required": ["postgres"]})
}

/// A journal in PostgreSQL.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresFile {
    /// File that holds postgres://user:password@host:port/database; read again when the database refuses it.
    url_file: PathBuf,
    /// How the server is believed: verify_full (CA and host name), verify_ca, or off. A Unix socket needs none.
    #[serde(default)]
    tls: TlsFile,
    /// CA of the server's certificate, PEM; left out: the public CAs that come with the program.
    ca_file: Option<PathBuf>,
    /// Connections at most, of this process.
    #[serde(default = "connections_max")]
    #[schemars(range(min = 2, max = 64))]
    connections_max: u32,
}

/// How a server is believed.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum TlsFile {
    #[default]
    VerifyFull,
    VerifyCa,
    Off,
}

/// One for the claims, one for what the admin asks, the rest for links that record at once: they batch, so few do.
fn connections_max() -> u32 {
    8
}

impl JournalFile {
    /// The journal's settings; relative paths count from `base`.
    pub fn resolve(self, base: &Path) -> Settings {
        let at = |path: PathBuf| base.join(path);
        match self {
            JournalFile::Sqlite(path) => Settings::Sqlite(at(path)),
            JournalFile::Shared { postgres: p } => Settings::Postgres(postgres::Settings {
                url_file: at(p.url_file),
                tls: match p.tls {
                    TlsFile::VerifyFull => postgres::Tls::VerifyFull,
                    TlsFile::VerifyCa => postgres::Tls::VerifyCa,
                    TlsFile::Off => postgres::Tls::Off,
                },
                ca_file: p.ca_file.map(at),
                connections_max: p.connections_max,
            }),
        }
    }
}

/// The socket of the verbs: where the file says, or beside the journal's file, or beside the settings.
pub fn admin_socket(said: Option<PathBuf>, journal: &Settings, base: &Path) -> PathBuf {
    match (said, journal) {
        (Some(said), _) => base.join(said),
        (None, Settings::Sqlite(file)) => file.with_file_name("admin.sock"),
        (None, Settings::Postgres(_)) => base.join("admin.sock"),
    }
}

/// Files that the journal's settings name and that are not there.
pub fn missing(settings: &Settings) -> Vec<(&'static str, String)> {
    let Settings::Postgres(database) = settings else { return Vec::new() };
    let files = [
        ("journal.postgres.url_file", Some(&database.url_file)),
        ("journal.postgres.ca_file", database.ca_file.as_ref()),
    ];
    let absent = files.into_iter().filter_map(|(key, file)| Some((key, file.filter(|f| !f.is_file())?)));
    absent.map(|(key, file)| (key, format!("there is no file {}; put it there", file.display()))).collect()
}
