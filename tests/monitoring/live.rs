//! Dashboards and alerts on real processes: three sites, scraped every second through a baseline with a drill, a partition
//! and its healing; every panel's query is asked in each phase, and lag, backlog and counts are held against what the
//! writing clients saw.
use crate::boards::asked;
use crate::catalogue::Held;
use crate::prometheus::{Prometheus, now};
use crate::proxy::Fault;
use crate::rules;
use crate::shape::Shape;
use crate::site::{Fleet, Site};
use bytes::Bytes;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longer than any fact here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// Place of the site that is cut off.
const AMS: usize = 1;
/// Oldest that "everything is there" may be when it is scraped: measured every 2 s at the latest, scraped every second,
/// and half a second for a busy machine.
const SEEN_SECONDS: f64 = 3.5;
/// So far a backlog may be off: a link whose peer is lost begins again at its settled place, and of what lies beyond 256
/// entries of a drive's log, other sites' among them, the number is estimated.
const UNSURE: f64 = 20.0;
const LAG: &str = "time() - isthmus_link_oldest_pending_timestamp_seconds{bucket=\"orders\"}";

/// A client of a site that writes all the time.
struct Writer {
    stop: CancellationToken,
    /// When each write was acked.
    acked: Arc<Mutex<Vec<f64>>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(site: &Arc<Site>, phase: &str) -> Writer {
        let stop = CancellationToken::new();
        let (token, s3, phase) = (stop.clone(), site.s3(), phase.to_owned());
        let (name, acked) = (site.name.clone(), Arc::<Mutex<Vec<f64>>>::default());
        let told = acked.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                let key = format!("{name}/{phase}/{number}");
                s3.put(&key, Bytes::from(vec![7; 2048])).await.expect("a site takes writes whatever its peers do");
                told.lock().expect("no panic while held").push(now());
                if token.is_cancelled() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Writer { stop, acked, task }
    }

