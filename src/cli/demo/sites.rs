//! The demo's three sites: certificates, configuration and rule files in one temporary directory, a real
//! process each. Stops what it started.
use super::BUCKET;
use crate::cli::{certs, socket};
use crate::replicator::report::SiteReport;
use anyhow::{Context, bail};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const NAMES: [&str; 3] = ["fra", "ams", "waw"];
const TRUST_DOMAIN: &str = "demo.isthmus.dev";
/// Drives of each site: EC 4+4.
const DRIVES: usize = 8;
/// A site is ready within this time, or something is wrong.
const START: Duration = Duration::from_secs(20);
const ACCESS_KEY: &str = "demo";

/// One site as the demo reaches it.
#[derive(Clone)]
pub struct Site {
    pub name: String,
    pub dir: PathBuf,
    pub endpoint: String,
    /// URL of its status page.
    pub page: String,
    pub secret_key: String,
    pub client: Client,
}

impl Site {
    /// What the site's process shows of itself.
    pub async fn status(&self) -> anyhow::Result<SiteReport> {
        socket::get(&self.dir.join("admin.sock"), "/status").await
    }
}

/// Three running sites.
pub struct Sites {
    dir: TempDir,
    sites: Vec<Site>,
    children: Vec<Option<Child>>,
    /// Name of the site that is down, while one is.
    away: Arc<Mutex<Option<String>>>,
}

impl Sites {
    /// Makes everything, starts the processes and waits until each is ready and every link is up.
    ///
    /// # Errors
    /// When a process does not start; its log is named.
    pub async fn start() -> anyhow::Result<Sites> {
        let dir = tempfile::Builder::new().prefix("isthmus-demo-").tempdir().context("make a temporary directory")?;
        let loopback: &[&str] = &["127.0.0.1", "localhost"];
        certs::make(dir.path(), TRUST_DOMAIN, &NAMES.map(|n| (n, loopback))).context("make certificates")?;
        let ports = free_ports(NAMES.len() * 3)?;
        let mut sites = Vec::new();
        for (i, name) in NAMES.iter().enumerate() {
            let port = |j: usize| ports[i * 3 + j];
            let secret = storage_engine::entropy::id().as_simple().to_string();
            write_site(dir.path(), name, &ports, i, &secret).with_context(|| format!("write the files of {name}"))?;
            let endpoint = format!("http://127.0.0.1:{}", port(0));
            let client = client(&endpoint, &secret).await;
            let (name, dir, page) = ((*name).into(), dir.path().join(name), format!("http://127.0.0.1:{}/", port(2)));
            sites.push(Site { name, dir, endpoint, page, secret_key: secret, client });
        }
        let mut started = Sites { dir, children: sites.iter().map(|_| None).collect(), sites, away: Arc::default() };
        for i in 0..started.sites.len() {
            started.spawn(i)?;
        }
        for i in 0..started.sites.len() {
            started.until_ready(i).await?;
        }
        Ok(started)
    }

    pub fn all(&self) -> &[Site] {
        &self.sites
    }

    /// The site that is killed.
    pub fn last(&self) -> &Site {
        &self.sites[self.sites.len() - 1]
    }

    /// Name of the site that is down, while one is.
    pub fn away(&self) -> Arc<Mutex<Option<String>>> {
        self.away.clone()
    }

