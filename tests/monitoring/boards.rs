//! The dashboards as files: that they are what the code says, and that every panel is whole and asks for what there is.
use crate::{alerts, read, root};
use isthmus::dashboard::grafana;
use isthmus::telemetry::catalogue::{self, Described, Kind};
use regex::Regex;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

const DIR: &str = "manifests/components/monitoring/dashboards";
/// The scrape interval of these tests, and four of it: what Grafana makes of `$__rate_interval`.
pub const RATE_INTERVAL: &str = "4s";

/// One query of a panel, with everything chosen.
pub struct Asked {
    pub board: String,
    pub panel: String,
    pub expr: String,
    /// There may be no data.
    pub may_be_absent: bool,
    /// Shows the traces behind its values.
    pub exemplars: bool,
}

/// The boards as the files have them.
fn boards() -> Vec<(String, Json)> {
    let mut names: Vec<_> = fs::read_dir(root().join(DIR)).expect("there are dashboards").collect();
    names.sort_by_key(|entry| entry.as_ref().expect("list it").file_name());
    let names = names.into_iter().map(|entry| entry.expect("list it").file_name().into_string().expect("of letters"));
    names
        .map(|name| (name.clone(), serde_json::from_str(&read(&format!("{DIR}/{name}"))).expect("it is JSON")))
        .collect()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

/// Every query of every panel, as the files have them.
fn written() -> Vec<Asked> {
    let mut all = Vec::new();
    for (board, json) in boards() {
        for panel in list(&json["panels"]) {
            let may_be_absent = panel["fieldConfig"]["defaults"]["noValue"].is_string();
            let asked = |target: &Json| Asked {
                board: board.clone(),
                panel: text(&panel["title"]),
                expr: text(&target["expr"]),
                may_be_absent,
                exemplars: target["exemplar"] == true,
            };
            all.extend(list(&panel["targets"]).map(asked));
        }
    }
    all
}

/// The same as Prometheus is asked: every bucket and peer.
pub fn asked() -> Vec<Asked> {
    let chosen =
        |expr: &str| expr.replace("$bucket", ".*").replace("$peer", ".*").replace("$__rate_interval", RATE_INTERVAL);
    written().into_iter().map(|asked| Asked { expr: chosen(&asked.expr), ..asked }).collect()
}

/// A metric as the catalogue has it.
struct Metric {
    kind: Kind,
    labels: BTreeSet<String>,
}

/// All metrics by name; `_total` belongs to a counter's.
fn metrics() -> BTreeMap<String, Metric> {
    let named = |metric: Described| {
        let end = if metric.kind == Kind::Counter { "_total" } else { "" };
        let labels = metric.labels.into_iter().map(str::to_owned).collect();
        (format!("{}{end}", metric.name), Metric { kind: metric.kind, labels })
    };
    catalogue::all().map(named).collect()
}

/// Everything wrong with a query.
fn faults(expr: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let metric = Regex::new(r"(?:(\w+)\()?isthmus_(\w+)(?:\{([^}]*)\})?(?:\[([^\]]+)\])?").expect("it is one");
    let (selector, by) =
        (Regex::new(r"(\w+)\s*(?:=~|!~|!=|=)").expect("one"), Regex::new(r"by \(([^)]*)\)").expect("one"));
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::from(["site".to_owned(), "le".to_owned()]));
    for found in metric.captures_iter(expr) {
        let name = &found[2];
        let of_histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let Some(metric) =
            metrics.get(name).or_else(|| metrics.get(of_histogram?).filter(|m| m.kind == Kind::Histogram))
        else {
            wrong.push(format!("isthmus_{name} is no metric"));
            continue;
        };
        let grows = metric.kind != Kind::Gauge;
        let function = found.get(1).map_or("", |f| f.as_str());
        match function {
            "rate" | "increase" if !grows => wrong.push(format!("{function}() on the gauge {name}")),
            "delta" | "deriv" | "predict_linear" if grows => wrong.push(format!("{function}() on the counter {name}")),
            "rate" | "increase" | "delta" | "deriv" | "predict_linear" if found.get(4).is_none() => {
                wrong.push(format!("{function}() of {name} without a window"));
            }
            "rate" | "increase" => {}
            _ if grows => wrong.push(format!("{name}, which only grows, is shown bare")),
            _ => {}
        }
        for label in selector.captures_iter(found.get(3).map_or("", |s| s.as_str())) {
            if !metric.labels.contains(&label[1]) {
                wrong.push(format!("{name} has no label {}", &label[1]));
            }
        }
        known.extend(metric.labels.iter().cloned());
    }
    if expr.contains("ALERTS{") {
        known.extend(["alertname", "alertstate", "severity"].map(String::from));
    }
    for names in by.captures_iter(expr) {
        let names = names[1].split(',').map(str::trim).filter(|name| !name.is_empty());
        wrong
            .extend(names.filter(|n| !known.contains(*n)).map(|n| format!("by ({n}): no metric of it has that label")));
    }
    if Regex::new(r"/ (?:\(|sum|rate|isthmus)").expect("one").is_match(expr) {
        wrong.push("divides by what may be 0: clamp_min".into());
    }
    wrong
}

