//! One site as a real process, its documents, and what it shows of itself.
use crate::endpoint::Endpoint;
use crate::process;
use isthmus::cli::{certs, socket, status};
use isthmus::replicator::report::{LinkReport, SiteReport};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Child;
use tokio::time::Instant;

const ACCESS_KEY: &str = "writer";
const SECRET_KEY: &str = "a-secret-key-of-the-tests";
const TRUST_DOMAIN: &str = "foreign.isthmus.dev";
/// What everything here may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
const API: &str = "apiVersion: replication.isthmus.dev/v1alpha1";

/// A site in a directory of its own.
pub struct Site {
    pub name: String,
    pub dir: PathBuf,
    /// The CA of its S3 listener, where that speaks TLS.
    ca: Option<PathBuf>,
    child: Option<Child>,
}

/// How a rule differs from the plain one.
#[derive(Clone, Copy, Default)]
pub struct Rule<'a> {
    pub name: &'a str,
    pub bucket: &'a str,
    pub peer: &'a str,
    pub target: &'a str,
    /// More lines of `spec`, two spaces in front of each.
    pub more: &'a str,
}

impl Site {
    /// Writes everything and starts nothing. `buckets`: the store's, as its configuration names them.
    pub fn write(root: &Path, name: &str, buckets: &str) -> Site {
        let dir = root.join(name);
        let loopback: &[&str] = &["127.0.0.1", "localhost"];
        certs::make(&root.join("certs"), TRUST_DOMAIN, &[(name, loopback)]).expect("make certificates");
        let own = dir.join("refs/secrets/own-tls");
        fs::create_dir_all(&own).expect("make a folder");
        fs::create_dir_all(dir.join("rules")).expect("make a folder");
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            fs::copy(root.join("certs").join(name).join(file), own.join(file)).expect("copy a certificate");
        }
        fs::write(dir.join("secret-key"), SECRET_KEY).expect("write a file");
        // It stays the same over restarts.
        let [port] = process::free_ports();
        let configuration = format!(
            "store:\n  drives: [drives/0]\n  s3_listen: \"127.0.0.1:{port}\"\n  users:\n    - {{access_key: {ACCESS_KEY}, secret_key_file: secret-key}}\n  buckets: [{buckets}]\nrules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\npeer_listen: \"127.0.0.1:0\"\nadmin_listen: \"127.0.0.1:0\"\nports_file: ports.json\n"
        );
        fs::write(dir.join("site.yaml"), configuration).expect("write a file");
        fs::write(dir.join("port"), port.to_string()).expect("write a file");
        let site = Site { name: name.into(), dir, ca: None, child: None };
        site.document("site", &format!(
            "kind: Site\nmetadata: {{name: {name}}}\nspec:\n  siteID: {name}\n  trustDomain: {TRUST_DOMAIN}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: own-tls}}}}\n  listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: own-tls}}}}\n"
        ));
        site
    }

    /// The same with a certificate at its S3 listener.
    pub fn over_tls(self) -> Site {
        let folder = self.dir.join("../certs").join(&self.name).join("s3");
        let file = self.dir.join("site.yaml");
        let text = fs::read_to_string(&file).expect("it was written");
        let section = format!("store:\n  s3_tls_dir: {}\n", folder.display());
        fs::write(&file, text.replace("store:\n", &section)).expect("write a file");
        Site { ca: Some(folder.join("ca.crt")), ..self }
    }

    /// Writes a document; it takes effect live.
    pub fn document(&self, file: &str, text: &str) {
        let whole = self.dir.join(format!("rules/.{file}"));
        fs::write(&whole, format!("{API}\n{text}")).expect("write a file");
        fs::rename(whole, self.dir.join(format!("rules/{file}.yaml"))).expect("rename a file");
    }

    /// An S3 Peer with these credentials.
    pub fn peer(&self, name: &str, endpoint: &Endpoint, dialect: &str) {
        let secret = self.dir.join("refs/secrets").join(format!("{name}-keys"));
        fs::create_dir_all(&secret).expect("make a folder");
        fs::write(secret.join("accessKeyId"), &endpoint.access_key).expect("write a file");
        fs::write(secret.join("secretAccessKey"), &endpoint.secret_key).expect("write a file");
        let mut believes = String::new();
        if let Some(ca) = &endpoint.ca {
            let folder = self.dir.join("refs/configmaps").join(format!("{name}-ca"));
            fs::create_dir_all(&folder).expect("make a folder");
            fs::copy(ca, folder.join("ca.crt")).expect("copy a CA");
            believes = format!("    caRef: {{kind: ConfigMap, name: {name}-ca}}\n");
        }
        self.document(&format!("peer-{name}"), &format!(
            "kind: Peer\nmetadata: {{name: {name}}}\nspec:\n  type: S3\n  s3:\n    endpoint: \"{}\"\n    dialect: {dialect}\n{believes}    credentialsSecretRef: {{name: {name}-keys}}\n    probe: {{interval: 1s, timeout: 900ms, failureThreshold: 2}}\n",
            endpoint.url
        ));
    }

    /// A one-way rule to a bucket of a Peer.
    pub fn rule(&self, rule: Rule<'_>) {
        let Rule { name, bucket, peer, target, more } = rule;
        let replicate = if more.contains("replicate:") { "" } else { "  replicate: {versionDeletes: Enabled}\n" };
        self.document(&format!("rule-{name}"), &format!(
            "kind: ReplicationRule\nmetadata: {{name: {name}}}\nspec:\n  siteRef: {{name: {}}}\n  bucket: {bucket}\n  destinations: [{{peer: {peer}, bucket: {target}}}]\n{replicate}{more}",
            self.name
        ));
    }

    /// Its own S3 front door.
    pub fn s3(&self) -> Endpoint {
        let port = fs::read_to_string(self.dir.join("port")).expect("it was written");
        Endpoint {
            url: format!("{}://127.0.0.1:{port}", if self.ca.is_some() { "https" } else { "http" }),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            ca: self.ca.clone(),
        }
    }

    /// Starts the process and waits until it shows its status.
    pub async fn start(&mut self) {
        self.child = Some(process::spawn(&self.dir, &["site", "--config", "site.yaml"]));
        let deadline = Instant::now() + PATIENCE;
        while self.report().await.is_none() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none() && Instant::now() < deadline, "{} does not start:\n{}", self.name, self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        process::kill(self.child.take().expect("it runs")).await;
    }

    pub fn log(&self) -> String {
        process::tail(&self.dir.join("log"))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    pub async fn report(&self) -> Option<SiteReport> {
        socket::get(&self.socket(), "/status").await.ok()
    }

    /// Waits until the link of a rule shows this.
    pub async fn shows(&self, rule: &str, what: &str, is_so: impl Fn(&LinkReport) -> bool) -> LinkReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.report().await.unwrap_or_default();
            if let Some(link) = report.links.iter().find(|l| l.rule == rule && is_so(l)) {
                return link.clone();
            }
            assert!(Instant::now() < deadline, "{rule}: {what}:\n{}\n{}", status::text(&report), self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a rule's link has nothing left to send, by a measurement that began after the call.
    pub async fn drained(&self, rule: &str) {
        use storage_engine::clock::{Clock, SystemClock};
        let since = SystemClock.now_millis() + 600;
        self.shows(rule, "it does not drain", |l| {
            l.measured_at > since && l.backlog_versions == Some(0) && l.retry_versions == 0 && l.parked_versions == 0
        })
        .await;
    }

    /// Waits until a rule's link cannot send, for this reason.
    pub async fn stopped_by(&self, rule: &str, reason: &str) -> LinkReport {
        let is_said = |l: &LinkReport| l.last_error.as_ref().is_some_and(|e| e.starts_with(reason));
        self.shows(rule, reason, |l| is_said(l) || l.conditions.iter().any(|c| c.reason == reason)).await
    }
}