    /// kill -9.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub async fn kill_last(&mut self) -> anyhow::Result<()> {
        let last = self.sites.len() - 1;
        *self.away.lock().expect("no panic while held") = Some(self.sites[last].name.clone());
        let mut child = self.children[last].take().context("the last site runs")?;
        child.kill().await.context("kill -9")
    }

    /// Starts the killed site on its own drives again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart_last(&mut self) -> anyhow::Result<()> {
        let last = self.sites.len() - 1;
        self.spawn(last)?;
        self.until_ready(last).await
    }

    /// Waits until no link of any site has anything left to send.
    ///
    /// # Errors
    /// After `patience`, with what still waits.
    pub async fn until_drained(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let mut quiet = 0;
        loop {
            let mut waiting = Vec::new();
            for site in &self.sites {
                match site.status().await {
                    Ok(report) if report.is_drained() && report.peers.iter().all(|p| p.is_up) => {}
                    Ok(report) => waiting.push(crate::cli::status::text(&report)),
                    Err(e) => waiting.push(format!("{}: {e:#}", site.name)),
                }
            }
            // A change that was just applied may still be on its way into the own feed: look twice.
            quiet = if waiting.is_empty() { quiet + 1 } else { 0 };
            if quiet >= 3 {
                *self.away.lock().expect("no panic while held") = None;
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the sites did not drain within {}s:\n{}", patience.as_secs(), waiting.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Stops the sites with SIGTERM and removes their directory, unless there is something to look at.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn stop(mut self, is_clean: bool) -> anyhow::Result<()> {
        for child in self.children.iter_mut().flatten() {
            if let Some(id) = child.id() {
                // The process has no other way to be asked; `kill` is in every base system.
                Command::new("kill").arg("-TERM").arg(id.to_string()).status().await.context("send SIGTERM")?;
            }
        }
        for child in self.children.iter_mut().flatten() {
            if tokio::time::timeout(crate::shutdown::DEADLINE, child.wait()).await.is_err() {
                child.kill().await.context("kill a site that did not stop")?;
            }
        }
        if !is_clean {
            eprintln!("The sites differ; their drives and logs stay in {}", self.dir.keep().display());
        }
        Ok(())
    }

    /// Leaves the sites running until Ctrl-C and prints how to reach them.
    ///
    /// # Errors
    /// As [`stop`](Sites::stop).
    pub async fn keep(self, is_clean: bool) -> anyhow::Result<()> {
        for site in &self.sites {
            say!("{}", site.how_to_reach());
        }
        say!("Ctrl-C stops the sites and removes {}", self.dir.path().display());
        tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
        self.stop(is_clean).await
    }

    fn spawn(&mut self, i: usize) -> anyhow::Result<()> {
        let site = &self.sites[i];
        let log = std::fs::OpenOptions::new().create(true).append(true).open(site.dir.join("log"))?;
        let child = Command::new(std::env::current_exe().context("find this program")?)
            .args(["site", "--config"])
            .arg(site.dir.join("site.yaml"))
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start site {}", site.name))?;
        self.children[i] = Some(child);
        Ok(())
    }

    async fn until_ready(&mut self, i: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let site = &self.sites[i];
            if site.status().await.is_ok() {
                return Ok(());
            }
            let child = self.children[i].as_mut().context("the site was started")?;
            if let Some(status) = child.try_wait()? {
                bail!("site {} ended with {status}: {}", site.name, tail(&site.dir.join("log")));
            }
            if Instant::now() > deadline {
                bail!("site {} is not ready after {}s: {}", site.name, START.as_secs(), tail(&site.dir.join("log")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Site {
    fn how_to_reach(&self) -> String {
        let (name, endpoint, page, secret) = (&self.name, &self.endpoint, &self.page, &self.secret_key);
        format!(
            "\nsite {name}: {endpoint}  access key {ACCESS_KEY}  secret key {secret}\n  \
             status page {page}\n  \
             AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={secret} AWS_REGION=us-east-1 aws --endpoint-url {endpoint} s3 ls s3://{BUCKET}\n  \
             mc alias set {name} {endpoint} {ACCESS_KEY} {secret} && mc ls --versions {name}/{BUCKET}\n  \
             rclone lsf \":s3,provider=Other,endpoint='{endpoint}',access_key_id={ACCESS_KEY},secret_access_key={secret}:{BUCKET}\"\n  \
             isthmus status --socket {}",
            self.dir.join("admin.sock").display()
        )
    }
}

async fn client(endpoint: &str, secret: &str) -> Client {
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "demo"))
        .endpoint_url(endpoint)
        .load()
        .await;
    Client::from_conf(aws_sdk_s3::config::Builder::from(&shared).force_path_style(true).build())
}

/// Ports that were free a moment ago; all are held until the last is found, so that they differ.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("find free ports")?;
    Ok(held
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<Vec<SocketAddr>, _>>()?
        .iter()
        .map(SocketAddr::port)
        .collect())
}

/// Writes what a person would write: site.yaml, the secret key, and a folder of documents.
fn write_site(root: &Path, name: &str, ports: &[u16], i: usize, secret: &str) -> anyhow::Result<()> {
    let dir = root.join(name);
    let rules = dir.join("rules");
    std::fs::create_dir_all(&rules)?;
    std::fs::write(dir.join("secret-key"), secret)?;
    let drives: Vec<String> = (0..DRIVES).map(|d| format!("drives/{d}")).collect();
    let site = format!(
        "store:\n  drives: [{}]\n  s3_listen: \"127.0.0.1:{}\"\n  users:\n    - {{access_key: {ACCESS_KEY}, secret_key_file: secret-key}}\n  buckets:\n    - {{name: {BUCKET}, versioning: true}}\nrules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\npeer_listen: \"127.0.0.1:{}\"\nadmin_listen: \"127.0.0.1:{}\"\n",
        drives.join(", "),
        ports[i * 3],
        ports[i * 3 + 1],
        ports[i * 3 + 2],
    );
    std::fs::write(dir.join("site.yaml"), site)?;
    let own = dir.join("refs/secrets/own-tls");
    std::fs::create_dir_all(&own)?;
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::copy(root.join(name).join(file), own.join(file))?;
    }
    std::fs::write(rules.join("site.yaml"), site_document(name, ports[i * 3], ports[i * 3 + 1]))?;
    let mut destinations = String::new();
    for (j, peer) in NAMES.iter().enumerate().filter(|(j, _)| *j != i) {
        std::fs::write(rules.join(format!("peer-{peer}.yaml")), peer_document(peer, ports[j * 3 + 1]))?;
        destinations += &format!("    - {{peer: {peer}}}\n");
    }
    let rule = format!(
        "apiVersion: replication.isthmus.dev/v1alpha1\nkind: ReplicationRule\nmetadata: {{name: {BUCKET}}}\nspec:\n  siteRef: {{name: {name}}}\n  bucket: {BUCKET}\n  mode: ActiveActive\n  destinations:\n{destinations}  replicate: {{versionDeletes: Enabled}}\n  recoveryPointObjective: 15m\n"
    );
    std::fs::write(rules.join("rule.yaml"), rule)?;
    Ok(())
}

fn site_document(name: &str, s3: u16, peer: u16) -> String {
    format!(
        "apiVersion: replication.isthmus.dev/v1alpha1\nkind: Site\nmetadata: {{name: {name}}}\nspec:\n  siteID: {name}\n  trustDomain: {TRUST_DOMAIN}\n  store: {{apiEndpoint: \"https://127.0.0.1:{s3}\", apiTlsSecretRef: {{name: own-tls}}}}\n  listener: {{advertisedEndpoint: \"https://127.0.0.1:{peer}\", tlsSecretRef: {{name: own-tls}}}}\n"
    )
}

fn peer_document(name: &str, port: u16) -> String {
    format!(
        "apiVersion: replication.isthmus.dev/v1alpha1\nkind: Peer\nmetadata: {{name: {name}}}\nspec:\n  type: Replicator\n  replicator:\n    siteID: {name}\n    endpoint: \"https://127.0.0.1:{port}\"\n    tls:\n      caRef: {{kind: Secret, name: own-tls}}\n      identities: [\"spiffe://{TRUST_DOMAIN}/site/{name}/replicator\"]\n    inbound:\n      - {{bucket: {BUCKET}, origins: [\"*\"], versionDeletes: Enabled}}\n"
    )
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
