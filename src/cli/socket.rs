//! Asks a running process over its local socket: one request, one answer.
use super::exit;
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
pub use hyper::Method;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// An answer takes no longer than this; snapshots are at hand.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a verb has no answer.
#[derive(Debug)]
pub enum Failed {
    /// The process refused: a name it does not know, a value it cannot use.
    Refused(String),
    /// It could not be asked, or could not tell.
    Unknown(anyhow::Error),
}

impl Failed {
    /// Says it on standard error; returns the exit code.
    pub fn say(&self) -> u8 {
        match self {
            Failed::Refused(why) => {
                eprintln!("REFUSED  {why}");
                exit::USAGE
            }
            Failed::Unknown(e) => {
                eprintln!("UNKNOWN  {e:#}");
                exit::UNKNOWN
            }
        }
    }
}

/// Asks a verb's question, or tells it (POST); the answer is JSON.
///
/// # Errors
/// [`Failed`], for the verb to say.
pub async fn ask<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<T, Failed> {
    let asked = tokio::time::timeout(PATIENCE, fetch(socket, method, path)).await;
    let late = || anyhow::anyhow!("no answer from {} within {}s", socket.display(), PATIENCE.as_secs());
    let (status, body) = asked.map_err(|_| Failed::Unknown(late()))?.map_err(Failed::Unknown)?;
    let said = || String::from_utf8_lossy(&body).trim().to_string();
    match () {
        () if status.is_client_error() => Err(Failed::Refused(said())),
        () if !status.is_success() => {
            Err(Failed::Unknown(anyhow::anyhow!("{}: {status}: {}", socket.display(), said())))
        }
        () => serde_json::from_slice(&body).context("read the answer").map_err(Failed::Unknown),
    }
}

/// GETs a JSON document.
///
/// # Errors
/// When the process cannot be reached, answers too late, or refuses.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    let (status, body) = tokio::time::timeout(PATIENCE, fetch(socket, Method::GET, path))
        .await
        .with_context(|| format!("no answer from {} within {}s", socket.display(), PATIENCE.as_secs()))??;
    if !status.is_success() {
        bail!("{}: {status}: {}", socket.display(), String::from_utf8_lossy(&body).trim());
    }
    serde_json::from_slice(&body).context("read the answer")
}

async fn fetch(socket: &Path, method: Method, path: &str) -> anyhow::Result<(hyper::StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("connect to {} (is the process running?)", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::builder().method(method).uri(path);
    let request = request.header("host", "isthmus").body(Empty::<Bytes>::new())?;
    let ask = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok::<_, anyhow::Error>((status, answer.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(ask, connection);
    tokio::select! {
        answer = &mut ask => answer,
        ended = &mut connection => {
            ended.context("the connection broke")?;
            ask.await
        }
    }
}

/// A path with its query, percent-encoded.
pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = String::from(path);
    for (i, (name, value)) in query.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}
