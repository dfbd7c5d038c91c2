//! A stand-in for targets that take the id of a version from who replicates: it writes down what the wire said. It keeps
//! ids where it is asked in its own dialect, as MinIO, RustFS and Ceph's gateway do.
use crate::endpoint::{Endpoint, delete, purge, put, put_parts, tag};
use crate::site::{Rule, Site};
use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// Which id of the query or headers it keeps.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// `versionId` of a request that calls itself a replication.
    MinIO,
    RustFs,
    /// `rgwx-version-id`.
    Ceph,
}

/// One request as it came.
#[derive(Clone, Debug)]
struct Said {
    method: Method,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Held {
    key: String,
    id: String,
    headers: Option<BTreeMap<String, String>>,
}

#[derive(Default)]
struct Bucket {
    said: Vec<Said>,
    /// Oldest first.
    held: Vec<Held>,
    uploads: BTreeMap<String, (String, String, BTreeMap<String, String>)>,
    /// ETags of parts, by upload and number.
    parts: BTreeMap<(String, String), String>,
    /// The second part of an upload was refused once.
    has_failed: bool,
    made: u64,
}

/// What a target does that makes it none.
#[derive(Clone, Copy, PartialEq)]
enum Ill {
    DropsMetadata,
    /// It says that the credentials are over.
    Expired,
}

struct StandIn {
    kind: Kind,
    bucket: Mutex<Bucket>,
    ill: Mutex<Option<Ill>>,
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).expect("UTF-8")
}

