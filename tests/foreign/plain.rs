//! A store of ours as a bare S3 endpoint: what is preserved, loops, kills, a lost journal, and what stops a link.
use crate::endpoint::{self, Key, delete, purge, put, put_parts, read, tag};
use crate::site::{Rule, Site};
use aws_sdk_s3::Client;
use std::collections::BTreeMap;
use std::path::Path;

const VERSIONED: &str = "{name: orders, versioning: true}";
const TO_AMS: Rule<'static> = Rule { name: "to-ams", bucket: "orders", peer: "ams", target: "orders", more: "" };

/// `fra` sends `orders` to the S3 endpoint of `ams`.
struct Pair {
    fra: Site,
    ams: Site,
    here: Client,
    there: Client,
    dir: tempfile::TempDir,
}

impl Pair {
    async fn start(dialect: &str) -> Pair {
        Pair::with(dialect, VERSIONED).await
    }

    async fn with(dialect: &str, buckets: &str) -> Pair {
        let dir = tempfile::Builder::new().prefix("isthmus-foreign-").tempdir().expect("make a directory");
        let (mut fra, mut ams) = sites(dir.path(), buckets);
        fra.peer("ams", &ams.s3(), dialect);
        fra.rule(TO_AMS);
        ams.start().await;
        fra.start().await;
        let (here, there) = (fra.s3().client().await, ams.s3().client().await);
        Pair { fra, ams, here, there, dir }
    }

    async fn alike(&self) -> BTreeMap<String, Key> {
        self.fra.drained("to-ams").await;
        let (here, there) = (read(&self.here, "orders").await, read(&self.there, "orders").await);
        assert_eq!(here, there, "{}", self.fra.log());
        here
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("The sites' folders stay in {}", self.dir.path().display());
        }
    }
}

fn sites(root: &Path, buckets: &str) -> (Site, Site) {
    (Site::write(root, "fra", buckets), Site::write(root, "ams", buckets).over_tls())
}

