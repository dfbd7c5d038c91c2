//! Sites as real processes in a temporary directory: start, stop, kill -9, SIGSTOP; together they are a fleet of a
//! shape (`shape.rs`) by the documents they are given (`documents.rs`). Every listener takes a free port and says which; peers dial each other's fault proxy, so
//! that no port is ever guessed.
use crate::documents;
use crate::process::{self, tail};
use crate::proxy::{Fault, Proxy};
use crate::s3::S3;
use crate::shape::Shape;
use isthmus::cli::{certs, socket, status};
use isthmus::replicator::report::SiteReport;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
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
pub const TRUST_DOMAIN: &str = "local.isthmus.dev";
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
    /// Variables its next process has in its environment.
    environment: Mutex<Vec<(String, String)>>,
}

/// The listeners of a running site.
#[derive(Clone, Debug)]
pub struct Door {
    pub s3: S3,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
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

    /// Its next process has this variable in its environment.
    pub fn set(&self, name: &str, value: &str) {
        self.environment.lock().expect("no panic while held").push((name.into(), value.into()));
    }

    /// Starts the process and does not wait for it.
    pub fn spawn(&self) {
        let _ = fs::remove_file(self.dir.join("ports.json"));
        let environment = self.environment.lock().expect("no panic while held").clone();
        let child = process::spawn_with(&self.dir, &["site", "--config", "site.yaml"], &environment);
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
        self.door.send_replace(None);
        process::kill(child.expect("the site was started")).await;
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> ExitStatus {
        self.signal("-TERM").await;
        let child = self.child.lock().expect("no panic while held").take();
        let ended = tokio::time::timeout(START, child.expect("the site was started").wait()).await;
        self.door.send_replace(None);
        ended.expect("a stop within its deadline").expect("wait for the process")
    }

    /// Number of the process; the test knows that it runs.
    pub fn process(&self) -> u32 {
        let id = self.child.lock().expect("no panic while held").as_ref().and_then(Child::id);
        id.expect("the site runs")
    }

    /// Sends a signal, such as `-STOP`; `kill` is in every base system.
    pub async fn signal(&self, signal: &str) {
        let id = self.process().to_string();
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

/// Sites in one temporary directory, a proxy on the way from each to each of its peers.
pub struct Fleet {
    dir: Option<TempDir>,
    pub sites: Vec<Arc<Site>>,
    shape: Shape,
    pub proxies: Vec<Proxy>,
    /// Which proxy a site's peer is reached through, by their places.
    dialled: BTreeMap<(usize, usize), SocketAddr>,
}

impl Fleet {
    /// Writes everything for sites of these names, in full mesh, every one writable, and starts nothing.
    pub async fn write(names: &[&str], drives: usize) -> Fleet {
        Fleet::write_as(names, drives, Shape::mesh(0..names.len())).await
    }

    /// The same for any shape.
    pub async fn write_as(names: &[&str], drives: usize, shape: Shape) -> Fleet {
        let dir = tempfile::Builder::new().prefix("isthmus-local-").tempdir().expect("make a directory");
        let loopback: &[&str] = &["127.0.0.1", "localhost"];
        let hosts: Vec<_> = names.iter().map(|n| (*n, loopback)).collect();
        certs::make(dir.path(), TRUST_DOMAIN, &hosts).expect("make certificates");
        let site = |name: &&str| {
            let dir = dir.path().join(name);
            Arc::new(Site {
                name: (*name).into(),
                dir,
                door: watch::channel(None).0,
                child: Mutex::default(),
                environment: Mutex::default(),
            })
        };
        let sites: Vec<Arc<Site>> = names.iter().map(site).collect();
        for site in &sites {
            documents::write_site(&site.dir, &site.name, drives);
        }
        let (proxies, dialled) = Default::default();
        let mut fleet = Fleet { dir: Some(dir), sites, shape: Shape::default(), proxies, dialled };
        fleet.reshape(shape).await;
        fleet
    }

    /// Writes and starts sites of these names, in full mesh.
    pub async fn start(names: &[&str], drives: usize) -> Fleet {
        Fleet::start_as(names, drives, Shape::mesh(0..names.len())).await
    }

    /// The same for any shape.
    pub async fn start_as(names: &[&str], drives: usize, shape: Shape) -> Fleet {
        let fleet = Fleet::write_as(names, drives, shape).await;
        fleet.sites.iter().for_each(|s| s.spawn());
        for site in &fleet.sites {
            site.ready().await;
        }
        fleet
    }

    /// Rewrites peers and rules of every site, running or not: what is new before the rules that name it, what is
    /// gone after them.
    pub async fn reshape(&mut self, shape: Shape) {
        for (from, to) in shape.pairs() {
            let address = match self.dialled.get(&(from, to)) {
                Some(address) => *address,
                None => {
                    let proxy = Proxy::start(self.sites[to].door.subscribe()).await;
                    let address = proxy.addr;
                    self.dialled.insert((from, to), address);
                    self.proxies.push(proxy);
                    address
                }
            };
            documents::write_peer(&self.sites[from].dir, &self.sites[to].name, address);
        }
        let names: Vec<&str> = self.sites.iter().map(|s| s.name.as_str()).collect();
        for (place, site) in self.sites.iter().enumerate() {
            documents::write_rules(&site.dir, place, &names, &shape);
        }
        for (from, to) in self.shape.pairs().difference(&shape.pairs()) {
            documents::remove_peer(&self.sites[*from].dir, &self.sites[*to].name);
        }
        self.shape = shape;
    }

    /// Lifts every fault of the network.
    pub fn heal(&self) {
        self.proxies.iter().for_each(|p| p.set(Fault::None));
    }

    /// Waits until at every running site every peer is up and no link has anything left to send, by measurements
    /// younger than the call, as often as there are sites: what one applied last may be another's to send on.
    pub async fn drained(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for _ in &self.sites {
            let since = SystemClock.now_millis();
            loop {
                let mut waiting = Vec::new();
                for (place, site) in self.sites.iter().enumerate().filter(|(_, s)| s.door().is_some()) {
                    match site.status().await {
                        Ok(report) if self.is_drained(place, &report, since) => {}
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

    fn is_drained(&self, place: usize, report: &SiteReport, since: u64) -> bool {
        report.is_drained()
            && report.peers.len() == self.shape.pairs().iter().filter(|(from, _)| *from == place).count()
            && report.peers.iter().all(|p| p.is_up)
            && report.links.len() == self.shape.from(place).count()
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
