//! Roles apart on real processes: site `a` is a store and a replicator, site `b` both in one. Objects travel
//! both ways, at `a` over TLS, each half of `a` is killed while the other lives, and nothing is lost.
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation::WhenSupported;
use aws_sdk_s3::config::retry::RetryConfig;
use isthmus::store::s3::connect::{self, Endpoint, Keys};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod process;
use process::{free_ports, rewrite};

const BUCKET: &str = "orders";
const SECRET: &str = "a-secret-key";
/// Longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(90);

/// A role's process; killed with its owner.
struct Process {
    role: &'static str,
    config: PathBuf,
    child: Child,
}

impl Process {
    fn start(role: &'static str, config: PathBuf) -> Process {
        let child = Self::spawn(role, &config);
        Process { role, config, child }
    }
    fn spawn(role: &str, config: &Path) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(config.with_extension("log")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .args([role, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start a role")
    }
    fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("wait for the killed");
    }
    fn restart(&mut self) {
        self.child = Self::spawn(self.role, &self.config);
    }
    fn log(&self) -> String {
        process::tail(&self.config.with_extension("log"))
    }
    /// Asks it to stop, and says how it ended.
    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("send SIGTERM").success());
        let status = self.child.wait().expect("wait for the stop");
        status.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a GET on an admin listener; `None` while nobody listens.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Waits until `fact` holds.
async fn until(what: &str, logs: &[&Process], mut fact: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !fact().await {
        if Instant::now() > deadline {
            let logs: Vec<_> = logs.iter().map(|p| format!("{}:\n{}", p.config.display(), p.log())).collect();
            panic!("not within {}s: {what}\n{}", DEADLINE.as_secs(), logs.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A client as applications have it: it tries again, and sends checksums in trailers. With a CA it speaks TLS.
async fn client(port: u16, ca: Option<&Path>) -> Client {
    let scheme = if ca.is_some() { "https" } else { "http" };
    let endpoint = Endpoint {
        url: format!("{scheme}://127.0.0.1:{port}"),
        region: "us-east-1".into(),
        path_style: true,
        keys: Some(Keys { access_key_id: "demo".into(), secret_access_key: SECRET.into(), session_token: None }),
        ca: ca.map(|file| fs::read(file).unwrap()),
    };
    let spare = connect::client(&endpoint).await.unwrap();
    let usual = spare.config().to_builder().retry_config(RetryConfig::standard());
    Client::from_conf(usual.request_checksum_calculation(WhenSupported).build())
}

/// Puts objects of many sizes; gives the acked ones. One that was not acked may or may not be there.
async fn put(client: &Client, prefix: &str, count: usize) -> BTreeSet<(String, String)> {
    let mut acked = BTreeSet::new();
    for i in 0..count {
        let key = format!("{prefix}/{i:03}");
        let bytes = vec![i as u8; i * i * 977];
        let put = client.put_object().bucket(BUCKET).key(&key).body(bytes.into()).send().await;
        if let Ok(put) = put {
            acked.insert((key, put.version_id.expect("the bucket is versioned")));
        }
    }
    acked
}

type Versions = BTreeMap<(String, String), (bool, String, i64)>;

/// All versions of a site: (key, id) to (latest, ETag, size); `None` while it cannot be listed.
async fn versions(client: &Client) -> Option<Versions> {
    let (mut all, mut key, mut id) = (Versions::new(), None, None);
    loop {
        let list = client.list_object_versions().bucket(BUCKET).set_key_marker(key).set_version_id_marker(id);
        let page = list.send().await.ok()?;
        for v in page.versions() {
            let name = (v.key().unwrap().to_owned(), v.version_id().unwrap().to_owned());
            all.insert(name, (v.is_latest().unwrap(), v.e_tag().unwrap().to_owned(), v.size().unwrap()));
        }
        for m in page.delete_markers() {
            let name = (m.key().unwrap().to_owned(), m.version_id().unwrap().to_owned());
            all.insert(name, (m.is_latest().unwrap(), String::new(), 0));
        }
        if page.is_truncated() != Some(true) {
            return Some(all);
        }
        (key, id) = (page.next_key_marker, page.next_version_id_marker);
    }
}

/// The documents of one site and its certificates, as a person would write them.
fn write_site(root: &Path, name: &str, peer: &str, api: u16, peer_port: u16, peers_port: u16) -> PathBuf {
    let dir = root.join(name);
    let (rules, secret) = (dir.join("rules"), dir.join("refs/secrets/own-tls"));
    fs::create_dir_all(&rules).unwrap();
    fs::create_dir_all(&secret).unwrap();
    fs::write(dir.join("secret-key"), SECRET).unwrap();
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::copy(root.join("certs").join(name).join(file), secret.join(file)).unwrap();
    }
    let head = "apiVersion: replication.isthmus.dev/v1alpha1\n";
    fs::write(rules.join("site.yaml"), format!(
        "{head}kind: Site\nmetadata: {{name: {name}}}\nspec:\n  siteID: {name}\n  trustDomain: roles.example\n  store: {{apiEndpoint: \"https://127.0.0.1:{api}\", apiTlsSecretRef: {{name: own-tls}}}}\n  listener: {{advertisedEndpoint: \"https://127.0.0.1:{peer_port}\", tlsSecretRef: {{name: own-tls}}}}\n"
    )).unwrap();
    fs::write(rules.join("peer.yaml"), format!(
        "{head}kind: Peer\nmetadata: {{name: {peer}}}\nspec:\n  type: Replicator\n  replicator:\n    siteID: {peer}\n    endpoint: \"https://127.0.0.1:{peers_port}\"\n    tls:\n      caRef: {{kind: Secret, name: own-tls}}\n      identities: [\"spiffe://roles.example/site/{peer}/replicator\"]\n    drills: Enabled\n    inbound:\n      - {{bucket: {BUCKET}, origins: [\"*\"], versionDeletes: Enabled}}\n"
    )).unwrap();
    fs::write(rules.join("rule.yaml"), format!(
        "{head}kind: ReplicationRule\nmetadata: {{name: {BUCKET}}}\nspec:\n  siteRef: {{name: {name}}}\n  bucket: {BUCKET}\n  mode: ActiveActive\n  destinations: [{{peer: {peer}}}]\n  replicate: {{versionDeletes: Enabled}}\n  recoveryPointObjective: 15m\n"
    )).unwrap();
    dir
}

fn store_section(s3: u16) -> String {
    format!(
        "store:\n  drives: [d0, d1, d2, d3]\n  s3_listen: \"127.0.0.1:{s3}\"\n  users: [{{access_key: demo, secret_key_file: secret-key}}]\n  buckets: [{{name: {BUCKET}, versioning: true}}]\n"
    )
}

/// The same store, its S3 listener with a certificate.
fn over_tls(section: &str, folder: &str) -> String {
    section.replace("  users:", &format!("  s3_tls_dir: {folder}\n  users:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_apart_replicate_both_ways_and_survive_each_others_death() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let [s3_a, api_a, store_admin, peer_a, admin_a, s3_b, peer_b, admin_b] = free_ports();
    let certs = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .args(["certs", root.join("certs").to_str().unwrap(), "--trust-domain", "roles.example"])
        .args(["--site", "a=127.0.0.1,localhost", "--site", "b=127.0.0.1,localhost"])
        .status();
    assert!(certs.unwrap().success());
    let a = write_site(root, "a", "b", api_a, peer_a, peer_b);
    let b = write_site(root, "b", "a", 1, peer_b, peer_a);
    fs::write(a.join("store.yaml"), format!(
        "origin: a\n{}api:\n  listen: \"127.0.0.1:{api_a}\"\n  tls_dir: ../certs/a/store\n  clients: [\"spiffe://roles.example/site/a/replicator\"]\nadmin_listen: \"127.0.0.1:{store_admin}\"\n",
        over_tls(&store_section(s3_a), "../certs/a/s3")
    )).unwrap();
    let listens =
        |peer: u16, admin: u16| format!("peer_listen: \"127.0.0.1:{peer}\"\nadmin_listen: \"127.0.0.1:{admin}\"\n");
    fs::write(a.join("replicator.yaml"), listens(peer_a, admin_a)).unwrap();
    fs::write(b.join("site.yaml"), store_section(s3_b) + &listens(peer_b, admin_b)).unwrap();

    // The replicator starts first and waits for its store.
    let mut replicator = Process::start("replicator", a.join("replicator.yaml"));
    until("the replicator says what it lacks", &[&replicator], async || {
        get(admin_a, "/readyz").is_some_and(|(code, why)| code == 503 && why.contains("store"))
    })
    .await;
    let mut store = Process::start("store", a.join("store.yaml"));
    let site = Process::start("site", b.join("site.yaml"));
    for port in [store_admin, admin_a, admin_b] {
        let ready = async || get(port, "/readyz").is_some_and(|(code, _)| code == 200);
        until("every process is ready", &[&replicator, &store, &site], ready).await;
    }
    let at_a = client(s3_a, Some(&root.join("certs/a/s3/ca.crt"))).await;
    let at_b = client(s3_b, None).await;
    let mut acked = put(&at_a, "first/a", 25).await;
    acked.extend(put(&at_b, "first/b", 25).await);
    assert_eq!(acked.len(), 50, "both sites are well");

    // The store dies while both sites are written and its replicator lives.
    let writing = (
        tokio::spawn({
            let c = at_a.clone();
            async move { put(&c, "second/a", 30).await }
        }),
        tokio::spawn({
            let c = at_b.clone();
            async move { put(&c, "second/b", 40).await }
        }),
    );
    until("the writing is under way", &[&store], async || {
        versions(&at_a).await.is_some_and(|v| v.keys().filter(|(key, _)| key.starts_with("second/a")).count() > 5)
    })
    .await;
    store.kill();
    until("the replicator notices", &[&replicator], async || {
        get(admin_a, "/readyz").is_some_and(|(code, why)| code == 503 && why.contains("cannot be reached"))
    })
    .await;
    assert_eq!(get(admin_a, "/livez").unwrap().0, 200, "it lives and waits");
    acked.extend(put(&at_b, "while-away", 10).await);
    store.restart();
    acked.extend(writing.0.await.unwrap());
    acked.extend(writing.1.await.unwrap());
    let ready = async || get(admin_a, "/readyz").is_some_and(|(code, _)| code == 200);
    until("the replicator has found its store again", &[&replicator, &store], ready).await;

    // The replicator dies while the store lives and is written.
    let writing = tokio::spawn({
        let c = at_a.clone();
        async move { put(&c, "third/a", 30).await }
    });
    acked.extend(put(&at_b, "third/b", 10).await);
    replicator.kill();
    acked.extend(writing.await.unwrap());
    assert!(at_a.delete_object().bucket(BUCKET).key("first/b/001").send().await.is_ok(), "the store needs nobody");
    replicator.restart();

    let mut seen = (None, None);
    until("both sites hold the same versions", &[&replicator, &store, &site], async || {
        seen = (versions(&at_a).await, versions(&at_b).await);
        let missing = |v: &Versions| acked.iter().any(|name| !v.contains_key(name));
        matches!(&seen, (Some(a), Some(b)) if a == b && !missing(a))
    })
    .await;
    let all = seen.0.unwrap();
    assert!(all.len() > acked.len(), "{} versions, {} acked", all.len(), acked.len());
    for ((key, id), (_, etag, size)) in all.iter().filter(|(_, (_, etag, _))| !etag.is_empty()).step_by(7) {
        for client in [&at_a, &at_b] {
            let got = client.get_object().bucket(BUCKET).key(key).version_id(id).send().await.unwrap();
            assert_eq!(got.e_tag(), Some(etag.as_str()));
            assert_eq!(got.body.collect().await.unwrap().into_bytes().len() as i64, *size, "{key}");
        }
    }

    pieces_and_reads_cross_the_private_api(&at_a, &at_b, &a, &b).await;
    let asked = get(store_admin, "/metrics").unwrap().1;
    for operation in ["PutPiece", "HeldPieces", "ApplyPieces", "ReadRange", "Wanted", "Lend"] {
        let count = format!("isthmus_store_requests_total{{site=\"a\",operation=\"{operation}\",code=\"200\"}}");
        assert!(asked.contains(&count), "{count} is not in\n{asked}");
    }

    // A drill is driven by the replicator, with its canary at a store in another process.
    for plan in [["partition", "2s"], ["switchover", "1s"]] {
        let mut drill = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        drill.args(["drill", "run", "--peer", "b", "--type", plan[0], "--duration", plan[1]]);
        let said = drill.arg("--socket").arg(a.join("admin.sock")).output().expect("run isthmus");
        assert!(said.status.success(), "{}{}", String::from_utf8_lossy(&said.stdout), replicator.log());
    }
    let left = at_a.list_buckets().send().await.unwrap();
    assert_eq!(left.buckets().iter().filter_map(|b| b.name()).collect::<Vec<_>>(), [BUCKET], "the canaries are gone");

    let metrics = get(store_admin, "/metrics").unwrap().1;
    for name in [
        "isthmus_store_requests_total{site=\"a\",operation=\"PutObject\",code=\"200\"}",
        "isthmus_store_requests_total{site=\"a\",operation=\"Apply\",code=\"200\"}",
        "isthmus_store_request_seconds_count{site=\"a\",operation=\"PutObject\"}",
        "isthmus_store_quorum_failures_total{site=\"a\",set=\"0\",kind=\"resolve\"} ",
        "isthmus_store_drive_state{site=\"a\",drive=\"3\",state=\"online\"} 1",
        "isthmus_store_drive_free_bytes{site=\"a\",drive=\"0\"}",
        "isthmus_store_log_fsync_seconds_bucket",
        "isthmus_store_group_commit_records_bucket",
        "isthmus_store_handshakes_failed_total{site=\"a\"} 0",
        "isthmus_store_certificate_expiry_timestamp_seconds{site=\"a\",listener=\"s3\"} 48",
        "isthmus_store_certificate_issued_timestamp_seconds{site=\"a\",listener=\"api\"} 17",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    let metrics = get(admin_a, "/metrics").unwrap().1;
    assert!(metrics.contains("isthmus_peer_listener_refused_total{site=\"a\",reason=\"unknown_peer\"} 0"), "{metrics}");
    assert!(!metrics.contains("isthmus_store_"), "a replicator by itself has no store to count");
    assert!(get(admin_b, "/metrics").unwrap().1.contains("isthmus_store_requests_total"));

    assert_eq!((replicator.stop(), store.stop(), site.stop()), (Some(0), Some(0), Some(0)));
}

/// Large versions to and from the site whose roles are apart, and reads there of what it does not have yet.
async fn pieces_and_reads_cross_the_private_api(at_a: &Client, at_b: &Client, a: &Path, b: &Path) {
    let bytes = |seed: usize| (0..20 << 20).map(|at| (at / 251 + at + seed) as u8).collect::<Vec<_>>();
    for (from, to, key, seed) in [(at_a, at_b, "large/a", 1), (at_b, at_a, "large/b", 2)] {
        from.put_object().bucket(BUCKET).key(key).body(bytes(seed).into()).send().await.unwrap();
        until("a large object is there", &[], async || {
            let Ok(got) = to.get_object().bucket(BUCKET).key(key).send().await else { return false };
            got.body.collect().await.unwrap().into_bytes() == bytes(seed)
        })
        .await;
    }

    // b brings nothing for a while, and lends.
    rewrite(&b.join("rules/rule.yaml"), "  bucket:", "  suspend: true\n  bucket:");
    rewrite(&a.join("rules/rule.yaml"), "  bucket:", "  readFromPeers: Enabled\n  bucket:");
    let head = async |key: &str| at_a.head_object().bucket(BUCKET).key(key).send().await.is_ok();
    let mut number = 0;
    let mut key = String::new();
    until("a reads from b what is not there yet", &[], async || {
        number += 1;
        key = format!("lent/{number}");
        at_b.put_object().bucket(BUCKET).key(&key).body(bytes(number).into()).send().await.unwrap();
        let here = versions(at_a).await.unwrap().keys().any(|(held, _)| *held == key);
        !here && head(&key).await
    })
    .await;
    let got = at_a.get_object().bucket(BUCKET).key(&key).send().await.unwrap();
    assert!(got.body.collect().await.unwrap().into_bytes() == bytes(number), "the bytes of b, through a");
    let some = at_a.get_object().bucket(BUCKET).key(&key).range("bytes=8388600-8388615").send().await.unwrap();
    assert!(some.body.collect().await.unwrap().into_bytes() == bytes(number)[8_388_600..=8_388_615]);
    assert!(!versions(at_a).await.unwrap().keys().any(|(held, _)| *held == key), "it is not at a");
    assert!(!head("lent/nowhere").await);
    // What a knows to be deleted it does not read from b.
    at_a.delete_object().bucket(BUCKET).key(&key).send().await.unwrap();
    assert!(!head(&key).await);

    rewrite(&b.join("rules/rule.yaml"), "  suspend: true\n", "");
    rewrite(&a.join("rules/rule.yaml"), "  readFromPeers: Enabled\n", "");
    until(
        "both sites hold the same again",
        &[],
        async || matches!((versions(at_a).await, versions(at_b).await), (Some(a), Some(b)) if a == b),
    )
    .await;
}

#[test]
fn settings_of_a_role_are_refused_before_a_port_is_bound() {
    let dir = tempfile::tempdir().unwrap();
    let run = |role: &str, text: &str| {
        fs::write(dir.path().join("role.yaml"), text).unwrap();
        let mut isthmus = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        let output = isthmus.current_dir(dir.path()).args([role, "--config", "role.yaml"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let text = store_section(0) + "api: {listen: \"127.0.0.1:0\", tls_dir: nowhere, clients: [anybody]}\norigin: a\n";
    let (code, said) = run("store", &text);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("api.clients[0]"), "{said}");
    let (code, said) = run("store", &text.replace("anybody", "\"spiffe://t/site/a/replicator\""));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("store.users") && said.contains("tls.crt") && said.contains("ca.crt"), "{said}");
    let (code, said) = run("replicator", &store_section(0));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("role.yaml:1: store"), "{said}");
    // A certificate with another's key can be told only once both are read.
    let certs = dir.path().join("certs");
    isthmus::cli::certs::make(&certs, "t", &[("a", &["localhost"][..]), ("b", &["localhost"])]).unwrap();
    fs::copy(certs.join("b/s3/tls.key"), certs.join("a/s3/tls.key")).unwrap();
    fs::write(dir.path().join("secret-key"), SECRET).unwrap();
    let api = "api: {listen: \"127.0.0.1:0\", tls_dir: certs/a/store, clients: [\"spiffe://t/site/a/replicator\"]}\n";
    let (code, said) = run("store", &(over_tls(&store_section(0), "certs/a/s3") + api + "origin: a\n"));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("certs/a/s3/tls.crt") && said.contains("the key of that certificate"), "{said}");
    assert!(!dir.path().join("d0").exists(), "no drive is touched");
}
