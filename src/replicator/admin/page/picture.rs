//! The mesh and an hour of lag as pictures of lines and words. Colours are the style sheet's; a picture never says by colour
//! alone what it says.
use super::super::history::{Lags, POINTS};
use super::markup::escaped;
use crate::replicator::report::verdict;
use crate::replicator::report::{LinkReport, SiteReport};
use crate::words;
use std::f64::consts::TAU;
use std::fmt::Write;

/// Peers that are drawn; the table has more.
const PEERS_MAX: usize = 16;
/// Size of the picture of the mesh: words in it can be read on 400 pixels. Up to two peers stand in one line.
const SIZE: (f64, f64) = (400.0, 230.0);
const LOW: f64 = 90.0;
/// Height of the picture of an hour.
const HEIGHT: f64 = 20.0;

/// How a link is: a class of the style sheet.
pub(super) fn class(link: &LinkReport) -> &'static str {
    let late = link.lag_seconds.is_none() || link.is_late();
    match link.state.as_str() {
        "standby" => "idle",
        "live" | "catching_up" if !late && link.parked_versions == 0 => "ok",
        "live" | "catching_up" | "suspended" => "warn",
        _ => "bad",
    }
}

/// This site, its peers around it, and on each way the worst lag.
pub(super) fn mesh(report: &SiteReport) -> String {
    let peers = &report.peers[..report.peers.len().min(PEERS_MAX)];
    let height = if peers.len() > 2 { SIZE.1 } else { LOW };
    let middle = (SIZE.0 / 2.0, height / 2.0 - 10.0);
    let (mut ways, mut nodes, mut told) = (String::new(), String::new(), Vec::new());
    for (place, peer) in peers.iter().enumerate() {
        let angle = TAU * place as f64 / peers.len() as f64;
        let at = (middle.0 + 160.0 * angle.cos(), middle.1 + 70.0 * angle.sin());
        let links = || report.links.iter().filter(|l| l.peer == peer.peer && l.state != "standby");
        let worst = links().max_by(|a, b| a.by_lag(b));
        let (class, lag) = match (peer.is_up, worst) {
            (false, _) => ("bad", format!("down, {}", worst.map_or("no link".into(), verdict::lag))),
            (true, Some(link)) => (class(link), verdict::lag(link)),
            (true, None) => ("idle", "no link".into()),
        };
        let half = ((at.0 + middle.0) / 2.0, (at.1 + middle.1) / 2.0 - 6.0);
        let name = escaped(&peer.peer);
        let _ = write!(
            ways,
            "<line class=\"{class}\" x1=\"{:.0}\" y1=\"{:.0}\" x2=\"{:.0}\" y2=\"{:.0}\"/><text class=\"lag\" x=\"{:.0}\" y=\"{:.0}\">{lag}</text>",
            middle.0, middle.1, at.0, at.1, half.0, half.1
        );
        node(&mut nodes, at, class, &name);
        told.push(format!("{name} {lag}"));
    }
    node(&mut nodes, middle, "own", &escaped(&report.site));
    format!(
        "<svg class=\"mesh\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Lag to peers: {}\">{ways}{nodes}</svg>",
        SIZE.0,
        height,
        if told.is_empty() { "no peers".into() } else { told.join(", ") }
    )
}

fn node(out: &mut String, at: (f64, f64), class: &str, name: &str) {
    let (x, y) = at;
    let _ = write!(out, "<circle class=\"{class}\" cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"16\"/>");
    let _ = write!(out, "<text x=\"{x:.0}\" y=\"{:.0}\">{name}</text>", y + 32.0);
}

/// An hour of lag, the newest at the right; a gap where it was not known.
pub(super) fn sparkline(lags: &Lags) -> String {
    let most = lags.iter().flatten().copied().fold(1.0, f64::max);
    let first = POINTS - lags.len().min(POINTS);
    let (mut lines, mut points) = (String::new(), String::new());
    for (place, lag) in lags.iter().enumerate().map(|(i, lag)| (first + i, *lag)).chain([(POINTS, None)]) {
        match lag {
            Some(lag) => {
                let _ = write!(points, "{place},{:.0} ", HEIGHT - 1.0 - (HEIGHT - 2.0) * lag / most);
            }
            None if !points.is_empty() => {
                // A point alone is a line to itself: a dot.
                let dot = if points.matches(' ').count() == 1 { points.clone() } else { String::new() };
                let _ = write!(lines, "<polyline points=\"{}\"/>", (dot + &points).trim_end());
                points.clear();
            }
            None => {}
        }
    }
    let said = match lags.iter().flatten().count() {
        0 => "not known".into(),
        _ => format!("at most {}", words::seconds(lags.iter().flatten().copied().fold(0.0, f64::max))),
    };
    format!(
        "<svg class=\"hour\" viewBox=\"0 0 {POINTS} {HEIGHT}\" role=\"img\" aria-label=\"{said}\">{lines}</svg><span class=\"idle\" aria-hidden=\"true\">{said}</span>"
    )
}
