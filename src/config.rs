//! Settings of one `isthmus site` process: drives, ports, paths, the store's buckets and users. No site, peer or
//! rule stands here: those are documents.
//!
//! A value; everything is checked before a drive is opened or a port bound, and all that is wrong is told at once.
//! Called by the CLI; nothing here opens a store, a journal or a socket.
use crate::document::{self, Node, schema};
use crate::journal::{self, postgres};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use storage_engine::config as store;

/// What a process runs with; every path is absolute or relative to where the process stands.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Site document this process serves; `None`: the only one there is.
    pub site_name: Option<String>,
    /// The store node.
    pub store: store::Settings,
    /// Folder of Site, Peer and ReplicationRule documents.
    pub rules_dir: PathBuf,
    /// Folder of `secrets/<name>/<key>` and `configmaps/<name>/<key>`.
    pub refs_dir: PathBuf,
    /// Where the journal is.
    pub journal: journal::Settings,
    /// Unix socket of the verbs.
    pub admin_socket: PathBuf,
    /// Listener for peers.
    pub peer_listen: SocketAddr,
    /// Listener for probes, metrics and status.
    pub admin_listen: SocketAddr,
    /// Where the bound addresses are written as JSON.
    pub ports_file: Option<PathBuf>,
}

/// Something in the settings that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `file:line`.
    pub place: String,
    /// Such as `store.drives[1]`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        write!(f, "{}: {key}{}", self.place, self.message)
    }
}

/// The file as it is written. Its doc lines are the reference of the keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// Name of the Site document this process serves; may be left out where there is only one.
    site_name: Option<String>,
    /// The store: drives, S3 listener, users, buckets.
    store: StoreFile,
    /// Folder of Site, Peer and ReplicationRule documents; changes take effect live.
    #[serde(default = "rules_dir")]
    rules_dir: PathBuf,
    /// Folder the documents' references resolve to: secrets/<name>/<key>, configmaps/<name>/<key>.
    #[serde(default = "refs_dir")]
    refs_dir: PathBuf,
    /// The replicator's journal: a file, made where it is absent and held by one process; or a map with `postgres`, a
    /// database that the replicators of this site share.
    #[serde(default)]
    #[schemars(schema_with = "journal_schema")]
    journal: JournalFile,
    /// Unix socket for the verbs; left out: admin.sock beside the journal's file, or beside this file.
    admin_socket: Option<PathBuf>,
    /// Address that peers dial, mutual TLS; port 0 takes a free one.
    #[serde(default = "peer_listen")]
    peer_listen: String,
    /// Address of probes, metrics and status; port 0 takes a free one.
    #[serde(default = "admin_listen")]
    admin_listen: String,
    /// File the bound addresses are written to, as JSON, once all are bound.
    ports_file: Option<PathBuf>,
}

/// Where the journal is: text or a map. The schema has told them apart before.
#[derive(Deserialize)]
#[serde(untagged)]
enum JournalFile {
    Sqlite(PathBuf),
    Shared { postgres: PostgresFile },
}

impl Default for JournalFile {
    fn default() -> Self {
        JournalFile::Sqlite("journal.sqlite".into())
    }
}

fn journal_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut postgres = generator.subschema_for::<PostgresFile>();
    postgres.insert("description".into(), "A PostgreSQL database, version 12 or later.".into());
    schemars::json_schema!({"type": ["string", "object"], "properties": {"postgres": postgres}, "required": ["postgres"]})
}

/// A journal in PostgreSQL.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PostgresFile {
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

/// A store node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StoreFile {
    /// Directories, one a drive; their number belongs to the store and never changes.
    #[schemars(length(min = 1, max = 255))]
    drives: Vec<PathBuf>,
    /// Parity shards: so many drives may be lost. Half of the drives up to 8 drives, else 4.
    parity: Option<u8>,
    /// Address of the S3 listener; port 0 takes a free one.
    #[serde(default = "s3_listen")]
    s3_listen: String,
    /// Region in request signatures.
    #[serde(default = "region")]
    region: String,
    /// Who may sign S3 requests.
    #[serde(default)]
    users: Vec<UserFile>,
    /// Buckets made at start and never deleted by it.
    #[serde(default)]
    buckets: Vec<BucketFile>,
    /// What S3 clients may take; what is left out is as the store has it.
    #[serde(default)]
    limits: LimitsFile,
}