#[test]
fn the_files_are_what_the_code_says() {
    let files = grafana::files();
    for (file, text) in &files {
        let held = fs::read_to_string(root().join(DIR).join(file)).unwrap_or_default();
        assert!(held == *text, "{DIR}/{file} differs from the code; run: cargo run -- dashboards");
    }
    assert_eq!(boards().len(), files.len(), "{DIR} holds a file that no board writes");
    let component = read("manifests/components/monitoring/kustomization.yaml");
    for (file, _) in &files {
        assert!(component.contains(&format!("files: [dashboards/{file}]")), "no ConfigMap takes {file}");
    }
}

#[test]
fn every_panel_is_a_question_with_a_unit_thresholds_and_what_to_do() {
    for (board, json) in boards() {
        let place = |panel: &Json| format!("{board}: {}", panel["title"]);
        let variables: Vec<String> = list(&json["templating"]["list"]).map(|v| text(&v["name"])).collect();
        assert!(variables.contains(&"datasource".into()), "{board}");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(&json["panels"]) {
            let place = place(panel);
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{place}: its id is another's");
            assert!(text(&panel["title"]).ends_with('?'), "{place}");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(defaults["unit"].is_string() && list(&defaults["thresholds"]["steps"]).next().is_some(), "{place}");
            let description = text(&panel["description"]);
            assert!(description.starts_with("What to do: ") && description.len() > 40, "{place}");
            let url = text(&panel["links"][0]["url"]);
            let page = url.strip_prefix("${docs}/").unwrap_or_else(|| panic!("{place}: {url}"));
            assert!(root().join("docs").join(page).is_file(), "{place}: there is no docs/{page}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let at = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
            let [x, y, w, h] = at;
            assert!(x + w <= 24, "{place}: outside of the grid");
            let cells = (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row)));
            assert!(cells.into_iter().all(|cell| taken.insert(cell)), "{place}: lies on another panel");
            assert!(list(&panel["targets"]).next().is_some(), "{place}: asks nothing");
            for target in list(&panel["targets"]) {
                let expr = text(&target["expr"]);
                for variable in ["bucket", "peer"].iter().filter(|v| expr.contains(&format!("${v}"))) {
                    assert!(variables.contains(&(*variable).to_owned()), "{place}: nobody chooses {variable}");
                }
            }
        }
        for chosen in variables.iter().filter(|v| ["bucket", "peer"].contains(&v.as_str())) {
            assert!(json["panels"].to_string().contains(&format!("${chosen}")), "{board}: {chosen} changes nothing");
        }
    }
}

#[test]
fn every_query_asks_for_what_there_is_and_as_it_must_be_asked() {
    let metrics = metrics();
    let wrong: Vec<String> = written()
        .iter()
        .flat_map(|a| {
            faults(&a.expr, &metrics).into_iter().map(|f| format!("{} {}: {f}: {}", a.board, a.panel, a.expr))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (planted, fault) in [
        ("sum(isthmus_link_bytes)", "is no metric"),
        ("isthmus_link_bytes_total", "shown bare"),
        ("rate(isthmus_peer_up[1m])", "on the gauge"),
        ("delta(isthmus_conflicts_total[1m])", "on the counter"),
        ("isthmus_peer_up{rule=\"x\"}", "no label rule"),
        ("sum by (bucket) (isthmus_peer_up)", "by (bucket)"),
        ("sum(isthmus_peer_up) / sum(isthmus_peer_up)", "clamp_min"),
    ] {
        assert!(
            faults(planted, &metrics).iter().any(|f| f.contains(fault)),
            "{planted}: {:?}",
            faults(planted, &metrics)
        );
    }
}

#[test]
fn promtool_parses_every_query() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("SKIPPED: promtool is not installed (Debian: apt-get install prometheus)");
        return;
    }
    let record = |(place, asked): (usize, Asked)| serde_json::json!({"record": format!("q{place}"), "expr": asked.expr, "labels": {"board": asked.board}});
    let rules: Vec<Json> = asked().into_iter().enumerate().map(record).collect();
    let dir = tempfile::tempdir().expect("make a directory");
    let file = dir.path().join("queries.yaml");
    fs::write(&file, serde_json::json!({"groups": [{"name": "queries", "rules": rules}]}).to_string()).expect("write");
    let said = Command::new("promtool").args(["check", "rules"]).arg(&file).output().expect("run promtool");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(rules.len() >= 78 && !alerts().is_empty(), "{} queries", rules.len());
}
