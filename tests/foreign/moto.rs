//! An independent S3 server: moto, from PyPI.
//!
//! Needs a Python with `moto[server]`: the one `ISTHMUS_PYTHON` names, else that of `target/clients`, which `.ci/run`
//! makes. Without one the test says SKIPPED and passes. Of what moto does not do as S3 does nothing is asked here.
use crate::endpoint::{Endpoint, delete, purge, put, put_parts, read, tag};
use crate::site::{PATIENCE, Rule, Site};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Starts it on a free port and ends with its server.
const SERVER: &str = "
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)
server.start()
print('PORT', server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

fn python() -> Option<PathBuf> {
    let made_by_ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/bin/python");
    let python = std::env::var_os("ISTHMUS_PYTHON").map_or(made_by_ci, PathBuf::from);
    let imports = std::process::Command::new(&python).args(["-c", "import moto.server"]).output();
    imports.is_ok_and(|o| o.status.success()).then_some(python)
}

async fn server(python: &Path) -> (Child, Endpoint) {
    let mut command = Command::new(python);
    command.args(["-c", SERVER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("start the server");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let port = async {
        while let Some(line) = lines.next_line().await.expect("its words") {
            if let Some(port) = line.strip_prefix("PORT ") {
                return port.parse::<u16>().expect("a port");
            }
        }
        panic!("the server ended before it was there");
    };
    let port = tokio::time::timeout(PATIENCE, port).await.expect("it says its port in time");
    let (access_key, secret_key) = ("testing".into(), "testing".into());
    (child, Endpoint { url: format!("http://127.0.0.1:{port}"), access_key, secret_key, ca: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_server_holds_what_was_written_here() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: an independent S3 server: no Python with moto[server]; set ISTHMUS_PYTHON or run .ci/run");
        return;
    };
    let (_moto, endpoint) = server(&python).await;
    let there = endpoint.client().await;
    there.create_bucket().bucket("archive").send().await.expect("make the bucket");
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    there.put_bucket_versioning().bucket("archive").versioning_configuration(enabled).send().await.expect("enable");

    let dir = tempfile::tempdir().expect("make a directory");
    let mut fra = Site::write(dir.path(), "fra", "{name: orders, versioning: true}");
    fra.peer("moto", &endpoint, "Auto");
    fra.rule(Rule { name: "to-moto", bucket: "orders", peer: "moto", target: "archive", more: "" });
    fra.start().await;
    let here = fra.s3().client().await;
    let first = put(&here, "orders", "a", "first").await;
    let second = put(&here, "orders", "a", "second").await;
    // moto's times are whole seconds, and its lists go by them.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    delete(&here, "orders", "a").await;
    put(&here, "orders", "b/ü+ %", "a name to be encoded").await;
    put_parts(&here, "orders", "large", &[5 << 20, 6 << 20, 100]).await;
    tag(&here, "orders", "a", &second, "done").await;
    fra.drained("to-moto").await;
    let (ours, theirs) = (read(&here, "orders").await, read(&there, "archive").await);
    assert_eq!(ours, theirs);
    assert!(theirs["large"].objects[0].etag.ends_with("-3\""), "{theirs:?}");
    purge(&here, "orders", "a", &first).await;
    fra.drained("to-moto").await;
    assert_eq!(read(&there, "archive").await["a"].objects.len(), 1);

    // A lost journal: everything is found again, nothing sent twice.
    fra.kill().await;
    for file in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        let _ = std::fs::remove_file(fra.dir.join(file));
    }
    fra.start().await;
    fra.drained("to-moto").await;
    assert_eq!(read(&there, "archive").await, read(&here, "orders").await);
}