/// What the S3 listener lets clients take.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    /// Connections at once; clients beyond it wait (1024).
    connections_max: Option<u32>,
    /// Connections at once from one IPv4 address or IPv6 /64; those beyond it get 503 (512).
    connections_per_address_max: Option<u32>,
    /// Wrong signatures a minute for one access key from one address, before both wait (30).
    failed_logins_per_minute_max: Option<u32>,
}

/// Somebody who may sign S3 requests.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserFile {
    /// Access key.
    access_key: String,
    /// File that holds the secret key.
    secret_key_file: PathBuf,
}

/// A bucket that shall exist.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BucketFile {
    /// Name, as S3 allows it.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    name: String,
    /// Whether versioning is on; only such buckets are replicated.
    #[serde(default)]
    versioning: bool,
}

fn rules_dir() -> PathBuf {
    "rules".into()
}
fn refs_dir() -> PathBuf {
    "refs".into()
}
fn peer_listen() -> String {
    "0.0.0.0:8443".into()
}
/// Loopback: status shows keys, so whoever wants it elsewhere says so.
fn admin_listen() -> String {
    "127.0.0.1:9090".into()
}
fn s3_listen() -> String {
    "0.0.0.0:9000".into()
}
fn region() -> String {
    "us-east-1".into()
}

/// Reads and checks a file; relative paths in it count from its folder.
///
/// # Errors
/// Everything that is wrong, one line each; nothing was opened or bound.
pub fn load(path: &Path) -> Result<Settings, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let message = format!("cannot be read ({e}); give the path of a YAML file");
        vec![Problem { place: path.display().to_string(), key: String::new(), message }]
    })?;
    let settings = parse(path, &text)?;
    match outside(path, &settings) {
        missing if missing.is_empty() => Ok(settings),
        missing => Err(missing),
    }
}

/// The settings in a text, without a look at what they point to.
fn parse(path: &Path, text: &str) -> Result<Settings, Vec<Problem>> {
    let problem = |line: u64, key: &str, message: String| Problem {
        place: format!("{}:{line}", path.display()),
        key: key.into(),
        message,
    };
    let nodes = document::parse(text).map_err(|e| vec![problem(e.line, "", e.message)])?;
    let [root] = nodes.as_slice() else {
        return Err(vec![problem(1, "", format!("holds {} documents, must hold one", nodes.len()))]);
    };
    let findings = schema::check(&file_schema(), root, "");
    if !findings.is_empty() {
        return Err(findings.into_iter().map(|f| problem(f.line, &f.path, f.message)).collect());
    }
    let file: File = serde_json::from_value(root.to_json()).map_err(|e| vec![problem(1, "", e.to_string())])?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut wrong = Wrong { root, found: Vec::new() };
    let settings = resolve(file, base, &mut wrong);
    wrong.contradictions(&settings);
    if wrong.found.is_empty() {
        return Ok(settings);
    }
    wrong.found.sort();
    Err(wrong.found.into_iter().map(|(line, key, message)| problem(line, &key, message)).collect())
}

fn file_schema() -> serde_json::Value {
    let generator = SchemaSettings::draft07().with(|s| s.inline_subschemas = true).into_generator();
    generator.into_root_schema_for::<File>().into()
}

/// What is wrong, with its line and key.
struct Wrong<'a> {
    root: &'a Node,
    found: Vec<(u64, String, String)>,
}

