//! Alerts: promtool takes the rules and their unit tests, each alert has a case that fires and one that is silent, a page on
//! what to do, and names metrics that there are. Dashboards (`boards`), and both on real processes (`live`).
mod boards;
mod catalogue;
#[path = "../local/dice.rs"]
#[allow(dead_code)] // what starts sites is shared with the tests of real processes, which need more of it
mod dice;
#[path = "../local/documents.rs"]
mod documents;
mod live;
#[path = "../process/mod.rs"]
mod process;
mod prometheus;
#[path = "../local/proxy.rs"]
#[allow(dead_code)]
mod proxy;
#[path = "../local/s3.rs"]
#[allow(dead_code)]
mod s3;
#[path = "../local/shape.rs"]
#[allow(dead_code)]
mod shape;
#[path = "../local/site.rs"]
#[allow(dead_code)]
mod site;

use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TESTS: [&str; 2] = ["budget.yaml", "causes.yaml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What the PrometheusRule says, as Prometheus itself has it.
fn rules() -> Json {
    let mut document: Json =
        serde_saphyr::from_str(&read("manifests/components/monitoring/alerts.yaml")).expect("it is YAML");
    document["spec"].take()
}

fn alerts() -> Vec<Json> {
    let rules = rules();
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn name(alert: &Json) -> &str {
    alert["alert"].as_str().expect("an alert has a name")
}

#[test]
fn promtool_takes_the_alerts_and_their_unit_tests() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("SKIPPED: promtool is not installed (Debian: apt-get install prometheus)");
        return;
    }
    let dir = tempfile::tempdir().expect("make a directory");
    fs::write(dir.path().join("rules.yaml"), rules().to_string()).expect("write the rules");
    for file in TESTS {
        fs::copy(root().join("tests/monitoring").join(file), dir.path().join(file)).expect("copy a test");
    }
    for args in [&["check", "rules", "rules.yaml"][..], &["test", "rules", TESTS[0], TESTS[1]]] {
        let said = Command::new("promtool").args(args).current_dir(dir.path()).output().expect("run promtool");
        let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "promtool {args:?}:\n{text}");
    }
}

#[test]
fn every_alert_is_tested_both_ways_and_has_a_page_on_what_to_do() {
    let tests = TESTS.map(|file| read(&format!("tests/monitoring/{file}"))).concat();
    let alerts = alerts();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    for alert in &alerts {
        let name = name(alert);
        for case in ["fires", "is silent"] {
            assert!(tests.contains(&format!("name: {name} {case}\n")), "no test: {name} {case}");
        }
        assert_eq!(alert["annotations"]["runbook"], format!("docs/runbooks/{name}.md"));
        let page = read(&format!("docs/runbooks/{name}.md"));
        for heading in ["**Look at**", "**Usual cause**", "**Do**"] {
            assert!(page.contains(heading), "docs/runbooks/{name}.md lacks {heading}");
        }
    }
    let pages = fs::read_dir(root().join("docs/runbooks")).expect("there are pages").count();
    assert_eq!(pages, alerts.len(), "a page of no alert");
}

/// The names under which metrics are registered; a counter's is without its ending.
fn registered() -> BTreeSet<String> {
    let name = regex::Regex::new(r#"(?:register|encode_descriptor|counter)\((?:&mut to, )?\s*"([a-z_]+)","#)
        .expect("it is one");
    let pages = fs::read_dir(root().join("src/telemetry")).expect("the metrics have a folder");
    let pages = pages.map(|file| file.expect("list it").path()).filter(|path| path.is_file());
    let pages = pages.map(|path| fs::read_to_string(path).expect("read a page of metrics"));
    pages.flat_map(|page| name.captures_iter(&page).map(|found| found[1].to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn alerts_name_metrics_that_there_are() {
    let there = registered();
    for alert in alerts() {
        let expression = alert["expr"].as_str().expect("an expression");
        let words = expression.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mut named = words.filter_map(|word| word.strip_prefix("isthmus_")).peekable();
        assert!(named.peek().is_some(), "{} names none", name(&alert));
        for metric in named {
            let is_there = there.contains(metric) || there.contains(metric.trim_end_matches("_total"));
            assert!(is_there, "{metric} of {} is no metric", name(&alert));
        }
    }
}
