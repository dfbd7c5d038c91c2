//! A store on temporary drives behind a real socket, and an S3 client small enough to misbehave at will:
//! it signs by hand (SigV4: header, query, aws-chunked), and can be made to lie about every byte.
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use storage_engine::clock::SystemClock;
use storage_engine::config::{Limits, Settings, User};
use storage_engine::metrics::Metrics;
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const ACCESS_KEY: &str = "writer";
pub const SECRET_KEY: &str = "a secret of the tests";
/// Somebody who may not bypass governance retention; the secret is the same.
pub const PLAIN_KEY: &str = "plain";
pub const REGION: &str = "us-east-1";

/// A running store; dropped, its drives are gone.
pub struct Store {
    pub dir: TempDir,
    pub addr: SocketAddr,
    pub metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

pub fn settings(dir: &TempDir) -> Settings {
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{SECRET_KEY}\n")).unwrap();
    Settings {
        drives: (0..4).map(|i| dir.path().join(format!("drive{i}"))).collect(),
        parity: None,
        s3_listen: ([127, 0, 0, 1], 0).into(),
        s3_tls_dir: None,
        region: REGION.into(),
        users: [(ACCESS_KEY, true), (PLAIN_KEY, false)]
            .map(|(access_key, bypass_governance)| User {
                access_key: access_key.into(),
                secret_key_file: secret.clone(),
                bypass_governance,
            })
            .to_vec(),
        buckets: Vec::new(),
        limits: Limits::default(),
    }
}

impl Store {
    /// A store with one bucket `box`.
    pub async fn with_bucket() -> Store {
        Store::with_limits(Limits::default()).await
    }
    /// The same, with limits of its own.
    pub async fn with_limits(limits: Limits) -> Store {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..4 {
            std::fs::create_dir(dir.path().join(format!("drive{i}"))).unwrap();
        }
        let store = Store::open(dir, limits).await;
        store.call(Call::new("PUT", "/box")).await.expect(200);
        store
    }
    async fn open(dir: TempDir, limits: Limits) -> Store {
        let settings = Settings { limits, ..settings(&dir) };
        let node = StoreNode::open(&settings, Arc::new(SystemClock), Origin::new("here")).await.unwrap();
        Store::serve(dir, node).await
    }
    /// The node on a socket of its own.
    pub async fn serve(dir: TempDir, mut node: StoreNode) -> Store {
        node.bind().await.unwrap();
        let (addr, metrics) = (node.s3_addr().unwrap(), node.metrics());
        let stop = CancellationToken::new();
        let task = tokio::spawn(node.run(stop.clone()));
        Store { dir, addr, metrics, stop, task }
    }
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.dir
    }
    pub async fn restart(self) -> Store {
        Store::open(self.stop().await, Limits::default()).await
    }
    pub async fn call(&self, call: Call) -> Answer {
        self.send(&call.sign(self.addr)).await
    }
    /// Sends the bytes of a whole request as they are.
    pub async fn send(&self, request: &[u8]) -> Answer {
        self.exchange(request, false).await
    }
    /// Sends the beginning of a request and hangs up; status 0: there was no answer.
    pub async fn send_cut(&self, request: &[u8]) -> Answer {
        self.exchange(request, true).await
    }
    async fn exchange(&self, request: &[u8], hang_up: bool) -> Answer {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // The server may answer and close before it read everything.
        let _ = stream.write_all(request).await;
        if hang_up {
            let _ = stream.shutdown().await;
        }
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        Answer::parse(&bytes, request.starts_with(b"HEAD "))
    }
    pub async fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.call(Call::new("PUT", path).body(body)).await.expect(200)
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Call::new("GET", path)).await
    }
    pub async fn versioning(&self, status: &str) {
        let xml = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
        self.call(Call::new("PUT", "/box").query("versioning", "").body(xml.as_bytes())).await.expect(200);
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8], is_head: bool) -> Answer {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Answer { status: 0, headers: BTreeMap::new(), body: bytes.to_vec() };
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> =
            lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
        let body = bytes[end + 4..].to_vec();
        if let Some(length) = headers.get("content-length").filter(|_| !is_head && status != 304) {
            assert_eq!(length.parse::<usize>().unwrap(), body.len(), "the body is as long as its head says");
        }
        Answer { status, headers, body }
    }
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
    /// Asserts an S3 error document with this code.
    #[track_caller]
    pub fn error(self, status: u16, code: &str) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.one("Code"), code, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/xml");
        answer
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers))
    }
    /// The text of every element of this name.
    pub fn all(&self, element: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let unescape =
            |t: &str| t.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        self.text().split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(t, _)| unescape(t)).collect()
    }
    #[track_caller]
    pub fn one(&self, element: &str) -> String {
        let all = self.all(element);
        assert_eq!(all.len(), 1, "one {element} in {}", self.text());
        all.into_iter().next().unwrap()
    }
}

