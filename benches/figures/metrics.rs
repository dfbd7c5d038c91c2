//! A site's own metrics, as its admin port shows them: the few numbers the figures need.
use crate::sites::Site;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Everything a site shows at one moment.
pub struct Scrape(String);

/// Reads a site's metrics.
pub async fn scrape(site: &Site) -> anyhow::Result<Scrape> {
    let stream = TcpStream::connect(site.admin).await.with_context(|| format!("connect to {}", site.admin))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection); // its error is the request's
    let request = Request::get("/metrics").header("host", site.admin.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "GET /metrics of {}: {}", site.name, response.status());
    Ok(Scrape(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?))
}

impl Scrape {
    /// The sum of a metric over all its labels that hold `label`; `None`: there is no such series.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let named = labels.is_empty() || labels.starts_with('{');
            (named && labels.contains(label)).then(|| value.parse::<f64>().ok()).flatten()
        });
        values.reduce(|a, b| a + b)
    }
    /// Versions the peer has applied.
    pub fn applied(&self) -> f64 {
        self.sum("isthmus_link_versions_total", "applied").unwrap_or(0.0)
    }
    /// Versions not yet at the peer.
    pub fn backlog(&self) -> Option<f64> {
        self.sum("isthmus_link_backlog_versions", "")
    }
    /// Age in seconds at `now_millis` of the oldest change not yet at the peer.
    pub fn lag(&self, now_millis: u64) -> Option<f64> {
        let oldest = self.sum("isthmus_link_oldest_pending_timestamp_seconds", "")?;
        Some((now_millis as f64 / 1000.0 - oldest).max(0.0))
    }
    /// How many changes were acked within each bound of the commit-to-ack histogram: (seconds, count), cumulative.
    pub fn commit_to_ack(&self) -> Vec<(f64, f64)> {
        let buckets = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix("isthmus_link_commit_to_ack_seconds_bucket{")?;
            let bound = rest.split_once("le=\"")?.1.split_once('"')?.0;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, rest.rsplit_once(' ')?.1.parse().ok()?))
        });
        buckets.collect()
    }
}

/// The bound that `share` of what was added between two histograms did not exceed; `None`: nothing was.
pub fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> Option<f64> {
    let old = |bound: f64| before.iter().find(|(b, _)| *b == bound).map_or(0.0, |(_, n)| *n);
    let added: Vec<_> = after.iter().map(|(bound, n)| (*bound, n - old(*bound))).collect();
    let all = added.iter().map(|(_, n)| *n).fold(0.0, f64::max);
    let reached = added.iter().filter(|(_, n)| all > 0.0 && *n >= all * share).map(|(bound, _)| *bound);
    reached.reduce(f64::min)
}
