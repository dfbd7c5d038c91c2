//! A Prometheus of the test's own: it scrapes sites every second, evaluates the alerts, and answers queries.
use crate::process::free_ports;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use storage_engine::clock::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// It answers within this time after its start, on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A running one; its folder and process go with it.
pub struct Prometheus {
    port: u16,
    _child: Child,
    _dir: TempDir,
}

/// One series at one moment.
#[derive(Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Unix seconds.
pub fn now() -> f64 {
    SystemClock.now_millis() as f64 / 1000.0
}

impl Prometheus {
    /// Whether there is one on this machine.
    pub fn is_installed() -> bool {
        std::process::Command::new("prometheus").arg("--version").output().is_ok()
    }

    /// Starts one that scrapes these, each as the instance of its name; `rules` as Prometheus has them.
    pub async fn start(targets: &[(String, SocketAddr)], rules: &Json) -> Prometheus {
        let dir = tempfile::Builder::new().prefix("isthmus-prometheus-").tempdir().expect("make a directory");
        let scraped = |(name, at): &(String, SocketAddr)| json!({"targets": [at], "labels": {"instance": name}});
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "isthmus",
                "static_configs": targets.iter().map(scraped).collect::<Vec<_>>(),
            }],
        });
        fs::write(dir.path().join("prometheus.yaml"), configuration.to_string()).expect("write its configuration");
        fs::write(dir.path().join("rules.yaml"), rules.to_string()).expect("write the rules");
        let log = fs::File::create(dir.path().join("log")).expect("open the log");
        let [port] = free_ports();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg("--enable-feature=exemplar-storage")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("start prometheus");
        let started = Prometheus { port, _child: child, _dir: dir };
        let deadline = Instant::now() + START;
        while !started.ask("/-/ready", "").await.is_some_and(|said| said.contains(" 200 ")) {
            let log = fs::read_to_string(started._dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "prometheus is not ready:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        started
    }

    /// What an expression has at a moment.
    pub async fn query(&self, expr: &str, at: f64) -> Result<Vec<Sample>, String> {
        let form = format!("query={}&time={at}", percent(expr));
        let said = self.ask("/api/v1/query", &form).await.ok_or("prometheus does not answer")?;
        let (_, body) = said.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
        let mut answer: Json = serde_json::from_str(body).map_err(|e| format!("{e}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let sample = |(labels, pair): (Json, &Json)| Sample {
            labels: serde_json::from_value(labels).unwrap_or_default(),
            value: pair[1].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN),
        };
        match answer["data"]["result"].take() {
            Json::Array(series) if answer["data"]["resultType"] == "vector" => {
                Ok(series.iter().map(|s| sample((s["metric"].clone(), &s["value"]))).collect())
            }
            scalar => Ok(vec![sample((Json::Null, &scalar))]),
        }
    }

    /// Traces it was shown in the last minute behind the series that an expression asks for.
    pub async fn traces(&self, expr: &str) -> Vec<String> {
        let form = format!("query={}&start={}&end={}", percent(expr), now() - 60.0, now());
        let said = self.ask("/api/v1/query_exemplars", &form).await.expect("prometheus answers");
        let (_, body) = said.split_once("\r\n\r\n").expect("an answer of HTTP");
        let answer: Json = serde_json::from_str(body).expect("it is JSON");
        let series = answer["data"].as_array().cloned().unwrap_or_default();
        let shown = series.iter().filter_map(|s| s["exemplars"].as_array()).flatten();
        shown.filter_map(|e| e["labels"]["trace_id"].as_str().map(str::to_owned)).collect()
    }

    /// The rules it evaluates that are not well, with why.
    pub async fn failing_rules(&self) -> Vec<String> {
        let said = self.ask("/api/v1/rules", "").await.expect("prometheus answers");
        let (_, body) = said.split_once("\r\n\r\n").expect("an answer of HTTP");
        let answer: Json = serde_json::from_str(body).expect("it is JSON");
        let groups = answer["data"]["groups"].as_array().expect("groups of rules");
        let rules: Vec<&Json> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
        assert!(!rules.is_empty(), "it has the rules");
        let failing = rules.iter().filter(|rule| rule["health"] != "ok");
        failing.map(|rule| format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"])).collect()
    }

    /// A request, GET where there is no form; HTTP/1.0, so that the answer comes in one piece.
    async fn ask(&self, path: &str, form: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let (verb, length) = (if form.is_empty() { "GET" } else { "POST" }, form.len());
        let head = format!(
            "{verb} {path} HTTP/1.0\r\nhost: prometheus\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + form).as_bytes()).await.ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.ok()?;
        Some(said)
    }
}

fn percent(text: &str) -> String {
    let coded = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") };
    text.bytes().map(coded).collect()
}
