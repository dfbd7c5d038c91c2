//! Real `isthmus site` processes with their certificates, configuration and documents in one directory.
//! The first site has a rule to the second, where there is one.
use anyhow::{Context, bail};
use isthmus::cli::certs;
use std::fs::{File, create_dir_all, write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

pub const ACCESS_KEY: &str = "figures";
pub const BUCKET: &str = "figures";
const SECRET_KEY: &str = "a secret for measuring only";
const TRUST_DOMAIN: &str = "figures.isthmus.dev";
const DRIVES: usize = 8;
const API: &str = "apiVersion: replication.isthmus.dev/v1alpha1";
/// A site is ready, and later ended, within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// One running site.
#[derive(Clone)]
pub struct Site {
    pub name: String,
    pub s3: SocketAddr,
    pub admin: SocketAddr,
    pub secret_key: String,
    peer: SocketAddr,
    pid: u32,
    child: Rc<std::cell::RefCell<Option<Child>>>,
}

impl Site {
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Starts a site per name below `dir` and waits until all are ready.
///
/// # Errors
/// A process that does not become ready; its log is quoted.
pub async fn start(program: &Path, dir: &Path, names: &[&str]) -> anyhow::Result<Vec<Site>> {
    let hosts: &[&str] = &["127.0.0.1"];
    let named: Vec<_> = names.iter().map(|name| (*name, hosts)).collect();
    certs::make(dir, TRUST_DOMAIN, &named).context("make certificates")?;
    let ports = free_ports(names.len() * 3)?;
    let mut sites: Vec<Site> = Vec::new();
    for (name, ports) in names.iter().zip(ports.chunks(3)) {
        sites.push(Site {
            name: (*name).into(),
            s3: ports[0],
            peer: ports[1],
            admin: ports[2],
            secret_key: SECRET_KEY.into(),
            pid: 0,
            child: Rc::default(),
        });
    }
    for i in 0..sites.len() {
        write_files(dir, &sites, i).with_context(|| format!("write the files of {}", sites[i].name))?;
    }
    for site in &mut sites {
        let child = spawn(program, &dir.join(&site.name)).with_context(|| format!("start site {}", site.name))?;
        site.pid = child.id().context("a process that was just started has an id")?;
        site.child.replace(Some(child));
    }
    for site in &sites {
        until_ready(site, &dir.join(&site.name)).await?;
    }
    Ok(sites)
}

/// Stops the sites with SIGTERM.
///
/// # Errors
/// A process that does not end.
pub async fn stop(sites: Vec<Site>) -> anyhow::Result<()> {
    for site in &sites {
        Command::new("kill").arg("-TERM").arg(site.pid.to_string()).status().await.context("send SIGTERM")?;
    }
    for site in &sites {
        let Some(mut child) = site.child.take() else { continue };
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            bail!("site {} did not stop within {} s", site.name, PATIENCE.as_secs());
        }
    }
    Ok(())
}

fn spawn(program: &Path, dir: &Path) -> anyhow::Result<Child> {
    let log = File::create(dir.join("log"))?;
    Ok(Command::new(program)
        .args(["site", "--config"])
        .arg(dir.join("site.yaml"))
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?)
}

async fn until_ready(site: &Site, dir: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    while crate::metrics::scrape(site).await.is_err() || tokio::net::TcpStream::connect(site.s3).await.is_err() {
        let ended = site.child.borrow_mut().as_mut().and_then(|c| c.try_wait().ok().flatten());
        if ended.is_some() || started.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            bail!("site {} is not ready ({ended:?}):\n{log}", site.name);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Addresses that were free a moment ago; all are held until the last is found, so that they differ.
fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()
        .context("find ports")?;
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// What a person would write: site.yaml, the secrets, and a folder of documents.
fn write_files(root: &Path, sites: &[Site], i: usize) -> anyhow::Result<()> {
    let Site { name, s3, peer, admin, .. } = &sites[i];
    let dir = root.join(name);
    let (rules, own) = (dir.join("rules"), dir.join("refs/secrets/own-tls"));
    create_dir_all(&rules)?;
    create_dir_all(&own)?;
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::copy(dir.join(file), own.join(file))?;
    }
    write(dir.join("secret-key"), SECRET_KEY)?;
    let drives: Vec<String> = (0..DRIVES).map(|d| format!("drives/{d}")).collect();
    let drives = drives.join(", ");
    write(
        dir.join("site.yaml"),
        format!(
            "store:\n  drives: [{drives}]\n  s3_listen: \"{s3}\"\n  \
             users: [{{access_key: {ACCESS_KEY}, secret_key_file: secret-key}}]\n  \
             buckets: [{{name: {BUCKET}, versioning: true}}]\n\
             rules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\n\
             peer_listen: \"{peer}\"\nadmin_listen: \"{admin}\"\n"
        ),
    )?;
    write(
        rules.join("site.yaml"),
        format!(
            "{API}\nkind: Site\nmetadata: {{name: {name}}}\nspec:\n  siteID: {name}\n  trustDomain: {TRUST_DOMAIN}\n  \
             store: {{apiEndpoint: \"https://{s3}\", apiTlsSecretRef: {{name: own-tls}}}}\n  \
             listener: {{advertisedEndpoint: \"https://{peer}\", tlsSecretRef: {{name: own-tls}}}}\n"
        ),
    )?;
    for other in sites.iter().filter(|s| s.name != *name) {
        let (site, at) = (&other.name, other.peer);
        write(
            rules.join(format!("peer-{site}.yaml")),
            format!(
                "{API}\nkind: Peer\nmetadata: {{name: {site}}}\nspec:\n  type: Replicator\n  replicator:\n    \
                 siteID: {site}\n    endpoint: \"https://{at}\"\n    tls:\n      \
                 caRef: {{kind: Secret, name: own-tls}}\n      \
                 identities: [\"{}\"]\n    inbound:\n      - {{bucket: {BUCKET}, origins: [\"*\"]}}\n",
                certs::spiffe_id(TRUST_DOMAIN, site)
            ),
        )?;
    }
    if let (0, Some(peer)) = (i, sites.get(1)) {
        write(
            rules.join("rule.yaml"),
            format!(
                "{API}\nkind: ReplicationRule\nmetadata: {{name: {BUCKET}}}\nspec:\n  siteRef: {{name: {name}}}\n  \
                 bucket: {BUCKET}\n  destinations:\n    - {{peer: {}}}\n",
                peer.name
            ),
        )?;
    }
    Ok(())
}
