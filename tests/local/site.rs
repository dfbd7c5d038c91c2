//! Sites as real processes: certificates, configuration and rule files in a temporary directory; start, stop,
//! kill -9, SIGSTOP. Every listener takes a free port and says which; peers dial each other's fault proxy, so
//! that no port is ever guessed.
use crate::proxy::{Fault, Proxy};
use crate::s3::S3;
use isthmus::cli::{certs, socket, status};
use isthmus::replicator::report::SiteReport;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_engine::clock::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

pub const BUCKET: &str = "orders";
pub const ACCESS_KEY: &str = "writer";
pub const SECRET_KEY: &str = "a-secret-key-of-the-tests";
const TRUST_DOMAIN: &str = "local.isthmus.dev";
/// A site shows its status within this time after its start, on a busy machine and after any crash.
const START: Duration = Duration::from_secs(60);
/// Pause between two looks at a fact.
pub const LOOK: Duration = Duration::from_millis(25);

/// One site: its folder, and its process while there is one.
pub struct Site {
    pub name: String,
    pub dir: PathBuf,
    /// Where its clients and peers reach it; nothing while it is down.
    door: watch::Sender<Option<Door>>,
    child: Mutex<Option<Child>>,
}

/// The listeners of a running site.
#[derive(Clone, Debug)]
pub struct Door {
    pub s3: S3,
    pub peer: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    /// Where it is reached now.
    pub fn door(&self) -> Option<Door> {
        self.door.borrow().clone()
    }
    /// Its S3 front door; the test knows that it runs.
    #[track_caller]
    pub fn s3(&self) -> S3 {
        self.door().expect("the site runs").s3
    }
    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }
    /// What the process shows of itself.
    pub async fn status(&self) -> anyhow::Result<SiteReport> {
        socket::get(&self.socket(), "/status").await
    }

    /// What the process shows to whoever scrapes it.
    pub async fn metrics(&self) -> String {
        let ask = async {
            let mut stream = TcpStream::connect(self.door()?.admin).await.ok()?;
            let request = "GET /metrics HTTP/1.1\r\nhost: isthmus\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        };
        ask.await.expect("a running site shows its metrics")
    }

    /// Starts the process and does not wait for it.
    pub fn spawn(&self) {
        let _ = fs::remove_file(self.dir.join("ports.json"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("open the log");
        let child = Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .args(["site", "--config", "site.yaml"])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("start isthmus");
        *self.child.lock().expect("no panic while held") = Some(child);
    }

    /// Waits until the process shows its status.
    pub async fn ready(&self) {
        let deadline = Instant::now() + START;
        loop {
            if let Some(door) = self.ports()
                && self.status().await.is_ok()
            {
                self.door.send_replace(Some(door));
                return;
            }
            let ended = self.child.lock().expect("no panic while held").as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = ended {
                panic!("site {} ended with {status}:\n{}", self.name, tail(&self.dir.join("log")));
            }
            assert!(Instant::now() < deadline, "site {} is not ready:\n{}", self.name, tail(&self.dir.join("log")));
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn start(&self) {
        self.spawn();
        self.ready().await;
    }

    /// kill -9, at once.
    pub async fn kill(&self) {
        let child = self.child.lock().expect("no panic while held").take();
        let mut child = child.expect("the site was started");
        child.start_kill().expect("kill -9");
        self.door.send_replace(None);
        child.wait().await.expect("wait for the killed process");
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> ExitStatus {
        self.signal("-TERM").await;
        let child = self.child.lock().expect("no panic while held").take();
        let ended = tokio::time::timeout(START, child.expect("the site was started").wait()).await;
        self.door.send_replace(None);
        ended.expect("a stop within its deadline").expect("wait for the process")
    }

    /// Sends a signal, such as `-STOP`; `kill` is in every base system.
    pub async fn signal(&self, signal: &str) {
        let id = self.child.lock().expect("no panic while held").as_ref().and_then(Child::id);
        let id = id.expect("the site runs").to_string();
        let sent = Command::new("kill").args([signal, &id]).status().await.expect("run kill");
        assert!(sent.success(), "kill {signal} {id}");
    }

    fn ports(&self) -> Option<Door> {
        let text = fs::read_to_string(self.dir.join("ports.json")).ok()?;
        let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
        let address = |name: &str| ports[name].as_str()?.parse::<SocketAddr>().ok();
        Some(Door { s3: S3::new(address("s3")?), peer: address("peer")?, admin: address("admin")? })
    }
}

/// Sites in one temporary directory, each pair with a proxy in between; full mesh, every site writable.
pub struct Fleet {
    dir: Option<TempDir>,
    pub sites: Vec<Arc<Site>>,
    /// From site i to site j, i ≠ j.
    pub proxies: Vec<Proxy>,
}

impl Fleet {
    /// Writes everything for sites of these names and starts nothing.
    pub async fn write(names: &[&str], drives: usize) -> Fleet {
        let dir = tempfile::Builder::new().prefix("isthmus-local-").tempdir().expect("make a directory");
        let loopback: &[&str] = &["127.0.0.1", "localhost"];
        let hosts: Vec<_> = names.iter().map(|n| (*n, loopback)).collect();
        certs::make(dir.path(), TRUST_DOMAIN, &hosts).expect("make certificates");
        let site = |name: &&str| {
            let dir = dir.path().join(name);
            Arc::new(Site { name: (*name).into(), dir, door: watch::channel(None).0, child: Mutex::default() })
        };
        let sites: Vec<Arc<Site>> = names.iter().map(site).collect();
        let mut proxies = Vec::new();
        for site in &sites {
            write_site(site, drives);
            for peer in sites.iter().filter(|p| p.name != site.name) {
                let proxy = Proxy::start(peer.door.subscribe()).await;
                write(&site.dir.join(format!("rules/peer-{}.yaml", peer.name)), &peer_document(&peer.name, proxy.addr));
                proxies.push(proxy);
            }
            let peers: Vec<_> = sites.iter().filter(|p| p.name != site.name).map(|p| p.name.as_str()).collect();
            if !peers.is_empty() {
                write(&site.dir.join("rules/rule.yaml"), &rule_document(&site.name, &peers));
            }
        }
        Fleet { dir: Some(dir), sites, proxies }
    }

    /// Writes and starts sites of these names.
    pub async fn start(names: &[&str], drives: usize) -> Fleet {
        let fleet = Fleet::write(names, drives).await;
        fleet.sites.iter().for_each(|s| s.spawn());
        for site in &fleet.sites {
            site.ready().await;
        }
        fleet
    }

    /// Lifts every fault of the network.
    pub fn heal(&self) {
        self.proxies.iter().for_each(|p| p.set(Fault::None));
    }

    /// Waits until every peer is up and no link has anything left to send, by measurements younger than the call,
    /// twice: what one site applied last may be another site's to send.
    pub async fn drained(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for _ in 0..2 {
            let since = SystemClock.now_millis();
            loop {
                let mut waiting = Vec::new();
                for site in &self.sites {
                    match site.status().await {
                        Ok(report) if self.is_drained(&report, since) => {}
                        Ok(report) => waiting.push(status::text(&report)),
                        Err(e) => waiting.push(format!("{}: {e:#}", site.name)),
                    }
                }
                if waiting.is_empty() {
                    break;
                }
                assert!(Instant::now() < deadline, "not drained within {patience:?}:\n{}", waiting.join("\n"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn is_drained(&self, report: &SiteReport, since: u64) -> bool {
        let others = self.sites.len() - 1;
        report.is_drained()
            && report.peers.len() == others
            && report.peers.iter().all(|p| p.is_up)
            && report.links.len() == others
            && report.links.iter().all(|l| l.measured_at > since)
    }

    /// Fails when a process said that it panicked or that a person must look.
    pub fn no_alarm(&self) {
        for site in &self.sites {
            let log = fs::read_to_string(site.dir.join("log")).unwrap_or_default();
            let alarms: Vec<_> = log
                .lines()
                .filter(|l| l.contains("panicked at") || l.contains("\"level\":\"ERROR\""))
                .take(5)
                .collect();
            assert!(alarms.is_empty(), "site {} said:\n{}", site.name, alarms.join("\n"));
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("Drives and logs of the sites stay in {}", dir.keep().display());
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("below the directory")).expect("make a folder");
    fs::write(path, text).expect("write a file");
}

fn write_site(site: &Site, drives: usize) {
    let (dir, name) = (&site.dir, &site.name);
    write(&dir.join("secret-key"), SECRET_KEY);
    write(&dir.join("site.yaml"), &configuration(drives));
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        let own = dir.join("refs/secrets/own-tls");
        fs::create_dir_all(&own).expect("make a folder");
        fs::copy(dir.join(file), own.join(file)).expect("copy a certificate");
    }
    write(
        &dir.join("rules/site.yaml"),
        &format!(
            "apiVersion: replication.isthmus.dev/v1alpha1\nkind: Site\nmetadata: {{name: {name}}}\nspec:\n  siteID: {name}\n  trustDomain: {TRUST_DOMAIN}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: own-tls}}}}\n  listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: own-tls}}}}\n"
        ),
    );
}

/// The configuration of a process; all ports are free ones.
pub fn configuration(drives: usize) -> String {
    let drives: Vec<String> = (0..drives).map(|d| format!("drives/{d}")).collect();
    format!(
        "store:\n  drives: [{}]\n  s3_listen: \"127.0.0.1:0\"\n  users:\n    - {{access_key: {ACCESS_KEY}, secret_key_file: secret-key}}\n  buckets:\n    - {{name: {BUCKET}, versioning: true}}\nrules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\npeer_listen: \"127.0.0.1:0\"\nadmin_listen: \"127.0.0.1:0\"\nports_file: ports.json\n",
        drives.join(", ")
    )
}

fn peer_document(name: &str, endpoint: SocketAddr) -> String {
    format!(
        "apiVersion: replication.isthmus.dev/v1alpha1\nkind: Peer\nmetadata: {{name: {name}}}\nspec:\n  type: Replicator\n  replicator:\n    siteID: {name}\n    endpoint: \"https://{endpoint}\"\n    tls:\n      caRef: {{kind: Secret, name: own-tls}}\n      identities: [\"spiffe://{TRUST_DOMAIN}/site/{name}/replicator\"]\n    inbound:\n      - {{bucket: {BUCKET}, origins: [\"*\"], versionDeletes: Enabled}}\n"
    )
}

fn rule_document(site: &str, peers: &[&str]) -> String {
    let destinations: String = peers.iter().map(|p| format!("    - {{peer: {p}}}\n")).collect();
    format!(
        "apiVersion: replication.isthmus.dev/v1alpha1\nkind: ReplicationRule\nmetadata: {{name: {BUCKET}}}\nspec:\n  siteRef: {{name: {site}}}\n  bucket: {BUCKET}\n  mode: ActiveActive\n  destinations:\n{destinations}  replicate: {{versionDeletes: Enabled}}\n  recoveryPointObjective: 15m\n"
    )
}

/// The last lines of a log.
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
