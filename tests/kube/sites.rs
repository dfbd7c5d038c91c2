//! Two sites as local processes, each with a namespace, a ServiceAccount with the Role of the manifests, and its own way to
//! the API server, which can be cut.
use super::cluster::Api;
use super::process::free_ports;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{Tag, Tagging};
use serde_json::{Value as Json, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const BUCKET: &str = "orders";
const DRIVES: [&str; 4] = ["d0", "d1", "d2", "d3"];
const SECRET: &str = "a-secret-key";
const PATIENCE: Duration = Duration::from_secs(90);

/// Both sites, and what they need.
pub struct Fleet {
    pub sites: Vec<Site>,
    cut: Arc<AtomicBool>,
    _root: tempfile::TempDir,
}

/// One site.
pub struct Site {
    pub namespace: String,
    pub name: &'static str,
    pub dir: PathBuf,
    /// Two issues of certificates, each of a CA of its own.
    pub certs: [PathBuf; 2],
    pub s3: u16,
    /// Where its store's private API listens, where it has one.
    pub api: u16,
    pub peer: u16,
    pub admin: u16,
    process: Mutex<Option<Child>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Fleet {
    /// Everything but the processes and the documents, of two sites at one API server.
    pub async fn prepare(api: &Api) -> Fleet {
        Fleet::of(&["a", "b"], &[api]).await
    }

    /// The same of these sites, each at an API server of the list as far as it goes.
    pub async fn of(names: &[&'static str], apis: &[&Api]) -> Fleet {
        let root = tempfile::tempdir().expect("make a directory");
        let certs = ["certs-1", "certs-2"].map(|dir| root.path().join(dir));
        for dir in &certs {
            let made = Command::new(env!("CARGO_BIN_EXE_isthmus"))
                .arg("certs")
                .arg(dir)
                .args(["--trust-domain", "kube.example"])
                .args(names.iter().flat_map(|name| ["--site".to_string(), format!("{name}=127.0.0.1")]))
                .status();
            assert!(made.expect("run isthmus certs").success());
        }
        let cut = Arc::new(AtomicBool::new(false));
        let mut sites = Vec::new();
        for (name, api) in names.iter().copied().zip(apis.iter().cycle()) {
            let way = proxy(&api.address, cut.clone());
            let [s3, peer, admin] = free_ports();
            let namespace = format!("isthmus-e2e-{}-{name}", storage_engine::entropy::id().as_simple());
            let dir = root.path().join(name);
            fs::create_dir_all(&dir).expect("make a directory");
            let site =
                Site { namespace, name, dir, certs: certs.clone(), s3, api: 1, peer, admin, process: Mutex::default() };
            site.provision(api, way).await;
            sites.push(site);
        }
        Fleet { sites, cut, _root: root }
    }

    /// The processes run; they wait for their documents.
    pub async fn start(api: &Api) -> Fleet {
        let fleet = Fleet::prepare(api).await;
        fleet.sites.iter().for_each(Site::run);
        fleet
    }

    /// Site a sends its bucket to site b.
    pub async fn apply_documents(&self, api: &Api) {
        self.apply_sites(&[api]).await;
        let rule = json!({"siteRef": {"name": "a"}, "bucket": BUCKET, "destinations": [{"peer": "b"}]});
        api.apply(&self.sites[0].namespace, "ReplicationRule", BUCKET, rule).await;
    }

    /// Every site sends its bucket to every other one.
    pub async fn apply_mesh(&self, apis: &[&Api]) {
        self.apply_sites(apis).await;
        for (site, api) in self.sites.iter().zip(apis.iter().cycle()) {
            let others = self.sites.iter().filter(|other| other.name != site.name);
            let destinations: Vec<Json> = others.map(|other| json!({"peer": other.name})).collect();
            let rule = json!({"siteRef": {"name": site.name}, "bucket": BUCKET, "mode": "ActiveActive",
                "destinations": destinations, "replicate": {"versionDeletes": "Enabled"}});
            api.apply(&site.namespace, "ReplicationRule", BUCKET, rule).await;
        }
    }

    /// Each site, and all others as its peers.
    async fn apply_sites(&self, apis: &[&Api]) {
        let tls = json!({"name": "tls"});
        for (site, api) in self.sites.iter().zip(apis.iter().cycle()) {
            let own = json!({"siteID": site.name, "trustDomain": "kube.example",
                "store": {"apiEndpoint": format!("https://127.0.0.1:{}", site.api), "apiTlsSecretRef": tls},
                "listener": {"advertisedEndpoint": format!("https://127.0.0.1:{}", site.peer), "tlsSecretRef": tls}});
            api.apply(&site.namespace, "Site", site.name, own).await;
            for other in self.sites.iter().filter(|other| other.name != site.name) {
                let peer = json!({"type": "Replicator", "replicator": {"siteID": other.name,
                    "endpoint": format!("https://127.0.0.1:{}", other.peer),
                    "tls": {"caRef": {"kind": "Secret", "name": "tls"},
                        "identities": [format!("spiffe://kube.example/site/{}/replicator", other.name)]},
                    "inbound": [{"bucket": BUCKET, "origins": ["*"], "versionDeletes": "Enabled"}], "drills": "Enabled"}});
                api.apply(&site.namespace, "Peer", other.name, peer).await;
            }
        }
    }

    /// Takes the sites' way to the API server away, or gives it back.
    pub fn cut(&self, is_cut: bool) {
        self.cut.store(is_cut, Ordering::SeqCst);
    }

    pub async fn stop(self) {
        for site in &self.sites {
            let mut child = site.process.lock().expect("no panic while held").take().expect("it runs");
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().expect("send SIGTERM").success());
            assert_eq!(child.wait().expect("wait").code(), Some(0), "{}", site.log());
        }
    }
}

impl Site {
    async fn provision(&self, api: &Api, way: u16) {
        let ns = &self.namespace;
        api.apply_object("", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}})).await;
        api.apply_object(
            ns,
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "isthmus-replicator"}}),
        )
        .await;
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/base");
        for file in ["role.yaml", "rolebinding.yaml"] {
            let text = fs::read_to_string(manifests.join(file)).expect("read a manifest");
            let documents: Vec<Json> = serde_saphyr::from_multiple(&text).expect("it is YAML");
            for mut document in documents {
                if document["kind"] == "RoleBinding" {
                    document["subjects"][0]["namespace"] = json!(ns);
                }
                api.apply_object(ns, document).await;
            }
        }
        // `secrets: watched` needs the right to read those that the documents name.
        let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tls"], "verbs": ["get", "list", "watch"]});
        api.apply_object(ns, json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "secrets"}, "rules": [rule]})).await;
        api.apply_object(
            ns,
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "secrets"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "secrets"},
            "subjects": [{"kind": "ServiceAccount", "name": "isthmus-replicator", "namespace": ns}]}),
        )
        .await;
        self.write_secret(api, 0).await;

        let token = api.token(ns, "isthmus-replicator").await;
        let mut cluster = api.authority.clone();
        cluster["server"] = json!(format!("https://127.0.0.1:{way}"));
        cluster["tls-server-name"] = json!(api.address.split(':').next());
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": ns}}]});
        fs::write(self.dir.join("kubeconfig"), kubeconfig.to_string()).expect("write the kubeconfig");
        fs::write(self.dir.join("secret-key"), SECRET).expect("write the secret key");
        let (s3, peer, admin) = (self.s3, self.peer, self.admin);
        fs::write(self.dir.join("site.yaml"), format!(
            "store:\n  drives: [d0, d1, d2, d3]\n  s3_listen: \"127.0.0.1:{s3}\"\n  users: [{{access_key: demo, secret_key_file: secret-key}}]\n  buckets: [{{name: {BUCKET}, versioning: true}}]\nkubernetes: {{kubeconfig: kubeconfig}}\npeer_listen: \"127.0.0.1:{peer}\"\nadmin_listen: \"127.0.0.1:{admin}\"\n"
        )).expect("write the configuration");
    }

    fn spawn(&self) -> Child {
        let log = fs::File::create(self.dir.join("log")).expect("make the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.args(["site", "--config"]).arg(self.dir.join("site.yaml"));
        command.stdin(Stdio::null()).stderr(log).spawn().expect("start a site")
    }

    /// Adds a line to its configuration; it counts from the next start.
    pub fn configure(&self, line: &str) {
        let file = self.dir.join("site.yaml");
        let text = fs::read_to_string(&file).expect("read the configuration");
        fs::write(file, format!("{text}{line}\n")).expect("write the configuration");
    }

    /// Keeps what its drives hold now; its process must not run.
    pub fn save_drives(&self) {
        for drive in DRIVES {
            self.copy(drive, &format!("saved-{drive}"));
        }
    }

    /// Its drives hold again what they held when they were saved; its process must not run.
    pub fn set_drives_back(&self) {
        for drive in DRIVES {
            fs::remove_dir_all(self.dir.join(drive)).expect("remove a drive");
            self.copy(&format!("saved-{drive}"), drive);
        }
    }

    fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("cp").arg("-a").arg(self.dir.join(from)).arg(self.dir.join(to)).status();
        assert!(copied.expect("run cp").success());
    }

    /// Starts its process.
    pub fn run(&self) {
        *self.process.lock().expect("no panic while held") = Some(self.spawn());
    }

    /// kill -9, where it runs.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().ok().and_then(|mut p| p.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Another certificate, of another CA, takes the place of the one in the Secret; waits until the process has it.
    pub async fn rotate(&self, api: &Api) {
        self.write_secret(api, 1).await;
        let fresh = fs::read(self.certs[1].join(self.name).join("tls.crt")).expect("read a certificate");
        let held = self.dir.join("refs/secrets/tls/tls.crt");
        self.until("the Secret is written", async || fs::read(&held).is_ok_and(|h| h == fresh)).await;
    }

    async fn write_secret(&self, api: &Api, issue: usize) {
        let read = |issue: usize, file: &str| {
            fs::read_to_string(self.certs[issue].join(self.name).join(file)).expect("read a certificate")
        };
        // While CAs change both are believed.
        let authorities = read(0, "ca.crt") + &read(1, "ca.crt");
        let data = json!({"tls.crt": read(issue, "tls.crt"), "tls.key": read(issue, "tls.key"), "ca.crt": authorities});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "stringData": data});
        api.apply_object(&self.namespace, secret).await;
    }

    /// Runs it until it ends by itself; its exit code and what it said.
    pub async fn run_to_end(&self) -> (Option<i32>, String) {
        let mut child = self.spawn();
        let by = Instant::now() + PATIENCE;
        while child.try_wait().expect("look at it").is_none() && Instant::now() < by {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ = child.kill();
        (child.wait().expect("wait").code(), self.log())
    }

    /// What the process holds of memory.
    pub fn memory_mib(&self) -> u64 {
        let id = self.process.lock().expect("no panic while held").as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default() / 1024
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.admin, path)
    }

    pub fn ready_code(&self) -> Option<u16> {
        self.get("/readyz").map(|(code, _)| code)
    }

    async fn until(&self, what: &str, mut fact: impl AsyncFnMut() -> bool) {
        let by = Instant::now() + PATIENCE;
        while !fact().await {
            assert!(Instant::now() < by, "site {}: not in time: {what}\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn until_ready(&self) {
        self.until("it is ready", async || self.ready_code() == Some(200)).await;
    }

    pub async fn until_metric(&self, line: &str) {
        self.until(line, async || self.get("/metrics").is_some_and(|(_, text)| text.lines().any(|l| l == line))).await;
    }

    fn client(&self) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("demo", SECRET, None, None, "test"))
            .endpoint_url(format!("http://127.0.0.1:{}", self.s3))
            .force_path_style(true)
            .build();
        Client::from_conf(config)
    }

    pub async fn put(&self, prefix: &str, count: usize) {
        let client = self.client();
        for i in 0..count {
            let put =
                client.put_object().bucket(BUCKET).key(format!("{prefix}/{i:03}")).body(vec![i as u8; 1000 * i].into());
            put.send().await.expect("put an object");
        }
    }

    /// Tags an object.
    pub async fn tag(&self, key: &str) {
        let tag = Tag::builder().key("class").value("gold").build().expect("it is whole");
        let tags = Tagging::builder().tag_set(tag).build().expect("it is whole");
        self.client().put_object_tagging().bucket(BUCKET).key(key).tagging(tags).send().await.expect("tag an object");
    }

    /// Waits until an object bears tags.
    pub async fn until_tagged(&self, key: &str) {
        let has_tags = async || {
            let held = self.client().get_object_tagging().bucket(BUCKET).key(key).send().await;
            held.is_ok_and(|held| !held.tag_set().is_empty())
        };
        self.until(&format!("{key} is tagged"), has_tags).await;
    }

    /// Deletes an object as a client does: a marker stands on it.
    pub async fn delete(&self, key: &str) {
        self.client().delete_object().bucket(BUCKET).key(key).send().await.expect("delete an object");
    }

    /// Every version the bucket shows, markers too: key, version id, whether it is the latest.
    pub async fn versions(&self) -> Vec<(String, String, bool)> {
        let list = self.client().list_object_versions().bucket(BUCKET).send().await.expect("list the versions");
        assert_eq!(list.is_truncated(), Some(false), "one page holds all");
        let objects = list.versions().iter().map(|v| (v.key(), v.version_id(), v.is_latest()));
        let markers = list.delete_markers().iter().map(|m| (m.key(), m.version_id(), m.is_latest()));
        let text = |of: Option<&str>| of.unwrap_or_default().to_string();
        let mut all: Vec<_> = objects.chain(markers).map(|(k, v, l)| (text(k), text(v), l == Some(true))).collect();
        all.sort();
        all
    }

    pub async fn count(&self, prefix: &str) -> usize {
        let list = self.client().list_objects_v2().bucket(BUCKET).prefix(format!("{prefix}/")).send().await;
        list.expect("list the bucket").contents().len()
    }

    pub async fn until_holds(&self, prefix: &str, count: usize) {
        self.until(&format!("it holds {count} of {prefix}"), async || self.count(prefix).await == count).await;
    }
}

/// Status and text of a GET on an admin listener; `None` while nobody listens.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some((text.split(' ').nth(1)?.parse().ok()?, text))
}

/// A way to an address that can be cut: then no connection is taken and those there are end.
fn proxy(address: &str, cut: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let address = address.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if cut.load(Ordering::SeqCst) {
                continue;
            }
            let Ok(server) = TcpStream::connect(&address) else { continue };
            for (from, to) in [(&stream, &server), (&server, &stream)] {
                let (from, to) = (from.try_clone().expect("clone"), to.try_clone().expect("clone"));
                let cut = cut.clone();
                std::thread::spawn(move || pour(from, to, &cut));
            }
        }
    });
    port
}

fn pour(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(100)));
    let mut buffer = [0; 16 << 10];
    while !cut.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