/// How the body is signed and sent.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Its SHA-256 is part of the signature.
    Signed,
    /// aws-chunked in chunks of this size, each signed, with these trailers.
    Chunks { bytes: usize, trailers: Vec<(String, String)> },
    /// aws-chunked without signatures, with these trailers.
    UnsignedChunks { bytes: usize, trailers: Vec<(String, String)> },
}

/// A request that is not signed yet.
#[derive(Clone, Debug)]
pub struct Call {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    payload: Payload,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    pub at: u64,
    /// Stated length of a chunked body, where it is not the body's.
    pub decoded_length: Option<String>,
}

impl Call {
    /// `path` is not encoded: the key is written as it is.
    pub fn new(method: &str, path: &str) -> Call {
        Call {
            method: method.into(),
            path: encode(path, true),
            query: Vec::new(),
            headers: BTreeMap::new(),
            body: Vec::new(),
            payload: Payload::Signed,
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: REGION.into(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
            decoded_length: None,
        }
    }
    pub fn query(mut self, name: &str, value: &str) -> Call {
        self.query.push((name.into(), value.into()));
        self
    }
    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.headers.insert(name.into(), value.into());
        self
    }
    pub fn body(mut self, body: &[u8]) -> Call {
        self.body = body.to_vec();
        self
    }
    pub fn payload(mut self, payload: Payload) -> Call {
        self.payload = payload;
        self
    }
    pub fn with_md5(self) -> Call {
        let sum = md5(&self.body);
        self.header("content-md5", &sum)
    }

    fn key(&self) -> Vec<u8> {
        let date = amz_date(self.at);
        let parts = [&date[..8], &self.region, "s3", "aws4_request"];
        parts.iter().fold(format!("AWS4{}", self.secret_key).into_bytes(), |key, part| hmac(&key, part.as_bytes()))
    }
    fn scope(&self) -> String {
        format!("{}/{}/s3/aws4_request", &amz_date(self.at)[..8], self.region)
    }
    fn canonical_query(&self) -> String {
        let mut pairs: Vec<_> =
            self.query.iter().map(|(n, v)| format!("{}={}", encode(n, false), encode(v, false))).collect();
        pairs.sort();
        pairs.join("&")
    }
    fn signature(&self, payload: &str) -> (String, String) {
        let signed = self.headers.keys().cloned().collect::<Vec<_>>().join(";");
        let headers: String = self.headers.iter().map(|(n, v)| format!("{n}:{}\n", v.trim())).collect();
        let canonical =
            format!("{}\n{}\n{}\n{headers}\n{signed}\n{payload}", self.method, self.path, self.canonical_query());
        let text =
            format!("AWS4-HMAC-SHA256\n{}\n{}\n{}", amz_date(self.at), self.scope(), sha256(canonical.as_bytes()));
        (hex(&hmac(&self.key(), text.as_bytes())), signed)
    }

