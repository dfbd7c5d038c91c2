//! The store as independent clients see it: `s3_clients/*.py` over the real socket.
//!
//! Needs a Python with boto3: the one `ISTHMUS_PYTHON` names, else that of `target/clients`, which
//! `.ci/run` makes. Without one the test says SKIPPED and passes.
#![allow(clippy::disallowed_methods)] // the store under test runs in a task of the test
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use storage_engine::clock::SystemClock;
use storage_engine::config::{Limits, Settings, User};
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;
use tempfile::TempDir;
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
        region: "us-east-1".into(),
        users: vec![User { access_key: "writer".into(), secret_key_file: secret, bypass_governance: true }],
        buckets: Vec::new(),
        limits: Limits::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_finds_the_store_it_knows() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: boto3 finds the store it knows: no Python with boto3; set ISTHMUS_PYTHON or run .ci/run");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = StoreNode::open(&settings(&dir), Arc::new(SystemClock), Origin::new("here")).await.expect("opens");
    node.bind().await.expect("a free port");
    let addr = node.s3_addr().expect("it is bound");
    let stop = CancellationToken::new();
    let running = tokio::spawn(node.run(stop.clone()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3_clients/boto3_conformance.py");
    let mut command = Command::new(python);
    command.arg(script).env("ENDPOINT", format!("http://{addr}"));
    command.env("ACCESS_KEY", "writer").env("SECRET_KEY", SECRET_KEY).env("NO_PROXY", "127.0.0.1");
    let done = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    stop.cancel();
    running.await.expect("the store does not panic").expect("it was bound");
    let done = done.expect("the interpreter was there");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    assert!(err.contains("Ran ") && !err.contains("Ran 0 tests"), "no test ran: {out}{err}");
}
