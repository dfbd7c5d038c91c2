//! Settings of role `store`, and the section `store` it shares with role `site`.
use super::{Wrong, admin_listen};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use storage_engine::api::serve as api;
use storage_engine::config as engine;
use storage_engine::identity::{Files, ServerCertificate};

/// What a store runs with; every path is absolute or relative to where the process stands.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every version born here bears.
    pub origin: String,
    /// The store node.
    pub store: engine::Settings,
    /// Its private API.
    pub api: api::Settings,
    /// Listener for probes and metrics.
    pub admin_listen: SocketAddr,
    /// Where the bound addresses are written as JSON.
    pub ports_file: Option<PathBuf>,
}

/// The file as it is written. Its doc lines are the reference of the keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The siteID of the site it belongs to: every version born here bears it, and it never changes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    origin: String,
    /// The store: drives, S3 listener, users, buckets.
    store: StoreFile,
    /// The private API, which its replicator asks.
    api: ApiFile,
    /// Address of probes and metrics; port 0 takes a free one.
    #[serde(default = "admin_listen")]
    admin_listen: String,
    /// File the bound addresses are written to, as JSON, once all are bound.
    ports_file: Option<PathBuf>,
}

/// The private API: mutual TLS, nobody is let in who is not named.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApiFile {
    /// Address that the replicator dials; port 0 takes a free one.
    #[serde(default = "api_listen")]
    listen: String,
    /// Folder with tls.crt and tls.key, which the store shows, and ca.crt, which its callers chain to.
    tls_dir: PathBuf,
    /// The URI in the certificate of each caller that is let in, such as spiffe://example.org/site/fra/replicator.
    #[schemars(length(min = 1))]
    clients: Vec<String>,
}

/// A store node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreFile {
    /// Directories, one a drive; their number belongs to the store and never changes.
    #[schemars(length(min = 1, max = 255))]
    drives: Vec<PathBuf>,
    /// Parity shards: so many drives may be lost. Half of the drives up to 8 drives, else 4.
    parity: Option<u8>,
    /// Address of the S3 listener; port 0 takes a free one.
    #[serde(default = "s3_listen")]
    s3_listen: String,
    /// Folder with tls.crt (PEM, the listener's certificate first) and tls.key: S3 is spoken over TLS 1.2 and 1.3 alone.
    /// The files are read again every minute. Left out: plain HTTP.
    s3_tls_dir: Option<PathBuf>,
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
    /// Whether they may bypass governance retention where a request asks for it (false).
    #[serde(default)]
    bypass_governance: bool,
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
    /// Whether object lock is on: retention and legal hold can be set. It needs versioning and stays on for ever.
    #[serde(default)]
    object_lock: bool,
}

impl super::File for File {
    type Settings = Settings;

    fn resolve(self, base: &Path, wrong: &mut Wrong<'_>) -> Settings {
        let settings = Settings {
            origin: self.origin,
            store: self.store.resolve(base, wrong),
            api: api::Settings {
                listen: wrong.address("api.listen", &self.api.listen),
                files: Files::in_folder(&base.join(self.api.tls_dir)),
                clients: self.api.clients,
            },
            admin_listen: wrong.address("admin_listen", &self.admin_listen),
            ports_file: self.ports_file.map(|file| base.join(file)),
        };
        for (index, client) in settings.api.clients.iter().enumerate() {
            if !client.starts_with("spiffe://") {
                let message = format!("`{client}` is no identity; write spiffe://<trust domain>/site/<id>/replicator");
                wrong.say(&format!("api.clients[{index}]"), message);
            }
        }
        wrong.distinct(&[
            ("store.s3_listen", settings.store.s3_listen),
            ("api.listen", settings.api.listen),
            ("admin_listen", settings.admin_listen),
        ]);
        settings
    }

