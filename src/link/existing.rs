//! The pass over versions that were there before the rule covered them: how far it has come, and what is left out.
//!
//! It starts when the settings let more travel than before, reads the feed from its beginning up to where the
//! link stood then, and ends; its position is part of the checkpoint. Its changes give way to live ones: they
//! stand behind them in the queue and take at most half of the window. Where the feed has lost the link's place, the
//! pass compares every key with the peer instead, and its places are keys. Called by `machine`.
use super::lag::Pending;
use super::planted::{self, Planted};
use super::progress::Progress;
use super::{Existing as Kept, Millis, Reach, Scope, Since, Survey};
use storage_engine::feed::Cursor;

/// Batches of passes are numbered from here: more than one life of a link reads from the feed.
pub(super) const FIRST_PLACE: u64 = 1 << 62;

/// What the link knows of its past.
#[derive(Debug)]
pub(super) struct Existing {
    /// All versions in it are at the peer, on their way, or in the pass; `None`: only what changed since the start.
    covered: Option<Scope>,
    /// From when on, where `covered` is `None`.
    since: Option<Since>,
    pass: Option<Pass>,
    /// A pass of this life compared: places of `progress` may be keys, which are no floor.
    has_compared: bool,
    /// Of every pass of this life, so that rows of an earlier one still find their place.
    pub(super) progress: Progress,
    /// Taken in by the pass and not yet at the peer.
    pub(super) pending: Pending,
    /// Of these, in flight.
    pub(super) flying: usize,
    /// What the shell was last told.
    is_reading: bool,
}

#[derive(Debug)]
struct Pass {
    until: Cursor,
    except: Option<Scope>,
    /// Everything up to `until` was taken in.
    is_read: bool,
    compares: bool,
}

impl Existing {
    /// As the journal kept it; `scope`: what the settings cover, which holds where the journal says nothing.
    pub(super) fn load(reach: Option<Reach>, scope: Option<Scope>) -> Self {
        let Reach { covered, since, existing } = reach.unwrap_or(Reach { covered: scope, ..Reach::default() });
        let cursor = existing.as_ref().and_then(|e| e.cursor.clone());
        let has_compared = existing.as_ref().is_some_and(|e| e.compares);
        let pass =
            existing.map(|Kept { until, except, compares, .. }| Pass { until, except, is_read: false, compares });
        let progress = Progress::numbered_from(FIRST_PLACE, cursor);
        let (pending, flying, is_reading) = (Pending::default(), 0, false);
        Existing { covered, since, pass, has_compared, progress, pending, flying, is_reading }
    }

    /// What the journal is to keep.
    pub(super) fn reach(&self) -> Reach {
        let kept = |p: &Pass| Kept {
            cursor: self.progress.cursor(),
            until: p.until.clone(),
            except: p.except.clone(),
            compares: p.compares,
        };
        let (covered, since) = (self.covered.clone(), self.since.clone());
        Reach { covered, since, existing: self.pass.as_ref().map(kept) }
    }

    /// The settings cover `scope` from `now` on; `settled` is where the link stands. What is newly covered and lies
    /// before that is read again, if it is wanted. Whatever was taken in must have been forgotten before.
    pub(super) fn cover(&mut self, scope: Scope, settled: Option<Cursor>, is_wanted: bool, now: Millis) {
        if self.is_comparing() {
            return self.cover_comparing(scope, is_wanted);
        }
        let was = self.covered.take();
        // Sent without a gap until now: what a pass has yet to bring is not.
        let sent = match &self.pass {
            Some(pass) => pass.except.clone(),
            None => was.clone(),
        };
        if !is_wanted {
            self.pass = None;
            let was = self.since.take();
            let remade = was.as_ref().and_then(|s| s.remade);
            let at = was.filter(|s| scope.is_within(&s.scope)).map_or(now, |s| s.at);
            match sent {
                Some(sent) if scope.is_within(&sent) => self.covered = Some(scope),
                _ => self.since = Some(Since { at, scope, remade }),
            }
            return;
        }
        self.since = None;
        let is_widened =
            was.as_ref().is_none_or(|was| !scope.is_within(was)) && !planted::has(Planted::WidenedSendsNothing);
        // What the scope to come leaves out has a gap from now on.
        let sent = sent.filter(|sent| sent.is_within(&scope));
        match (settled, &mut self.pass) {
            (Some(until), _) if is_widened => {
                self.progress.restart();
                self.pass = Some(Pass { until, except: sent, is_read: false, compares: false });
            }
            (_, Some(pass)) => pass.except = sent,
            // Nothing more is covered, or the link is at the beginning of the feed: all comes by itself.
            (_, None) => {}
        }
        self.covered = Some(scope);
    }

