//! The store as independent clients see it: `s3_clients/*.py` over the real socket.
//!
//! Needs a Python with boto3: the one `ISTHMUS_PYTHON` names, else that of `target/clients`, which
//! `.ci/run` makes. Without one the test says SKIPPED and passes.
#![allow(clippy::disallowed_methods)] // the store under test runs in a task of the test
mod authority;

use authority::Authority;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use storage_engine::clock::SystemClock;
use storage_engine::config::{Limits, Settings, User};
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SECRET_KEY: &str = "a secret of the tests";

/// The interpreter to use; `None` where boto3 cannot be imported.
fn python() -> Option<PathBuf> {
    let made_by_ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/bin/python");
    let python = std::env::var_os("ISTHMUS_PYTHON").map_or(made_by_ci, PathBuf::from);
    let imports = Command::new(&python).args(["-c", "import boto3"]).output();
    imports.is_ok_and(|o| o.status.success()).then_some(python)
}

fn settings(dir: &TempDir) -> Settings {
    let secret = dir.path().join("secret");
    std::fs::write(&secret, SECRET_KEY).expect("the directory was just made");
    let drives: Vec<PathBuf> = (0..4).map(|i| dir.path().join(format!("drive{i}"))).collect();
    drives.iter().for_each(|d| std::fs::create_dir(d).expect("the directory was just made"));
    Settings {
        drives,
        parity: None,
        s3_listen: ([127, 0, 0, 1], 0).into(),
        s3_tls_dir: None,
        region: "us-east-1".into(),
        users: vec![User { access_key: "writer".into(), secret_key_file: secret, bypass_governance: true }],
        buckets: Vec::new(),
        limits: Limits::default(),
    }
}

/// A store behind a real socket, until `stop`.
struct Served {
    dir: TempDir,
    url: String,
    stop: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn start(dir: TempDir, settings: Settings, scheme: &str) -> Served {
        let node = StoreNode::open(&settings, Arc::new(SystemClock), Origin::new("here")).await;
        let mut node = node.expect("it opens");
        node.bind().await.expect("a free port");
        let url = format!("{scheme}://{}", node.s3_addr().expect("it is bound"));
        let stop = CancellationToken::new();
        let running = tokio::spawn(node.run(stop.clone()));
        Served { dir, url, stop, running }
    }

    /// Runs the script, or some of its tests, believing the CA in `bundle`; whether all went well, and what it said.
    async fn judged(&self, python: &Path, tests: &[&str], bundle: Option<&str>) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3_clients/boto3_conformance.py");
        let mut command = Command::new(python);
        command.arg(script).args(tests).env("ENDPOINT", &self.url);
        command.env("ACCESS_KEY", "writer").env("SECRET_KEY", SECRET_KEY).env("NO_PROXY", "127.0.0.1");
        if let Some(pem) = bundle {
            let file = self.dir.path().join("bundle.crt");
            std::fs::write(&file, pem).expect("the directory is ours");
            // boto3 reads the one, Python's own client the other.
            command.env("AWS_CA_BUNDLE", &file).env("SSL_CERT_FILE", &file);
        }
        let done = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
        let done = done.expect("the interpreter was there");
        let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (done.status.success(), said)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("the store does not panic").expect("it was bound");
    }
}

fn ran(judged: (bool, String)) {
    let (is_well, said) = judged;
    assert!(is_well, "{said}");
    assert!(said.contains("Ran ") && !said.contains("Ran 0 tests"), "no test ran: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_finds_the_store_it_knows() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: boto3 finds the store it knows: no Python with boto3; set ISTHMUS_PYTHON or run .ci/run");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = settings(&dir);
    let served = Served::start(dir, settings, "http").await;
    ran(served.judged(&python, &[], None).await);
    served.stop().await;
}

/// Over TLS boto3 signs bodies otherwise: not at all, or with their checksum in a trailer.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_finds_it_over_tls_where_it_knows_the_ca() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: boto3 finds it over TLS: no Python with boto3; set ISTHMUS_PYTHON or run .ci/run");
        return;
    };
    let (dir, ca) = (tempfile::tempdir().expect("a temporary directory"), Authority::new());
    let tls = dir.path().join("tls");
    ca.sign_into(&tls);
    let settings = Settings { s3_tls_dir: Some(tls), ..settings(&dir) };
    let served = Served::start(dir, settings, "https").await;
    ran(served.judged(&python, &["Objects", "Uploads"], Some(&ca.pem())).await);
    let one = ["Objects.test_bytes_come_back_with_their_etag_and_length"];
    let (is_well, said) = served.judged(&python, &one, Some(&Authority::new().pem())).await;
    assert!(!is_well && said.contains("CERTIFICATE_VERIFY_FAILED"), "{said}");
    served.stop().await;
}