    fn missing(settings: &Settings) -> Vec<(&'static str, String)> {
        let mut missing = missing_files(&settings.store);
        let files = &settings.api.files;
        let authorities = files.authorities.iter().map(|bundle| &bundle.authorities);
        for file in [&files.certificate, &files.key].into_iter().chain(authorities) {
            if !file.is_file() {
                missing.push(("api.tls_dir", format!("there is no file {}; put it there", file.display())));
            }
        }
        missing
    }
}

impl StoreFile {
    /// The store node's settings; what does not hold is said.
    pub fn resolve(self, base: &Path, wrong: &mut Wrong<'_>) -> engine::Settings {
        let StoreFile { drives, parity, s3_listen, s3_tls_dir, region, users, buckets, limits } = self;
        let at = |path: PathBuf| base.join(path);
        let user = |u: UserFile| engine::User {
            access_key: u.access_key,
            secret_key_file: at(u.secret_key_file),
            bypass_governance: u.bypass_governance,
        };
        let bucket = |b: BucketFile| {
            let BucketFile { name, versioning, object_lock } = b;
            engine::BucketSettings { name, versioning, object_lock }
        };
        let settings = engine::Settings {
            drives: drives.into_iter().map(at).collect(),
            parity,
            s3_listen: wrong.address("store.s3_listen", &s3_listen),
            s3_tls_dir: s3_tls_dir.map(at),
            region,
            users: users.into_iter().map(user).collect(),
            buckets: buckets.into_iter().map(bucket).collect(),
            limits: limits.resolve(),
        };
        contradictions(&settings, wrong);
        settings
    }
}

impl LimitsFile {
    fn resolve(self) -> engine::Limits {
        let usual = engine::Limits::default();
        engine::Limits {
            connections_max: self.connections_max.unwrap_or(usual.connections_max),
            connections_per_address_max: self.connections_per_address_max.unwrap_or(usual.connections_per_address_max),
            failed_logins_per_minute_max: self
                .failed_logins_per_minute_max
                .unwrap_or(usual.failed_logins_per_minute_max),
        }
    }
}

fn contradictions(settings: &engine::Settings, wrong: &mut Wrong<'_>) {
    // The store names its own faults; the word they begin with tells the key they belong to.
    const KEYS: [(&str, &str); 6] = [
        ("limits", "store.limits"),
        ("parity", "store.parity"),
        ("region", "store.region"),
        ("the access key", "store.users"),
        ("the bucket", "store.buckets"),
        ("the drive", "store.drives"),
    ];
    for message in settings.check().err().into_iter().flat_map(|invalid| invalid.0) {
        let key = KEYS.iter().find(|(word, _)| message.starts_with(word)).map_or("store", |(_, key)| *key);
        wrong.say(key, message);
    }
    for (index, bucket) in settings.buckets.iter().enumerate() {
        if bucket.name.contains("..") || bucket.name.parse::<std::net::Ipv4Addr>().is_ok() {
            let message = format!("`{}` is no bucket name: no two dots in a row, no IP address", bucket.name);
            wrong.say(&format!("store.buckets[{index}].name"), message);
        }
    }
}

/// Secret keys and files of the S3 listener that are not where the settings say.
pub fn missing_files(settings: &engine::Settings) -> Vec<(&'static str, String)> {
    let absent = settings.users.iter().filter(|user| !user.secret_key_file.is_file());
    let say = |user: &engine::User| {
        let (file, key) = (user.secret_key_file.display(), &user.access_key);
        ("store.users", format!("there is no file {file}; write the secret key of {key} into it"))
    };
    let files = settings.s3_tls_dir.iter().flat_map(|dir| ServerCertificate::files_in(dir));
    let shown = files.filter(|file| !file.is_file());
    let of_listener =
        shown.map(|file| ("store.s3_tls_dir", format!("there is no file {}; put it there", file.display())));
    absent.map(say).chain(of_listener).collect()
}

fn api_listen() -> String {
    "0.0.0.0:9001".into()
}
fn s3_listen() -> String {
    "0.0.0.0:9000".into()
}
fn region() -> String {
    "us-east-1".into()
}
