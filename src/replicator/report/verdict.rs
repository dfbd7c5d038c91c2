//! How a snapshot reads: the verdict on a site, and of a link its lag, its backlog and what holds it, in words. Decides
//! nothing; called by the verbs and the status page.
use super::{LinkReport, SiteReport};
use crate::words::{bytes, seconds, utc};

/// The lag of a link.
pub fn lag(link: &LinkReport) -> String {
    link.lag_seconds.map_or("unknown".into(), seconds)
}

/// The backlog of a link, in versions and bytes.
pub fn backlog(link: &LinkReport) -> String {
    match (link.backlog_versions, link.backlog_bytes) {
        (Some(0), _) => "0".into(),
        (Some(versions), Some(size)) => format!("{versions} / {}", bytes(size)),
        _ => "unknown".into(),
    }
}

/// What holds a link back, or the last thing that failed.
pub fn why(link: &LinkReport) -> String {
    if let Some(condition) = link.conditions.first().filter(|_| link.suspended.is_none()) {
        return format!("{}: {}", condition.reason, condition.message);
    }
    if link.clock_ahead_versions > 0 && !link.is_held() {
        let n = link.clock_ahead_versions;
        return format!(
            "clock_ahead: {n} versions are stamped ahead of the peer's clock and go by themselves; look at the time service"
        );
    }
    match (&link.suspended, link.braked_since, &link.last_error) {
        (Some(held), ..) => held.since.map_or(held.by.clone(), |at| format!("{}, {}", held.by, utc(at))),
        (None, Some(since), _) => {
            let (deletes, since) = (link.braked_versions, utc(since));
            format!("MassDelete: {deletes} deletes held back since {since}; isthmus release {}", link.rule)
        }
        (None, None, Some(error)) => error.clone(),
        (None, None, None) => "-".into(),
    }
}

/// How it stands, in a word, and why.
pub fn verdict(report: &SiteReport) -> String {
    let down: Vec<&str> = report.peers.iter().filter(|p| !p.is_up).map(|p| p.peer.as_str()).collect();
    let parked: u64 = report.links.iter().map(|l| l.parked_versions).sum();
    let mut why = Vec::new();
    if let [first, ..] = down[..] {
        let (count, of, names) = (down.len(), report.peers.len(), down.join(", "));
        why.push(format!("{count} of {of} peers down ({names}): isthmus explain --peer {first}"));
    }
    if parked > 0 {
        why.push(format!("{parked} versions parked: isthmus backlog --parked says why, then isthmus retry"));
    }
    let braked = report.links.iter().filter(|l| l.braked_since.is_some()).count();
    if braked > 0 {
        why.push(format!("the brake holds deletes back on {braked} links: restore, or isthmus release RULE"));
    }
    let suspended = report.links.iter().filter(|l| l.suspended.is_some()).count();
    if suspended > 0 {
        why.push(format!("{suspended} of {} links suspended: isthmus resume --rule RULE", report.links.len()));
    }
    let unfit = report.links.iter().filter(|l| !l.conditions.is_empty()).count();
    if unfit > 0 {
        why.push(format!("{unfit} of {} links have something to mend: see WHY", report.links.len()));
    }
    if let Some(error) = &report.store_error {
        why.push(error.clone());
    }
    if !report.problems.is_empty() {
        why.push(format!("{} documents not in force", report.problems.len()));
    }
    if why.is_empty() {
        format!("HEALTHY  site {}, {} links\n\n", report.site, report.links.len())
    } else {
        format!("DEGRADED  site {}: {}\n\n", report.site, why.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerReport;
    use super::*;

    #[test]
    fn the_verdict_names_who_is_down_and_what_to_do_next() {
        let peer = |name: &str, is_up| PeerReport { peer: name.into(), is_up, ..PeerReport::default() };
        let of = |peers| verdict(&SiteReport { site: "fra".into(), peers, ..SiteReport::default() });
        assert!(of(vec![peer("ams", true)]).starts_with("HEALTHY  site fra, 0 links\n"));
        let both = of(vec![peer("ams", false), peer("osl", true), peer("waw", false)]);
        assert_eq!(both, "DEGRADED  site fra: 2 of 3 peers down (ams, waw): isthmus explain --peer ams\n\n");
    }
}