impl Wrong<'_> {
    fn say(&mut self, key: &str, message: String) {
        self.found.push((self.root.line_of(key), key.into(), message));
    }

    /// An address; one that is none is said and stands as a placeholder until the problems are told.
    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.say(
                key,
                format!("`{text}` is no address; write host:port with an IP address, such as 127.0.0.1:9000"),
            );
            ([127, 0, 0, 1], 0).into()
        })
    }

    fn contradictions(&mut self, settings: &Settings) {
        // The store names its own faults; the word they begin with tells the key they belong to.
        const KEYS: [(&str, &str); 6] = [
            ("limits", "store.limits"),
            ("parity", "store.parity"),
            ("region", "store.region"),
            ("the access key", "store.users"),
            ("the bucket", "store.buckets"),
            ("the drive", "store.drives"),
        ];
        for message in settings.store.check().err().into_iter().flat_map(|invalid| invalid.0) {
            let key = KEYS.iter().find(|(word, _)| message.starts_with(word)).map_or("store", |(_, key)| *key);
            self.say(key, message);
        }
        for (index, bucket) in settings.store.buckets.iter().enumerate() {
            if bucket.name.contains("..") || bucket.name.parse::<std::net::Ipv4Addr>().is_ok() {
                let message = format!("`{}` is no bucket name: no two dots in a row, no IP address", bucket.name);
                self.say(&format!("store.buckets[{index}].name"), message);
            }
        }
        let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        for (key, address) in [
            ("store.s3_listen", settings.store.s3_listen),
            ("peer_listen", settings.peer_listen),
            ("admin_listen", settings.admin_listen),
        ] {
            let other = taken.insert(address, key).filter(|_| address.port() != 0);
            if let Some(other) = other {
                self.say(key, format!("{address} is taken by {other}; give every listener its own port, or 0"));
            }
        }
    }
}

fn resolve(file: File, base: &Path, wrong: &mut Wrong<'_>) -> Settings {
    let at = |path: PathBuf| base.join(path);
    let journal = match file.journal {
        JournalFile::Sqlite(path) => journal::Settings::Sqlite(at(path)),
        JournalFile::Shared { postgres: p } => journal::Settings::Postgres(postgres::Settings {
            url_file: at(p.url_file),
            tls: match p.tls {
                TlsFile::VerifyFull => postgres::Tls::VerifyFull,
                TlsFile::VerifyCa => postgres::Tls::VerifyCa,
                TlsFile::Off => postgres::Tls::Off,
            },
            ca_file: p.ca_file.map(at),
            connections_max: p.connections_max,
        }),
    };
    let beside = match &journal {
        journal::Settings::Sqlite(path) => path.with_file_name("admin.sock"),
        journal::Settings::Postgres(_) => at("admin.sock".into()),
    };
    let StoreFile { drives, parity, s3_listen, region, users, buckets, limits } = file.store;
    let usual = store::Limits::default();
    Settings {
        site_name: file.site_name,
        store: store::Settings {
            drives: drives.into_iter().map(at).collect(),
            parity,
            s3_listen: wrong.address("store.s3_listen", &s3_listen),
            region,
            users: users
                .into_iter()
                .map(|u| store::User { access_key: u.access_key, secret_key_file: at(u.secret_key_file) })
                .collect(),
            buckets: buckets
                .into_iter()
                .map(|b| store::BucketSettings { name: b.name, versioning: b.versioning })
                .collect(),
            limits: store::Limits {
                connections_max: limits.connections_max.unwrap_or(usual.connections_max),
                connections_per_address_max: limits
                    .connections_per_address_max
                    .unwrap_or(usual.connections_per_address_max),
                failed_logins_per_minute_max: limits
                    .failed_logins_per_minute_max
                    .unwrap_or(usual.failed_logins_per_minute_max),
            },
        },
        rules_dir: at(file.rules_dir),
        refs_dir: at(file.refs_dir),
        admin_socket: file.admin_socket.map_or(beside, at),
        journal,
        peer_listen: wrong.address("peer_listen", &file.peer_listen),
        admin_listen: wrong.address("admin_listen", &file.admin_listen),
        ports_file: file.ports_file.map(at),
    }
}

/// What the settings point to and is not there.
fn outside(path: &Path, settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |key: &str, message: String| {
        problems.push(Problem { place: path.display().to_string(), key: key.into(), message });
    };
    if !settings.rules_dir.is_dir() {
        let message = format!("{} is no folder; make it, even an empty one", settings.rules_dir.display());
        say("rules_dir", message);
    }
    for user in &settings.store.users {
        if !user.secret_key_file.is_file() {
            let (file, key) = (user.secret_key_file.display(), &user.access_key);
            say("store.users", format!("there is no file {file}; write the secret key of {key} into it"));
        }
    }
    if let journal::Settings::Postgres(database) = &settings.journal {
        let files = [
            ("journal.postgres.url_file", Some(&database.url_file)),
            ("journal.postgres.ca_file", database.ca_file.as_ref()),
        ];
        for (key, file) in files {
            if let Some(file) = file.filter(|f| !f.is_file()) {
                say(key, format!("there is no file {}; put it there", file.display()));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