    /// When the first write was acked.
    async fn first(&self) -> f64 {
        loop {
            if let Some(at) = self.acked.lock().expect("no panic while held").first() {
                return *at;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many were acked.
    async fn stop(self) -> usize {
        self.stop.cancel();
        self.task.await.expect("writes are acked");
        self.acked.lock().expect("no panic while held").len()
    }
}

fn write(fleet: &Fleet, phase: &str) -> Vec<Writer> {
    fleet.sites.iter().map(|site| Writer::start(site, phase)).collect()
}

async fn stop(writers: Vec<Writer>) -> Vec<usize> {
    let mut acked = Vec::new();
    for writer in writers {
        acked.push(writer.stop().await);
    }
    acked
}

/// The alerts with what they wait for a sixtieth of it: minutes of an operator are seconds here.
fn hasty_rules() -> Json {
    let mut rules = rules();
    for group in rules["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            if let Some(minutes) = rule["for"].as_str().and_then(|text| text.strip_suffix('m')) {
                rule["for"] = format!("{minutes}s").into();
            }
        }
    }
    rules
}

/// Three sites of which `fra` and `ams` let each other drill.
async fn sites() -> Fleet {
    let fleet = Fleet::write(&["fra", "ams", "waw"], 4).await;
    for (site, peer) in [(0, "ams"), (AMS, "fra")] {
        let path = fleet.sites[site].dir.join(format!("rules/peer-{peer}.yaml"));
        let text = fs::read_to_string(&path).expect("read a document");
        fs::write(path, text.replace("    inbound:", "    drills: Enabled\n    inbound:")).expect("write a document");
    }
    // Sampled, though nobody takes the spans: what is scraped leads to traces.
    fleet.sites[0].set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    fleet.sites[0].set("OTEL_TRACES_SAMPLER", "always_on");
    for site in &fleet.sites {
        site.spawn();
    }
    for site in &fleet.sites {
        site.ready().await;
    }
    fleet
}

fn drill(site: &Site) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.args(["drill", "run", "--peer", "ams", "--type", "partition", "--duration", "1s", "--socket"]);
    command.arg(site.socket()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("run isthmus")
}

/// Asks until there is no complaint; the last one is what the test fails with.
async fn until(what: &str, mut complaint: impl AsyncFnMut() -> Option<String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(said) = complaint().await {
        assert!(Instant::now() < deadline, "in vain: {what}: {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The only value of an expression.
async fn value(prometheus: &Prometheus, expr: &str) -> Option<f64> {
    prometheus.query(expr, now()).await.expect(expr).first().map(|sample| sample.value)
}

async fn until_is(prometheus: &Prometheus, expr: &str, wanted: f64) {
    until(expr, async || {
        let found = value(prometheus, expr).await;
        (found != Some(wanted)).then(|| format!("{found:?}, not {wanted}"))
    })
    .await;
}

/// Every panel's queries are answered, with data where they must be, and with numbers.
async fn every_panel_answers(prometheus: &Prometheus, phase: &str, with_data: &[&str]) {
    let all = asked();
    let mut seen = 0;
    until(&format!("{phase}: every panel answers"), async || {
        let (mut wrong, at) = (Vec::new(), now());
        seen = 0;
        for asked in &all {
            let what = format!("{} {} {}", asked.board, asked.panel, asked.expr);
            match prometheus.query(&asked.expr, at).await {
                Err(e) => wrong.push(format!("{what}: {e}")),
                Ok(none) if none.is_empty() => {
                    if !asked.may_be_absent || with_data.contains(&asked.panel.as_str()) {
                        wrong.push(format!("{what}: no data"));
                    }
                }
                Ok(samples) => {
                    seen += 1;
                    let odd = samples.iter().filter(|s| !s.value.is_finite());
                    wrong.extend(odd.map(|s| format!("{what}: {} at {:?}", s.value, s.labels)));
                }
            }
        }
        (!wrong.is_empty()).then(|| wrong.join("\n"))
    })
    .await;
    println!("{phase}: {} queries, {seen} with data", all.len());
}

/// Names of the alerts that fire and are to wake somebody.
async fn firing(prometheus: &Prometheus) -> BTreeSet<String> {
    let fires = r#"ALERTS{alertstate="firing", severity="critical"}"#;
    let samples = prometheus.query(fires, now()).await.expect("alerts are series");
    samples.into_iter().map(|mut s| s.labels.remove("alertname").expect("an alert has a name")).collect()
}

/// While the peer is cut off: the lag of a link to it is the age of the oldest write that its client knows of.
async fn lag_is_what_the_client_sees(prometheus: &Prometheus, cut_at: f64, wrote_at: f64) {
    let mut looks = 0;
    until("the lag grows", async || {
        let at = now();
        let selector = r#"{bucket="orders", site="fra", peer="ams"}"#;
        let shown = format!("time() - isthmus_link_oldest_pending_timestamp_seconds{selector}");
        let samples = prometheus.query(&shown, at).await.expect("the lag");
        let Some(lag) = samples.first().map(|sample| sample.value) else { return Some("it is absent".into()) };
        // The gauge has milliseconds, and so has the client's clock.
        let (least, most) = (at - wrote_at - 0.01, at - cut_at + SEEN_SECONDS);
        assert!(lag >= least && lag <= most, "shown {lag:.3}, seen by the client: {least:.3} to {most:.3}");
        looks += 1;
        (lag < 8.0).then(|| format!("{lag:.3} s"))
    })
    .await;
    println!("partition: the lag agreed with the client's in {looks} looks");
    assert!(looks > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panels_and_alerts_show_a_partition_as_its_clients_see_it() {
    if !Prometheus::is_installed() {
        println!("SKIPPED: prometheus is not installed (Debian: apt-get install prometheus)");
        return;
    }
    let began = Instant::now();
    let fleet = sites().await;
    let scraped: Vec<_> = fleet.sites.iter().map(|s| (s.name.clone(), s.door().expect("it runs").admin)).collect();
    let prometheus = Prometheus::start(&scraped, &hasty_rules()).await;
    let ams_links: Vec<_> = Shape::mesh(0..3).pairs().into_iter().zip(&fleet.proxies).collect();
    let cut = |fault: Fault| {
        ams_links.iter().filter(|((from, to), _)| [from, to].contains(&&AMS)).for_each(|(_, proxy)| proxy.set(fault));
    };

    // Baseline, with a drill on its own bucket.
    let writers = write(&fleet, "baseline");
    until_is(&prometheus, "min(isthmus_peer_up)", 1.0).await;
    let drilled = drill(&fleet.sites[0]).wait_with_output().await.expect("it ends");
    assert!(drilled.status.success(), "{}", String::from_utf8_lossy(&drilled.stdout));
    let of_drills = ["How long was nobody served, and how long may it be?", "Which step is a drill at?"];
    every_panel_answers(&prometheus, "baseline", &of_drills).await;
    for asked in asked().iter().filter(|asked| asked.exemplars) {
        let traces = prometheus.traces(&asked.expr).await;
        assert!(traces.iter().any(|id| id.len() == 32), "{}: no trace behind it: {traces:?}", asked.panel);
    }
    until_is(&prometheus, "max(isthmus_drill_step)", 0.0).await;
    let seen = value(&prometheus, "max_over_time(isthmus_drill_step{site=\"fra\"}[2m])").await;
    assert!(seen.is_some_and(|step| step > 0.0), "steps of the drill were scraped: {seen:?}");
    assert_eq!(firing(&prometheus).await, BTreeSet::new());
    let baseline = stop(writers).await;
    fleet.drained(PATIENCE).await;

    // Partition: everything begins after the cut, so that what must wait is known to the version.
    let cut_at = now();
    cut(Fault::Cut);
    let writers = write(&fleet, "partition");
    let wrote_at = writers[0].first().await;
    lag_is_what_the_client_sees(&prometheus, cut_at, wrote_at).await;
    every_panel_answers(&prometheus, "partition", &["When is the backlog drained?"]).await;
    until("the alert fires", async || {
        let firing = firing(&prometheus).await;
        (firing != BTreeSet::from(["IsthmusPeerDown".to_owned()])).then(|| format!("{firing:?}"))
    })
    .await;
    let partition = stop(writers).await;
    for (site, peer) in [(0, "ams"), (2, "ams"), (AMS, "fra"), (AMS, "waw")] {
        let name = &fleet.sites[site].name;
        let backlog = format!("isthmus_link_backlog_versions{{bucket=\"orders\", site=\"{name}\", peer=\"{peer}\"}}");
        // What a third site wrote here meanwhile its own link brings: it does not count.
        let own = partition[site] as f64;
        until(&backlog, async || {
            let shown = value(&prometheus, &backlog).await;
            let is_right = shown.is_some_and(|n| (n - own).abs() <= UNSURE);
            (!is_right).then(|| format!("{shown:?}, and {own} wait"))
        })
        .await;
    }

    // Healing.
    let healed = Instant::now();
    cut(Fault::None);
    let writers = write(&fleet, "heal");
    until("the lag is short again", async || {
        let worst = value(&prometheus, &format!("max({LAG})")).await;
        worst.is_none_or(|lag| lag >= 5.0).then(|| format!("{worst:?}"))
    })
    .await;
    println!("heal: every lag below 5 s after {:?}", healed.elapsed());
    every_panel_answers(&prometheus, "heal", &[]).await;
    let heal = stop(writers).await;
    fleet.drained(PATIENCE).await;
    until_is(&prometheus, "sum(isthmus_link_backlog_versions)", 0.0).await;
    assert!(prometheus.query("sum(isthmus_link_backlog_bytes) > 0", now()).await.expect("a query").is_empty());
    for (place, site) in fleet.sites.iter().enumerate() {
        // Each version is acked by both peers, once.
        let acked = 2 * [&baseline, &partition, &heal].map(|phase| phase[place]).iter().sum::<usize>();
        let counted = format!("sum(isthmus_link_versions_total{{bucket=\"orders\", site=\"{}\"}})", site.name);
        until_is(&prometheus, &counted, acked as f64).await;
    }
    until("nothing fires any more", async || {
        let firing = firing(&prometheus).await;
        (!firing.is_empty()).then(|| format!("{firing:?}"))
    })
    .await;
    assert_eq!(prometheus.failing_rules().await, Vec::<String>::new());
    let mut held = Held::default();
    for site in &fleet.sites {
        held.take(&site.metrics().await);
    }
    assert_eq!(held.unseen(), Vec::<&str>::new());
    assert_eq!(held.faults, BTreeSet::new());
    fleet.no_alarm();
    println!("all of it took {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}
