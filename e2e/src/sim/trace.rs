//! What happened, as a hash of everything and the last fifty events in words.
use super::dice::mix;
use std::collections::VecDeque;
use std::fmt;

/// Events kept for a failure's report.
const KEPT: usize = 50;

/// One line: simulated milliseconds since the start, who, to whom, what, and two numbers.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    at: u64,
    site: usize,
    peer: usize,
    what: &'static str,
    number: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} ms  {}→{}  {:<14} {}", self.at, self.site, self.peer, self.what, self.number)
    }
}

/// The trace of one run.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub hash: u64,
    last: VecDeque<Line>,
}

impl Trace {
    pub fn add(&mut self, at: u64, site: usize, peer: usize, what: &'static str, number: u64) {
        let word = what.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let line = at ^ word.rotate_left(17) ^ number.rotate_left(34) ^ ((site * 64 + peer) as u64).rotate_left(51);
        self.hash = mix(self.hash ^ line);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Line { at, site, peer, what, number });
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
