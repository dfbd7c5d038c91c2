//! A lean S3 client: one keep-alive HTTP/1.1 connection, requests signed by hand (SigV4). It knows PUT,
//! GET and HEAD of one bucket, checks every byte it reads and retries nothing.
use crate::sites::{ACCESS_KEY, BUCKET, Site};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use tokio::net::TcpStream;

const REGION: &str = "us-east-1";
/// Bodies up to this size are signed with their SHA-256, as clients do without TLS; larger ones are sent
/// as `UNSIGNED-PAYLOAD`, so that the figure shows the store and not two SHA-256 of the same bytes.
const SIGNED_BYTES_MAX: usize = 1 << 20;

/// One connection to one site.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    signer: Signer,
    host: String,
}

impl Connection {
    pub async fn open(site: &Site) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(site.s3).await.with_context(|| format!("connect to {}", site.s3))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection); // its error is the next request's
        Ok(Connection { sender, signer: Signer::new(&site.secret_key), host: host(site.s3) })
    }

    /// Writes an object; on return it is acked.
    pub async fn put(&mut self, key: &str, body: Bytes) -> anyhow::Result<()> {
        let response = self.send(Method::PUT, key, body).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "PUT {key}: {status} {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// Reads an object and compares it with what was written.
    pub async fn get(&mut self, key: &str, expected: &[u8]) -> anyhow::Result<()> {
        let response = self.send(Method::GET, key, Bytes::new()).await?;
        ensure!(response.status() == StatusCode::OK, "GET {key}: {}", response.status());
        let mut body = response.into_body();
        let mut at = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            ensure!(expected.get(at..at + data.len()) == Some(&data), "GET {key}: other bytes than written at {at}");
            at += data.len();
        }
        ensure!(at == expected.len(), "GET {key}: {at} of {} bytes", expected.len());
        Ok(())
    }

    /// Whether the object is there.
    pub async fn has(&mut self, key: &str) -> anyhow::Result<bool> {
        let response = self.send(Method::HEAD, key, Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => bail!("HEAD {key}: {status}"),
        }
    }

    async fn send(&mut self, method: Method, key: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let path = format!("/{BUCKET}/{key}");
        let payload =
            if body.len() > SIGNED_BYTES_MAX { "UNSIGNED-PAYLOAD".into() } else { hex(&Sha256::digest(&body)) };
        let (date, authorization) = self.signer.sign(method.as_str(), &path, &self.host, &payload);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("x-amz-date", date)
            .header("x-amz-content-sha256", payload)
            .header("authorization", authorization)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

fn host(addr: SocketAddr) -> String {
    addr.to_string()
}

/// Signs requests; the day's key is made once a day.
struct Signer {
    secret_key: String,
    day: String,
    key: Vec<u8>,
}

impl Signer {
    fn new(secret_key: &str) -> Signer {
        Signer { secret_key: secret_key.into(), day: String::new(), key: Vec::new() }
    }

    /// The date and the Authorization header of a request without a query.
    fn sign(&mut self, method: &str, path: &str, host: &str, payload: &str) -> (String, String) {
        let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &date[..8];
        if self.day != day {
            let parts = [day, REGION, "s3", "aws4_request"];
            let first = format!("AWS4{}", self.secret_key).into_bytes();
            self.key = parts.iter().fold(first, |key, part| hmac(&key, part.as_bytes()));
            self.day = day.into();
        }
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{date}\n\n{names}\n{payload}"
        );
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let signature = hex(&hmac(&self.key, text.as_bytes()));
        let header =
            format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}");
        (date, header)
    }
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(b"0123456789abcdef"[usize::from(d)])).collect()
}