impl StandIn {
    async fn start(kind: Kind) -> (Arc<StandIn>, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let stand_in = Arc::new(StandIn { kind, bucket: Mutex::default(), ill: Mutex::default() });
        let serving = stand_in.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                let service = service_fn(move |request| {
                    let serving = serving.clone();
                    async move { Ok::<_, std::convert::Infallible>(serving.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (stand_in, Endpoint { url, access_key: "k".into(), secret_key: "s".into(), ca: None })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let query = request.uri().query().unwrap_or_default().split('&').filter(|p| !p.is_empty()).map(pair).collect();
        let path = request.uri().path().trim_start_matches('/');
        let key = decoded(path.split_once('/').map_or("", |(_, key)| key));
        let text = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            (name.as_str().to_string(), value.to_str().unwrap_or_default().to_string())
        };
        let headers = request.headers().iter().map(text).collect();
        let said = Said { method: request.method().clone(), key, query, headers };
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        self.bucket.lock().unwrap().said.push(said.clone());
        self.carry_out(&said, body.len())
    }

    /// The id a request asks for, where this kind of server would keep it.
    fn wanted(&self, said: &Said) -> Option<String> {
        let is_on = |name: &str| said.headers.get(name).is_some_and(|v| v == "true");
        match self.kind {
            Kind::MinIO if is_on("x-minio-source-replication-request") => said.query.get("versionId").cloned(),
            Kind::RustFs if is_on("x-rustfs-source-replication-request") => said.query.get("versionId").cloned(),
            Kind::Ceph => said.query.get("rgwx-version-id").cloned(),
            _ => None,
        }
    }

    fn carry_out(&self, said: &Said, length: usize) -> Response<Full<Bytes>> {
        let mut bucket = self.bucket.lock().unwrap();
        bucket.made += 1;
        let id = self.wanted(said).unwrap_or(format!("made-here-{}", bucket.made));
        let has = |name: &str| said.query.contains_key(name);
        let server = match self.kind {
            Kind::MinIO => "MinIO",
            Kind::RustFs => "RustFS",
            Kind::Ceph => "Ceph Object Gateway",
        };
        let answer = || Response::builder().header("server", server);
        let xml = |text: String| answer().body(Full::from(text)).unwrap();
        let plain = |status: StatusCode| answer().status(status).body(Full::default()).unwrap();
        let ill = *self.ill.lock().unwrap();
        if ill == Some(Ill::Expired) {
            let why = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
            return answer().status(400).body(Full::from(why)).unwrap();
        }
        match said.method {
            Method::GET if has("versioning") => {
                xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".into())
            }
            Method::GET if has("versions") => xml(list(&bucket, said.query.get("prefix").map_or("", |p| p))),
            Method::GET if has("tagging") => xml("<Tagging><TagSet></TagSet></Tagging>".into()),
            Method::GET if has("uploadId") => {
                let of_it = bucket.parts.iter().filter(|((upload, _), _)| *upload == said.query["uploadId"]);
                let part = |((_, number), etag): (&(String, String), &String)| {
                    format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag></Part>")
                };
                let parts: String = of_it.map(part).collect();
                xml(format!("<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"))
            }
            Method::GET => plain(StatusCode::NOT_FOUND),
            Method::HEAD if said.key.is_empty() => plain(StatusCode::OK),
            Method::HEAD => {
                match bucket.held.iter().find(|h| h.key == said.key && Some(&h.id) == said.query.get("versionId")) {
                    Some(Held { headers: Some(headers), .. }) => {
                        let own = headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-") && ill.is_none());
                        own.fold(answer(), |a, (name, value)| a.header(name, value)).body(Full::default()).unwrap()
                    }
                    _ => plain(StatusCode::NOT_FOUND),
                }
            }
            Method::POST if has("uploads") => {
                let upload = format!("upload-{}", bucket.made);
                bucket.uploads.insert(upload.clone(), (said.key.clone(), id, said.headers.clone()));
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            Method::POST => {
                let (key, id, headers) = bucket.uploads.remove(&said.query["uploadId"]).expect("it was begun");
                bucket.held.push(Held { key, id: id.clone(), headers: Some(headers) });
                let done = "<CompleteMultipartUploadResult><ETag>\"x-2\"</ETag></CompleteMultipartUploadResult>";
                answer().header("x-amz-version-id", id).body(Full::from(done)).unwrap()
            }
            Method::PUT if has("tagging") => plain(StatusCode::OK),
            Method::PUT if has("partNumber") => {
                assert!(length > 0, "a part has bytes");
                if said.query["partNumber"] == "2" && !std::mem::replace(&mut bucket.has_failed, true) {
                    return plain(StatusCode::SERVICE_UNAVAILABLE);
                }
                let md5 = base64::engine::general_purpose::STANDARD.decode(&said.headers["content-md5"]).unwrap();
                let etag: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
                bucket.parts.insert((said.query["uploadId"].clone(), said.query["partNumber"].clone()), etag.clone());
                answer().header("etag", format!("\"{etag}\"")).body(Full::default()).unwrap()
            }
            Method::PUT => {
                bucket.held.push(Held { key: said.key.clone(), id: id.clone(), headers: Some(said.headers.clone()) });
                answer().header("x-amz-version-id", id).body(Full::default()).unwrap()
            }
            Method::DELETE => {
                let is_marker = self.wanted(said).is_some() && (self.kind == Kind::Ceph || is_marker_request(said))
                    || !has("versionId");
                if is_marker {
                    bucket.held.push(Held { key: said.key.clone(), id: id.clone(), headers: None });
                    return answer().status(204).header("x-amz-version-id", id).body(Full::default()).unwrap();
                }
                let gone = said.query["versionId"].clone();
                bucket.held.retain(|h| h.id != gone);
                plain(StatusCode::NO_CONTENT)
            }
            _ => plain(StatusCode::NOT_IMPLEMENTED),
        }
    }

    /// What was said of a key, canaries left out.
    fn said(&self, key: &str, method: Method) -> Vec<Said> {
        let bucket = self.bucket.lock().unwrap();
        bucket.said.iter().filter(|s| s.key == key && s.method == method).cloned().collect()
    }
    fn ids(&self) -> Vec<String> {
        self.bucket.lock().unwrap().held.iter().map(|h| h.id.clone()).collect()
    }
}

fn is_marker_request(said: &Said) -> bool {
    said.headers.get("x-minio-source-deletemarker").is_some_and(|v| v == "true")
}

/// Newest first within a key.
fn list(bucket: &Bucket, prefix: &str) -> String {
    let mut held: Vec<(usize, &Held)> =
        bucket.held.iter().enumerate().filter(|(_, h)| h.key.starts_with(prefix)).collect();
    held.sort_by_key(|(at, h)| (h.key.clone(), std::cmp::Reverse(*at)));
    let entry = |(at, h): &(usize, &Held)| {
        let kind = if h.headers.is_some() { "Version" } else { "DeleteMarker" };
        let time = format!("2026-01-01T00:{:02}:{:02}Z", at / 60, at % 60);
        let key = h.key.replace('&', "&amp;");
        format!(
            "<{kind}><Key>{key}</Key><VersionId>{}</VersionId><IsLatest>false</IsLatest><LastModified>{time}</LastModified><Size>1</Size></{kind}>",
            h.id
        )
    };
    let entries: String = held.iter().map(entry).collect();
    format!("<ListVersionsResult><IsTruncated>false</IsTruncated>{entries}</ListVersionsResult>")
}

/// A version id as these servers spell it.
fn uuid(id: &str) -> String {
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

/// `fra` sends a version of each kind to a stand-in it finds the dialect of by itself.
async fn sent_to(kind: Kind, dialect: &str) -> (Arc<StandIn>, Vec<String>) {
    let (stand_in, endpoint) = StandIn::start(kind).await;
    let dir = tempfile::tempdir().expect("make a directory");
    let mut fra = Site::write(dir.path(), "fra", "{name: orders, versioning: true}");
    fra.peer("far", &endpoint, "Auto");
    fra.rule(Rule { name: "to-far", bucket: "orders", peer: "far", target: "archive", more: "" });
    fra.start().await;
    let here = fra.s3().client().await;
    let object = put(&here, "orders", "object", "bytes").await;
    let parts = put_parts(&here, "orders", "parts", &[5 << 20, 10]).await;
    let marker = delete(&here, "orders", "object").await;
    let ended = put(&here, "orders", "ended", "bytes").await;
    fra.drained("to-far").await;
    let link = fra.shows("to-far", "the dialect", |l| l.dialect.is_some()).await;
    assert_eq!(link.dialect.as_deref(), Some(dialect));
    tag(&here, "orders", "object", &object, "later").await;
    purge(&here, "orders", "ended", &ended).await;
    fra.drained("to-far").await;
    assert!(!stand_in.said("object", Method::PUT).last().expect("it was tagged").query["versionId"].is_empty());
    let ids = [object, parts, marker];
    let mut held = stand_in.ids();
    held.sort();
    let mut expected: Vec<String> = ids.iter().map(|id| uuid(id)).collect();
    expected.sort();
    assert_eq!(held, expected, "ids are kept, what ended is gone, and no canary stays");
    (stand_in, ids.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_is_spoken_to_as_its_own_replication_does() {
    let (stand_in, ids) = sent_to(Kind::MinIO, "MinIO").await;
    let put = &stand_in.said("object", Method::PUT)[0];
    assert_eq!(put.query["versionId"], uuid(&ids[0]));
    assert_eq!(put.headers["x-minio-source-replication-request"], "true");
    assert_eq!(put.headers["x-amz-replication-status"], "REPLICA");
    assert_eq!(put.headers["x-minio-source-etag"].len(), 32);
    assert!(put.headers["x-minio-source-mtime"].ends_with('Z') && put.headers["x-minio-source-mtime"].len() >= 20);
    assert_eq!(put.headers["x-amz-meta-colour"], "blue");
    assert_eq!(put.headers["cache-control"], "max-age=7");
    let posts = stand_in.said("parts", Method::POST);
    assert!(!posts[0].headers.contains_key("x-minio-source-mtime"), "it would be cleaned up early");
    assert_eq!(posts[0].query["versionId"], uuid(&ids[1]));
    assert!(posts[1].headers.contains_key("x-minio-source-mtime"));
    assert_eq!(posts[1].headers["x-minio-replication-actual-object-size"], ((5 << 20) + 10).to_string());
    let parts = stand_in.said("parts", Method::PUT);
    // The second one failed once: it alone went again, in the same upload.
    assert_eq!(parts.iter().map(|p| p.query["partNumber"].as_str()).collect::<Vec<_>>(), ["1", "2", "2"]);
    assert_eq!(posts.len(), 2, "one begin, one end");
    let marker = &stand_in.said("object", Method::DELETE)[0];
    assert_eq!(marker.query["versionId"], uuid(&ids[2]));
    assert_eq!(marker.headers["x-minio-source-deletemarker"], "true");
    let ended = &stand_in.said("ended", Method::DELETE)[0];
    assert!(!ended.headers.contains_key("x-minio-source-deletemarker"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rustfs_is_told_under_both_names() {
    let (stand_in, _) = sent_to(Kind::RustFs, "RustFS").await;
    let put = &stand_in.said("object", Method::PUT)[0];
    assert_eq!(put.headers["x-minio-source-replication-request"], "true");
    assert_eq!(put.headers["x-rustfs-source-replication-request"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_is_given_the_id_and_nothing_else() {
    let (stand_in, ids) = sent_to(Kind::Ceph, "Ceph").await;
    let put = &stand_in.said("object", Method::PUT)[0];
    assert_eq!(put.query["rgwx-version-id"], uuid(&ids[0]));
    assert!(put.headers.keys().all(|name| !name.starts_with("x-minio")), "{put:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_drops_metadata_or_whose_credentials_end_stops_its_own_link_and_says_so() {
    let dir = tempfile::tempdir().expect("make a directory");
    let mut fra = Site::write(dir.path(), "fra", "{name: orders, versioning: true}");
    let mut all = Vec::new();
    for (name, ill) in [("good", None), ("drops", Some(Ill::DropsMetadata)), ("expired", Some(Ill::Expired))] {
        let (stand_in, endpoint) = StandIn::start(Kind::Ceph).await;
        *stand_in.ill.lock().unwrap() = ill;
        fra.peer(name, &endpoint, "Auto");
        let filter = format!("  filter: {{prefix: {name}/}}\n");
        fra.rule(Rule { name, bucket: "orders", peer: name, target: "archive", more: &filter });
        all.push(stand_in);
    }
    fra.start().await;
    let here = fra.s3().client().await;
    for name in ["good", "drops", "expired"] {
        put(&here, "orders", &format!("{name}/key"), "bytes").await;
    }
    for (rule, reason) in [("drops", "TargetDropsMetadata"), ("expired", "CredentialsExpired")] {
        let link = fra.stopped_by(rule, reason).await;
        assert!(link.state == "blocked" && link.conditions.iter().all(|c| c.reason == reason && c.holds), "{link:?}");
        let asked = format!("/explain?bucket=orders&key={rule}/key");
        let explained: serde_json::Value = isthmus::cli::socket::get(&fra.socket(), &asked).await.expect("explain");
        assert!(explained.to_string().contains(reason), "{rule}: {explained}");
    }
    fra.drained("good").await;
    assert_eq!(all[0].said("good/key", Method::PUT).len(), 1);
    assert!(all[1].said("drops/key", Method::PUT).is_empty() && all[2].said("expired/key", Method::PUT).is_empty());
}