    /// A comparison brings what the feed lost, so it goes on whatever is wanted now: from the first key again, where
    /// it has passed over keys under a narrower scope.
    fn cover_comparing(&mut self, scope: Scope, is_wanted: bool) {
        let was = match &self.since {
            // Of a rule that left existing objects where they are, and no longer does.
            Some(_) if is_wanted => None,
            Some(since) => Some(&since.scope),
            None => self.covered.as_ref(),
        };
        if was.is_none_or(|was| !scope.is_within(was)) {
            self.progress.restart();
        }
        match self.since.take().filter(|_| !is_wanted) {
            // What it came to cover later it sends from as early as the rest: too much rather than too little.
            Some(since) => self.since = Some(Since { scope, ..since }),
            None => self.covered = Some(scope),
        }
    }

    /// The feed lost the link's place and goes on at `until`: every key is compared. Whatever was taken in must have
    /// been forgotten before.
    pub(super) fn compare(&mut self, until: Cursor) {
        self.progress.restart();
        self.pass = Some(Pass { until, except: None, is_read: false, compares: true });
        self.has_compared = true;
    }

    /// The peer holds all of `held`, whatever its age: where the settings cover no more (`scope`), nothing is left of what a
    /// bucket that was made again held by then. A rule that leaves existing objects where they are goes on doing so.
    pub(super) fn covered_by(&mut self, held: &Scope, scope: Scope) {
        if self.remade().is_some() && self.pass.is_none() && scope.is_within(held) {
            (self.since, self.covered) = (None, Some(scope));
        }
    }
    /// The generation of the rule when it was seen that the bucket had been made again.
    pub(super) fn remade(&self) -> Option<u64> {
        self.since.as_ref()?.remade
    }
    /// Whether the pass compares with the peer.
    pub(super) fn is_comparing(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.compares)
    }

    /// What was not changed since then is left where it is.
    pub(super) fn since(&self) -> Option<Millis> {
        self.since.as_ref().map(|since| since.at)
    }
    /// What was sent before the pass began: passed over by it.
    pub(super) fn except(&self) -> Option<&Scope> {
        self.pass.as_ref()?.except.as_ref()
    }
    /// Whether something read by a pass may not be at the peer: it, or a row of it, holds the floor.
    pub(super) fn holds_floor(&self) -> bool {
        self.pass.is_some() || self.progress.has_holds()
    }
    /// Everything before it is at the peer, as far as passes go: the beginning, where their places are keys.
    pub(super) fn floor(&self) -> Option<Cursor> {
        if self.has_compared { None } else { self.progress.floor() }
    }
    /// Whether the shell reads for the pass, as far as it was told.
    pub(super) fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// The pass has been read to its end.
    pub(super) fn end_of_reading(&mut self) {
        if let Some(pass) = &mut self.pass {
            pass.is_read = true;
        }
    }
    /// A pass of which every version is at the peer or in a row is over.
    pub(super) fn close(&mut self) {
        if self.pass.as_ref().is_some_and(|p| p.is_read) && self.progress.is_settled() {
            self.pass = None;
        }
    }
    /// Forgets what was taken in; returns the place that rows from it hold now, and whether the shell must be told.
    pub(super) fn rewind(&mut self) -> (Option<u64>, bool) {
        (self.pending, self.flying) = (Pending::default(), 0);
        if let Some(pass) = &mut self.pass {
            pass.is_read = false;
        }
        (self.progress.rewind(), std::mem::take(&mut self.is_reading))
    }

    /// What the shell must be told of reading, if anything: `has_room` for more.
    pub(super) fn steer(&mut self, has_room: bool) -> Option<Option<Survey>> {
        let wanted = self.pass.as_ref().filter(|p| !p.is_read && has_room);
        if wanted.is_some() == self.is_reading {
            return None;
        }
        self.is_reading = wanted.is_some();
        Some(wanted.map(|p| self.survey_of(p)))
    }

    /// Where the pass stands, for what is left of it to be counted.
    pub(super) fn survey(&self) -> Option<Survey> {
        let pass = self.pass.as_ref().filter(|p| !p.is_read)?;
        Some(self.survey_of(pass))
    }
    fn survey_of(&self, pass: &Pass) -> Survey {
        Survey { cursor: self.progress.taken().cloned(), until: pass.until.clone(), compares: pass.compares }
    }
    /// Newest commit time up to which the pass has come; everything, without one, and nothing where it goes by keys.
    pub(super) fn through(&self) -> Millis {
        match &self.pass {
            Some(pass) if pass.compares => 0,
            Some(_) => self.progress.newest_folded(),
            None => Millis::MAX,
        }
    }
}