/// Versions of every kind, changed and ended in every way.
async fn write_everything(s3: &Client) {
    let first = put(s3, "orders", "a", "first").await;
    let second = put(s3, "orders", "a", "second").await;
    put(s3, "orders", "a", "third").await;
    put(s3, "orders", "a/b", "begins with another key").await;
    put(s3, "orders", "ü & ?=%/ +x", "a name to be encoded").await;
    put(s3, "orders", "empty", "").await;
    tag(s3, "orders", "a", &first, "tagged before it was sent, or after").await;
    let marker = delete(s3, "orders", "a").await;
    put(s3, "orders", "a", "fourth, after a delete").await;
    delete(s3, "orders", "gone").await;
    delete(s3, "orders", "a/b").await;
    let large = put_parts(s3, "orders", "large", &[5 << 20, 6 << 20, 100]).await;
    put_parts(s3, "orders", "single", &[1000]).await;
    tag(s3, "orders", "large", &large, "x=y&z").await;
    purge(s3, "orders", "a", &second).await;
    purge(s3, "orders", "a", &marker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_plain_s3_can_hold_reaches_it_in_order() {
    let pair = Pair::start("AWS").await;
    write_everything(&pair.here).await;
    let all = pair.alike().await;
    assert_eq!((all["a"].objects.len(), all["a"].markers), (3, 0), "{all:?}");
    assert!(all["gone"].is_deleted && all["large"].objects[0].etag.ends_with("-3\""), "{all:?}");
    // Later changes of what is there.
    let newest = all["a"].objects[0].source_id.clone();
    tag(&pair.here, "orders", "a", &newest, "new").await;
    let untag = pair.here.delete_object_tagging().bucket("orders").key("large");
    untag.send().await.expect("remove the tags");
    let all = pair.alike().await;
    assert_eq!((all["a"].objects[0].tags.len(), all["large"].objects[0].tags.len()), (1, 0));
    let link = pair.fra.shows("to-ams", "the dialect", |l| l.dialect.is_some()).await;
    assert_eq!(link.dialect.as_deref(), Some("AWS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_journal_sends_nothing_twice_and_finds_every_version_again() {
    let mut pair = Pair::start("Auto").await;
    write_everything(&pair.here).await;
    let before = pair.alike().await;
    let ids = all_ids(&pair.there).await;
    pair.fra.kill().await;
    for file in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        let _ = std::fs::remove_file(pair.fra.dir.join(file));
    }
    pair.fra.start().await;
    assert_eq!(pair.alike().await, before);
    assert_eq!(all_ids(&pair.there).await, ids, "nothing was sent again");
    // The map is whole again: what is purged here ends there.
    let oldest = before["a"].objects[2].source_id.clone();
    purge(&pair.here, "orders", "a", &oldest).await;
    assert_eq!(pair.alike().await["a"].objects.len(), 2);
}

/// Ids of everything in a bucket.
async fn all_ids(s3: &Client) -> Vec<String> {
    let page = s3.list_object_versions().bucket("orders").send().await.expect("list");
    let versions = page.versions().iter().filter_map(|v| v.version_id());
    versions.chain(page.delete_markers().iter().filter_map(|m| m.version_id())).map(str::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_there_is_found_and_sent_again_in_its_place() {
    let pair = Pair::start("AWS").await;
    write_everything(&pair.here).await;
    let before = pair.alike().await;
    // Somebody ends the second oldest version of a key, and an object nobody wrote twice.
    let page = pair.there.list_object_versions().bucket("orders").send().await.expect("list");
    let of = |key: &str| {
        page.versions().iter().filter(|v| v.key() == Some(key)).filter_map(|v| v.version_id()).collect::<Vec<_>>()
    };
    purge(&pair.there, "orders", "a", of("a")[1]).await;
    purge(&pair.there, "orders", "large", of("large")[0]).await;
    assert_ne!(read(&pair.there, "orders").await, before);
    let verify = |repair: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.args(["verify", "to-ams", "--socket"]).arg(pair.fra.socket()).args(repair);
        async move { command.output().await.expect("it runs") }
    };
    let found = verify(&[]).await;
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
    let repaired = verify(&["--repair"]).await;
    assert_eq!(repaired.status.code(), Some(0), "{}", String::from_utf8_lossy(&repaired.stdout));
    assert_eq!(pair.alike().await, before);
    assert_eq!(verify(&[]).await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_sends_the_rest_and_nothing_twice() {
    let mut pair = Pair::start("AWS").await;
    for round in 0..4 {
        for n in 0..15 {
            let key = format!("key-{}", n % 5);
            put(&pair.here, "orders", &key, &format!("{round} {n}")).await;
            if n % 4 == 3 {
                delete(&pair.here, "orders", &key).await;
            }
        }
        put_parts(&pair.here, "orders", &format!("large-{round}"), &[5 << 20, 5 << 20, 7]).await;
        pair.fra.kill().await;
        pair.fra.start().await;
    }
    let all = pair.alike().await;
    assert_eq!(all.len(), 9);
    let uploads = pair.there.list_multipart_uploads().bucket("orders").send().await.expect("list uploads");
    assert!(uploads.uploads().len() <= 4, "at most one a kill, begun and not yet known: {:?}", uploads.uploads().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_and_legal_hold_stand_there_too() {
    let pair = Pair::with("AWS", "{name: orders, versioning: true, object_lock: true}").await;
    let until = aws_sdk_s3::primitives::DateTime::from_secs(4_000_000_000);
    let kept = pair.here.put_object().bucket("orders").key("kept").body(b"bytes".to_vec().into());
    let kept = kept.object_lock_mode(aws_sdk_s3::types::ObjectLockMode::Governance);
    kept.object_lock_retain_until_date(until).send().await.expect("put under retention");
    let held = put(&pair.here, "orders", "held", "bytes").await;
    pair.alike().await;
    let hold = aws_sdk_s3::types::ObjectLockLegalHold::builder();
    let hold = hold.status(aws_sdk_s3::types::ObjectLockLegalHoldStatus::On).build();
    let hold = pair.here.put_object_legal_hold().bucket("orders").key("held").version_id(held).legal_hold(hold);
    hold.send().await.expect("hold it");
    pair.alike().await;
    let there = pair.there.get_object_retention().bucket("orders").key("kept").send().await.expect("its retention");
    assert_eq!(there.retention().and_then(|r| r.retain_until_date()), Some(&until));
    let there = pair.there.get_object_legal_hold().bucket("orders").key("held").send().await.expect("its hold");
    let status = there.legal_hold().and_then(|h| h.status());
    assert_eq!(status, Some(&aws_sdk_s3::types::ObjectLockLegalHoldStatus::On));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sites_that_see_each_other_as_s3_do_not_send_copies_back() {
    let mut pair = Pair::start("AWS").await;
    pair.ams.peer("fra", &pair.fra.s3(), "AWS");
    pair.ams.rule(Rule { name: "to-fra", bucket: "orders", peer: "fra", target: "orders", more: "" });
    pair.ams.shows("to-fra", "up", |l| l.state == "live").await;
    for n in 0..5 {
        put(&pair.here, "orders", &format!("from-fra-{n}"), "x").await;
        put(&pair.there, "orders", &format!("from-ams-{n}"), "y").await;
    }
    delete(&pair.here, "orders", "from-fra-0").await;
    delete(&pair.there, "orders", "from-ams-0").await;
    // A copy of a copy would go round for ever; two rounds are enough to see one.
    for round in 0..2 {
        pair.fra.drained("to-ams").await;
        pair.ams.drained("to-fra").await;
        put(&pair.here, "orders", "round", &round.to_string()).await;
    }
    pair.fra.drained("to-ams").await;
    pair.ams.drained("to-fra").await;
    let (here, there) = (read(&pair.here, "orders").await, read(&pair.there, "orders").await);
    assert_eq!(here, there);
    let counts: Vec<(usize, usize)> = here.values().map(|key| (key.objects.len(), key.markers)).collect();
    assert_eq!(counts, [(1, 1), (1, 0), (1, 0), (1, 0), (1, 0), (1, 1), (1, 0), (1, 0), (1, 0), (1, 0), (2, 0)]);
    pair.fra.kill().await;
    pair.fra.start().await;
    assert_eq!(read(&pair.fra.s3().client().await, "orders").await, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_target_stops_its_own_link_and_is_said() {
    let dir = tempfile::tempdir().expect("make a directory");
    let (mut fra, _) = sites(dir.path(), VERSIONED);
    let all = "{name: orders, versioning: true}, {name: plain, versioning: false}, {name: locked, versioning: true, object_lock: true}";
    let mut ams = Site::write(dir.path(), "ams", all).over_tls();
    let good = ams.s3();
    let stranger = endpoint::Endpoint { access_key: "nobody".into(), ..good.clone() };
    let nobody = endpoint::Endpoint { url: "https://127.0.0.1:9".into(), ..good.clone() };
    let forged = endpoint::Endpoint { ca: Some(dir.path().join("certs/fra/s3/ca.crt")), ..good.clone() };
    fra.peer("ams", &good, "Auto");
    fra.peer("stranger", &stranger, "Auto");
    fra.peer("nobody", &nobody, "Auto");
    fra.peer("forged", &forged, "Auto");
    fra.peer("minio", &good, "MinIO");
    fra.rule(TO_AMS);
    for (name, peer, target) in [
        ("wrong-keys", "stranger", "orders"),
        ("missing", "ams", "nowhere"),
        ("unversioned", "ams", "plain"),
        ("unlocked", "ams", "locked"),
        ("changes-ids", "minio", "orders"),
        ("unreachable", "nobody", "orders"),
        ("unbelieved", "forged", "orders"),
    ] {
        let prefix = format!("  filter: {{prefix: {name}/}}\n  priority: 1\n");
        fra.rule(Rule { name, bucket: "orders", peer, target, more: &prefix });
    }
    ams.start().await;
    fra.start().await;
    let here = fra.s3().client().await;
    put(&here, "orders", "good", "goes on").await;
    let reasons = [
        ("wrong-keys", "CredentialsInvalid"),
        ("missing", "TargetBucketNotFound"),
        ("unversioned", "TargetNotVersioned"),
        ("unlocked", "ObjectLockMismatch"),
        ("changes-ids", "TargetChangesVersionIds"),
        ("unreachable", "the S3 endpoint cannot be reached"),
        ("unbelieved", "the S3 endpoint cannot be reached"),
    ];
    for (rule, _) in reasons {
        put(&here, "orders", &format!("{rule}/key"), "waits").await;
    }
    for (rule, reason) in reasons {
        let link = fra.stopped_by(rule, reason).await;
        let state = if ["unreachable", "unbelieved"].contains(&rule) { "peer_down" } else { "blocked" };
        assert_eq!((link.state.as_str(), link.parked_versions), (state, 0), "{rule}");
        assert_eq!(link.conditions.iter().any(|c| c.reason == reason && c.holds), state == "blocked", "{link:?}");
        let explained: serde_json::Value =
            isthmus::cli::socket::get(&fra.socket(), &format!("/explain?bucket=orders&key={rule}/key"))
                .await
                .expect("explain");
        assert!(explained.to_string().contains(reason), "{rule}: {explained}");
    }
    fra.drained("to-ams").await;
    // Mended, it goes on by itself.
    fra.peer("stranger", &good, "Auto");
    fra.drained("wrong-keys").await;
    ams.s3().client().await.create_bucket().bucket("nowhere").send().await.expect("make the bucket");
    fra.stopped_by("missing", "TargetNotVersioned").await;
    let enabled = aws_sdk_s3::types::VersioningConfiguration::builder()
        .status(aws_sdk_s3::types::BucketVersioningStatus::Enabled)
        .build();
    let there = ams.s3().client().await;
    there.put_bucket_versioning().bucket("nowhere").versioning_configuration(enabled).send().await.expect("enable");
    fra.drained("missing").await;
    assert_eq!(read(&there, "nowhere").await.len(), 1);
}
