//! Reads while behind: what a site does not have yet it reads from a peer where its rule says so, and says that it did;
//! never what it knows to be deleted.
use crate::proxy::Fault;
use crate::site::{BUCKET, Fleet, LOOK, Site};
use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);
/// More than one question's answer holds.
const BYTES: usize = 3 << 20;

/// What a site answers a plain GET or HEAD, signed in its URL.
struct Answer {
    status: u16,
    /// Where it was read, where not at the site itself.
    read_from: Option<String>,
    etag: Option<String>,
    body: Vec<u8>,
}

async fn ask(site: &Site, method: &str, key: &str, id: Option<&str>, header_line: &str) -> Answer {
    let (s3, signed_for) = (site.s3(), PresigningConfig::expires_in(Duration::from_secs(60)).expect("a minute"));
    let id = id.map(str::to_owned);
    let expected = "a signed URL";
    let request = match method {
        "GET" => {
            let get = s3.client.get_object().bucket(BUCKET).key(key).set_version_id(id);
            get.presigned(signed_for).await.expect(expected)
        }
        _ => {
            let head = s3.client.head_object().bucket(BUCKET).key(key).set_version_id(id);
            head.presigned(signed_for).await.expect(expected)
        }
    };
    let uri = request.uri().strip_prefix("http://").expect("plain HTTP");
    let (host, path) = uri.split_once('/').expect("a path");
    let own = if header_line.is_empty() { String::new() } else { format!("{header_line}\r\n") };
    let mut stream = TcpStream::connect(host).await.expect("the front door");
    let head = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\n{own}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("send a request");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("an answer");
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let header = |name: &str| {
        let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, read_from: header("x-isthmus-read-from:"), etag: header("etag:"), body: all[end + 4..].to_vec() }
}

/// Rewrites a document of a running site.
fn alter(site: &Site, file: &str, from: &str, to: &str) {
    crate::process::rewrite(&site.dir.join(file), from, to);
}

async fn until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_reads_from_its_peer_what_it_lacks_and_never_what_it_knows_to_be_deleted() {
    let fleet = Fleet::start(&["ams", "fra"], 4).await;
    let (ams, fra) = (&fleet.sites[0], &fleet.sites[1]);
    let (to_fra, to_ams) = (&fleet.proxies[0], &fleet.proxies[1]);
    let purged = ams.s3().put("purged", Bytes::from_static(b"purged")).await.expect("an acked put");
    ams.s3().put("deleted", Bytes::from_static(b"deleted")).await.expect("an acked put");
    fleet.drained(PATIENCE).await;

    to_fra.set(Fault::Cut);
    let body: Bytes = (0..BYTES).map(|at| (at / 255 + at) as u8).collect::<Vec<_>>().into();
    let id = ams.s3().put("new", body.clone()).await.expect("an acked put");
    assert_eq!(ask(fra, "GET", "new", None, "").await.status, 404, "off by default");

    // From now on fra reads from its peers; its deletes stay here.
    let (stays, reads) =
        ("{versionDeletes: Enabled}", "{versionDeletes: Disabled, deleteMarkers: Disabled}\n  readFromPeers: Enabled");
    alter(fra, "rules/rule.yaml", stays, reads);
    until("a read from the peer", async || ask(fra, "HEAD", "new", None, "").await.status == 200).await;
    let here = ask(ams, "HEAD", "new", None, "").await;
    assert_eq!(here.read_from, None, "a site says nothing of what it has itself");
    for version in [None, Some(id.as_str())] {
        let got = ask(fra, "GET", "new", version, "").await;
        assert_eq!((got.status, got.read_from.as_deref()), (200, Some("ams")));
        assert!(got.body == body, "{} bytes", got.body.len());
        assert_eq!(got.etag, here.etag);
        let some = ask(fra, "GET", "new", version, "range: bytes=1048000-1049000").await;
        assert_eq!((some.status, some.read_from.as_deref()), (206, Some("ams")));
        assert!(some.body == body[1_048_000..=1_049_000]);
        let head = ask(fra, "HEAD", "new", version, "range: bytes=1048000-1049000").await;
        assert_eq!((head.status, head.read_from.as_deref(), head.body.len()), (206, Some("ams"), 0));
        let etag = here.etag.as_deref().expect("an object has one");
        let conditions = [("if-none-match", etag, 304), ("if-match", etag, 200), ("if-match", "\"other\"", 412)];
        for (condition, etag, status) in conditions {
            for method in ["GET", "HEAD"] {
                let got = ask(fra, method, "new", version, &format!("{condition}: {etag}")).await;
                assert_eq!(got.status, status, "{method} {condition}: {etag}");
            }
        }
    }
    assert_eq!(ask(fra, "GET", "nowhere", None, "").await.status, 404);

    // ams still has both; fra knows that they are gone.
    fra.s3().delete("deleted").await.expect("an acked delete");
    fra.s3().purge("purged", &purged).await.expect("an acked purge");
    for (key, version) in [("deleted", None), ("purged", None), ("purged", Some(purged.as_str()))] {
        let got = ask(fra, "GET", key, version, "").await;
        assert_eq!((got.status, got.read_from), (404, None), "{key} {version:?}");
    }
    assert_eq!(ask(ams, "GET", "purged", Some(&purged), "").await.status, 200, "the purge stayed at fra");
    assert_eq!(ask(ams, "GET", "deleted", None, "").await.status, 200, "the marker stayed at fra");

    // What ams neither sends to fra nor takes from it, it does not lend.
    ams.s3().put("private", Bytes::from_static(b"private")).await.expect("an acked put");
    assert_eq!(ask(fra, "GET", "private", None, "").await.status, 200);
    alter(ams, "rules/rule.yaml", "  destinations:", "  filter: {prefix: new}\n  destinations:");
    alter(ams, "rules/peer-fra.yaml", "versionDeletes: Enabled", "versionDeletes: Enabled, prefix: new");
    until("a refusal", async || ask(fra, "GET", "private", None, "").await.status == 404).await;
    assert_eq!(ask(fra, "HEAD", "new", None, "").await.status, 200);

    // A peer that is down has nothing to lend.
    to_ams.set(Fault::Cut);
    until("a 404 without the peer", async || ask(fra, "GET", "new", None, "").await.status == 404).await;
    fleet.heal();
    let own = async || {
        let got = ask(fra, "GET", "new", None, "").await;
        got.status == 200 && got.read_from.is_none()
    };
    until("the version itself", own).await;
    fleet.no_alarm();
}
