//! Which changes of a status people look for, as Events. Pure: a status before and after.
use serde_json::Value as Json;

/// An Event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub is_warning: bool,
    pub reason: &'static str,
    pub note: String,
}

/// What happened between two statuses of an object of this kind.
pub fn between(kind: &str, before: &Json, after: &Json) -> Vec<Said> {
    match kind {
        "ReplicationRule" => of_rule(before, after),
        "Peer" => of_peer(before, after),
        "Site" => of_site(before, after),
        "FailoverDrill" => of_drill(before, after),
        _ => Vec::new(),
    }
}

fn of_rule(before: &Json, after: &Json) -> Vec<Said> {
    let mut all = Vec::new();
    match change(before, after, "Accepted") {
        Some((_, "True", note)) => all.push(said(false, "RuleAccepted", note)),
        Some((_, "False", note)) => all.push(said(true, "RuleRejected", note)),
        _ => {}
    }
    match change(before, after, "LagWithinObjective") {
        Some((_, "False", note)) => all.push(said(true, "LagObjectiveExceeded", note)),
        Some(("False", "True", note)) => all.push(said(false, "LagRecovered", note)),
        _ => {}
    }
    let is_braked = |status: &Json| condition(status, "Stalled").is_some_and(|c| c["reason"] == "BrakeEngaged");
    if is_braked(after) && !is_braked(before) {
        let note = condition(after, "Stalled").and_then(|c| c["message"].as_str()).unwrap_or_default();
        all.push(said(true, "BrakeEngaged", note));
    }
    all
}

fn of_peer(before: &Json, after: &Json) -> Vec<Said> {
    match change(before, after, "Connected") {
        Some((_, "True", note)) => vec![said(false, "PeerConnected", note)],
        Some(("True", "False", note)) => vec![said(true, "PeerLost", note)],
        _ => Vec::new(),
    }
}

fn of_site(before: &Json, after: &Json) -> Vec<Said> {
    let mut all = Vec::new();
    if let Some(leader) = after["leader"].as_str().filter(|_| before["leader"] != after["leader"]) {
        all.push(said(false, "LeaderElected", &format!("{leader} writes status and starts jobs")));
    }
    if let Some((_, "False", note)) = change(before, after, "CertificateValid") {
        all.push(said(true, "CertificateExpiring", note));
    }
    all
}

fn of_drill(before: &Json, after: &Json) -> Vec<Said> {
    let is_over = |kind: &str| change(before, after, kind).filter(|(_, now, _)| *now == "True").map(|(.., note)| note);
    let mut all = Vec::new();
    if after["startTime"].is_string() && !before["startTime"].is_string() {
        all.push(said(false, "DrillStarted", "a canary bucket is made at both sites; no other is touched"));
    }
    all.extend(is_over("Complete").map(|note| said(false, "DrillFinished", note)));
    all.extend(is_over("Failed").map(|note| said(true, "DrillFinished", note)));
    all
}

/// Status of a condition before and after, where status or reason differ, with its message now.
fn change<'a>(before: &'a Json, after: &'a Json, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (old, new) = (condition(before, kind), condition(after, kind)?);
    let text = |c: Option<&'a Json>, key: &str| c.and_then(|c| c[key].as_str()).unwrap_or_default();
    let is_same = |key: &str| text(old, key) == text(Some(new), key);
    let is_other = !is_same("status") || !is_same("reason");
    is_other.then(|| (text(old, "status"), text(Some(new), "status"), text(Some(new), "message")))
}

fn condition<'a>(status: &'a Json, kind: &str) -> Option<&'a Json> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

fn said(is_warning: bool, reason: &'static str, note: &str) -> Said {
    Said { is_warning, reason, note: note.into() }
}
