//! What a drill asks of the peer, and its answers <-> fields. Pure.
//!
//! Who may ask is decided by the receiver (`replicator/drill/answer.rs`): nothing without the peer's `drills` grant.
use super::{AtMost, Error};
use crate::drill::Cut;
use crate::replicator::lateness::Judged;
use storage_engine::wire::Fields;

/// One request of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillAsk {
    /// The drill's id; it names the canary.
    pub id: String,
    pub act: Act,
    /// Fields of a later version.
    pub unknown: Fields,
}

/// What is to be done at the side that answers, with the canary of this drill alone, or with the links it was staged on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Could a drill begin?
    Check,
    /// Make the canary; whatever happens it goes after so long.
    Prepare { ttl_millis: u64 },
    /// The fault from now on, for so long at most; neither: it is lifted. The cut is that of the side that answers; one
    /// in one direction is for peers that name the ability `super::ONE_WAY_DRILLS`.
    Fault { cut: Cut, is_fenced: bool, ttl_millis: u64 },
    /// Write, read back, list and delete this key.
    Probe { key: String },
    /// How do the canary's link back and its comparison stand?
    Look,
    /// Compare what the link back has brought.
    Verify,
    /// Remove the canary, or what a live drill wrote.
    End,
    /// Take part in a live drill of these links; whatever happens it ends after so long. For peers that name the ability
    /// `super::LIVE_DRILLS`.
    Stage { ttl_millis: u64, links: Vec<LiveLink> },
    /// Of a later version: refused.
    Unknown(u8),
}

/// A link that a live drill acts on, as the side tells of it that pushes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveLink {
    /// Its name in frames.
    pub link: String,
    /// Bucket at its beginning, and at its end.
    pub from: String,
    pub to: String,
    /// Keys that it brings.
    pub prefix: String,
    /// Whether it brings delete markers, and permanent deletes: the drill's own would be refused otherwise.
    pub markers: bool,
    pub purges: bool,
}

type Row = (String, String, String, String, bool, bool);

impl LiveLink {
    fn rows(links: &[LiveLink]) -> Vec<Row> {
        let row = |l: &LiveLink| (l.link.clone(), l.from.clone(), l.to.clone(), l.prefix.clone(), l.markers, l.purges);
        links.iter().map(row).collect()
    }
    fn of(AtMost(rows): AtMost<LINKS_MAX, Row>) -> Vec<LiveLink> {
        let link = |(link, from, to, prefix, markers, purges)| LiveLink { link, from, to, prefix, markers, purges };
        rows.into_iter().map(link).collect()
    }
}

/// How the side that answers stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrillState {
    /// Its clock, Unix milliseconds.
    pub now_millis: u64,
    /// How long its certificate holds; absent: not asked for.
    pub certificate_millis: Option<u64>,
    /// How old the oldest change is that the link back has not brought, measured after the question came; absent: not
    /// known, or a peer of an earlier build.
    pub lag_millis: Option<u64>,
    /// What the link back has not brought, measured after the question came; absent: not known.
    pub backlog_versions: Option<u64>,
    /// Verdict of the comparison of the link back, and the differences that stand; absent: none was begun.
    pub verdict: Option<String>,
    pub differences: u64,
    pub versions: u64,
    /// The canary, or what a live drill wrote, is not there any more.
    pub is_gone: bool,
    /// Of a live drill: the links back.
    pub links: Vec<LiveLink>,
    /// How the versions of the links back came out against the objective, added up; absent: not known, or a peer of an
    /// earlier build. So is the next one.
    pub judged: Option<Judged>,
    /// The longest that a version of the links back has waited since the drill began there.
    pub longest_wait_millis: Option<u64>,
}

/// Links of one live drill in a frame at most.
const LINKS_MAX: usize = 256;

/// Acts by number; never reused for another meaning.
mod act {
    pub const CHECK: u8 = 1;
    pub const PREPARE: u8 = 2;
    pub const FAULT: u8 = 3;
    pub const PROBE: u8 = 4;
    pub const LOOK: u8 = 5;
    pub const VERIFY: u8 = 6;
    pub const END: u8 = 7;
    pub const STAGE: u8 = 8;
}

/// Directions of a cut by number; absent: both.
mod way {
    pub const OUTBOUND: u8 = 1;
    pub const INBOUND: u8 = 2;
}

impl DrillAsk {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        let number = match &self.act {
            Act::Check => act::CHECK,
            Act::Prepare { ttl_millis } => {
                f.put(3, ttl_millis);
                act::PREPARE
            }
            Act::Fault { cut, is_fenced, ttl_millis } => {
                f.put(3, ttl_millis);
                f.put(4, &cut.is_some());
                f.put(5, is_fenced);
                f.put_some(7, &cut.is_one_way().then_some(if cut.outbound { way::OUTBOUND } else { way::INBOUND }));
                act::FAULT
            }
            Act::Probe { key } => {
                f.put(6, key);
                act::PROBE
            }
            Act::Look => act::LOOK,
            Act::Verify => act::VERIFY,
            Act::End => act::END,
            Act::Stage { ttl_millis, links } => {
                f.put(3, ttl_millis);
                f.put(8, &LiveLink::rows(links));
                act::STAGE
            }
            Act::Unknown(number) => *number,
        };
        f.put(1, &self.id);
        f.put(2, &number);
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        let act = match f.need::<u8>(2)? {
            act::CHECK => Act::Check,
            act::PREPARE => Act::Prepare { ttl_millis: f.need(3)? },
            act::FAULT => {
                let cut = match (f.need::<bool>(4)?, f.take::<u8>(7)?) {
                    (false, _) => Cut::NONE,
                    (true, None) => Cut::BOTH,
                    (true, Some(way::OUTBOUND)) => Cut { outbound: true, inbound: false },
                    (true, Some(way::INBOUND)) => Cut { outbound: false, inbound: true },
                    (true, Some(other)) => return Err(Error::Malformed(format!("a cut in direction {other}"))),
                };
                Act::Fault { ttl_millis: f.need(3)?, cut, is_fenced: f.need(5)? }
            }
            act::PROBE => Act::Probe { key: f.need(6)? },
            act::LOOK => Act::Look,
            act::VERIFY => Act::Verify,
            act::END => Act::End,
            act::STAGE => Act::Stage { ttl_millis: f.need(3)?, links: LiveLink::of(f.need(8)?) },
            other => Act::Unknown(other),
        };
        Ok(DrillAsk { id: f.need(1)?, act, unknown: f })
    }
}