    /// The bytes of the request, signed in its head.
    pub fn sign(mut self, addr: SocketAddr) -> Vec<u8> {
        self.headers.insert("host".into(), addr.to_string());
        self.headers.insert("x-amz-date".into(), amz_date(self.at));
        let (payload, trailers) = match &self.payload {
            Payload::Signed => (sha256(&self.body), None),
            Payload::Chunks { trailers, .. } if trailers.is_empty() => {
                ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD".into(), Some(vec![]))
            }
            Payload::Chunks { trailers, .. } => {
                ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".into(), Some(trailers.clone()))
            }
            Payload::UnsignedChunks { trailers, .. } => {
                ("STREAMING-UNSIGNED-PAYLOAD-TRAILER".into(), Some(trailers.clone()))
            }
        };
        self.headers.entry("x-amz-content-sha256".into()).or_insert(payload);
        if let Some(trailers) = &trailers {
            let length = self.decoded_length.clone().unwrap_or(self.body.len().to_string());
            self.headers.insert("x-amz-decoded-content-length".into(), length);
            self.headers.insert("content-encoding".into(), "aws-chunked".into());
            if !trailers.is_empty() {
                let names: Vec<_> = trailers.iter().map(|(n, _)| n.clone()).collect();
                self.headers.entry("x-amz-trailer".into()).or_insert(names.join(","));
            }
        }
        let payload = self.headers["x-amz-content-sha256"].clone();
        let (signature, signed) = self.signature(&payload);
        let body = match &self.payload {
            Payload::Signed => self.body.clone(),
            Payload::Chunks { bytes, trailers } => self.chunks(*bytes, trailers, Some(signature.clone())),
            Payload::UnsignedChunks { bytes, trailers } => self.chunks(*bytes, trailers, None),
        };
        let credential = format!("{}/{}", self.access_key, self.scope());
        let value = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}");
        self.headers.insert("authorization".into(), value);
        self.bytes(&body)
    }

    /// The bytes of the request, signed in its query.
    pub fn presign(mut self, addr: SocketAddr, expires: u64) -> Vec<u8> {
        self.headers.insert("host".into(), addr.to_string());
        let signed = self.headers.keys().cloned().collect::<Vec<_>>().join(";");
        let credential = format!("{}/{}", self.access_key, self.scope());
        self = self
            .query("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
            .query("X-Amz-Credential", &credential)
            .query("X-Amz-Expires", &expires.to_string())
            .query("X-Amz-SignedHeaders", &signed);
        let date = amz_date(self.at);
        self = self.query("X-Amz-Date", &date);
        let (signature, _) = self.signature("UNSIGNED-PAYLOAD");
        self = self.query("X-Amz-Signature", &signature);
        let body = self.body.clone();
        self.bytes(&body)
    }

    /// The bytes of the request without any signature.
    pub fn unsigned(mut self, addr: SocketAddr) -> Vec<u8> {
        self.headers.insert("host".into(), addr.to_string());
        let body = self.body.clone();
        self.bytes(&body)
    }

    fn bytes(mut self, body: &[u8]) -> Vec<u8> {
        self.headers.entry("connection".into()).or_insert("close".into());
        self.headers.entry("content-length".into()).or_insert(body.len().to_string());
        let headers: String = self.headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let query = self.canonical_query();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut all = format!("{} {}{mark}{query} HTTP/1.1\r\n{headers}\r\n", self.method, self.path).into_bytes();
        all.extend_from_slice(body);
        all
    }

    fn chunks(&self, bytes: usize, trailers: &[(String, String)], seed: Option<String>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut previous = seed;
        for chunk in self.body.chunks(bytes).chain([&[][..]]) {
            let extension = previous.take().map(|p| {
                let text = format!(
                    "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{p}\n{}\n{}",
                    amz_date(self.at),
                    self.scope(),
                    sha256(b""),
                    sha256(chunk)
                );
                let signature = hex(&hmac(&self.key(), text.as_bytes()));
                previous = Some(signature.clone());
                format!(";chunk-signature={signature}")
            });
            all.extend(format!("{:x}{}\r\n", chunk.len(), extension.unwrap_or_default()).bytes());
            all.extend(chunk);
            if !chunk.is_empty() {
                all.extend(b"\r\n");
            }
        }
        let lines: String = trailers.iter().map(|(n, v)| format!("{n}:{v}\r\n")).collect();
        all.extend(lines.bytes());
        if let Some(p) = previous.filter(|_| !trailers.is_empty()) {
            let canonical: String = trailers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
            let text = format!(
                "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{p}\n{}",
                amz_date(self.at),
                self.scope(),
                sha256(canonical.as_bytes())
            );
            all.extend(format!("x-amz-trailer-signature:{}\r\n", hex(&hmac(&self.key(), text.as_bytes()))).bytes());
        }
        all.extend(b"\r\n");
        all
    }
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
pub fn md5(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(md5::Md5::digest(bytes))
}
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex(&md5::Md5::digest(bytes)))
}
pub fn crc32(bytes: &[u8]) -> String {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes);
    BASE64_STANDARD.encode(u32::try_from(sum).unwrap().to_be_bytes())
}
fn encode(text: &str, path: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || path && b == b'/';
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// `YYYYMMDDTHHMMSSZ` of Unix seconds. Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn amz_date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