impl DrillState {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = Fields::default();
        f.put(1, &self.now_millis);
        f.put_some(2, &self.certificate_millis);
        f.put_some(3, &self.backlog_versions);
        f.put_some(4, &self.verdict);
        f.put(5, &self.differences);
        f.put(6, &self.versions);
        f.put(7, &self.is_gone);
        f.put_some(8, &self.lag_millis);
        if !self.links.is_empty() {
            f.put(9, &LiveLink::rows(&self.links));
        }
        f.put_some(10, &self.judged.map(|j| (j.since, j.in_time, j.late)));
        f.put_some(11, &self.longest_wait_millis);
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        Ok(DrillState {
            now_millis: f.need(1)?,
            certificate_millis: f.take(2)?,
            backlog_versions: f.take(3)?,
            verdict: f.take(4)?,
            differences: f.need(5)?,
            versions: f.need(6)?,
            is_gone: f.need(7)?,
            lag_millis: f.take(8)?,
            links: LiveLink::of(f.take(9)?.unwrap_or_default()),
            judged: f.take(10)?.map(|(since, in_time, late)| Judged { since, in_time, late }),
            longest_wait_millis: f.take(11)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::reconcile::Answer;
    use super::super::{Frame, Message};
    use super::*;
    use bytes::BytesMut;

    const GOLDEN: &str = include_str!("../../../tests/golden/peer_frames_drill.txt");

    fn ask(act: Act) -> Message {
        Message::Drill(Box::new(DrillAsk { id: "0123456789ab".into(), act, unknown: Fields::default() }))
    }

    fn answer(state: DrillState) -> Message {
        Message::Answer(Answer::Drill(Box::new(state)))
    }

    fn examples() -> Vec<(&'static str, Message)> {
        let one_way = |cut| ask(Act::Fault { cut, is_fenced: false, ttl_millis: 40_000 });
        let state = DrillState {
            now_millis: 1_700_000_000_000,
            certificate_millis: Some(86_400_000),
            lag_millis: None,
            backlog_versions: Some(7),
            verdict: Some("equal".into()),
            differences: 0,
            versions: 9,
            is_gone: false,
            links: Vec::new(),
            judged: None,
            longest_wait_millis: None,
        };
        let judged = Some(Judged { since: 1_700_000_000_000, in_time: 4_300, late: 12 });
        let link = LiveLink {
            link: "r/b".into(),
            from: "orders".into(),
            to: "orders-ams".into(),
            prefix: "a/".into(),
            markers: true,
            purges: false,
        };
        vec![
            ("check", ask(Act::Check)),
            ("prepare", ask(Act::Prepare { ttl_millis: 150_000 })),
            ("fault", ask(Act::Fault { cut: Cut::BOTH, is_fenced: false, ttl_millis: 40_000 })),
            ("probe", ask(Act::Probe { key: "probes/1".into() })),
            ("look", ask(Act::Look)),
            ("verify", ask(Act::Verify)),
            ("end", ask(Act::End)),
            ("answer_drill", answer(state.clone())),
            ("fault_outbound", one_way(Cut { outbound: true, inbound: false })),
            ("fault_inbound", one_way(Cut { outbound: false, inbound: true })),
            ("answer_lag", answer(DrillState { lag_millis: Some(250), ..state.clone() })),
            ("stage", ask(Act::Stage { ttl_millis: 150_000, links: vec![link.clone()] })),
            ("answer_stage", answer(DrillState { links: vec![link], ..state.clone() })),
            ("answer_cost", answer(DrillState { judged, longest_wait_millis: Some(74_120), ..state })),
        ]
    }

    #[test]
    fn frames_of_drills_have_the_bytes_of_their_first_release_and_are_read_back() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut now = String::new();
        for (name, message) in examples() {
            let frame = Frame { stream: 3, message };
            let bytes = frame.encode().unwrap();
            now += &format!("{name} {}\n", hex(&bytes));
            assert_eq!(Frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap().0, frame);
        }
        assert_eq!(now, GOLDEN, "frames changed on the wire");
    }

    #[test]
    fn a_step_of_a_later_version_is_read_as_such_and_not_taken_for_another() {
        let bytes = Frame { stream: 3, message: ask(Act::Unknown(200)) }.encode().unwrap();
        let (frame, _) = Frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        assert_eq!(frame.message, ask(Act::Unknown(200)));
    }
}
