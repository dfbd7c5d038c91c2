//! The second reading of a link: of the feed's past, or of what a comparison with the peer finds.
//!
//! The comparison is the real one (`link/reconcile.rs`, `link/project.rs`): each question and each answer crosses the
//! network, may be lost, and meets a store that has changed since the last one.
use super::fault::Fault;
use super::site::Run;
use super::world::{Coming, World};
use isthmus::link::project::Projection;
use isthmus::link::reconcile::{Ask, Descent, Difference, Digest, Item, KeyRange};
use isthmus::link::{Change, Event, Survey};
use isthmus::store::Cursor;
use std::sync::Arc;
use storage_engine::version::{Version, VersionId};

/// Changes one read of the feed yields, and items of a page that is compared: small, so that there are several.
const BATCH: usize = 16;
const PAGE_ITEMS: usize = 48;
/// Items of one answer.
const ITEMS_MAX: usize = 20;
/// A page without an answer is compared again after this long.
const PAUSE_MS: u64 = 5_000;

/// Where a second reading stands.
#[derive(Debug)]
pub struct Reading {
    pub number: u64,
    survey: Survey,
    page: Option<(Descent, Option<String>)>,
}

/// What the other side says.
#[derive(Clone, Debug)]
pub enum Told {
    Digests(Vec<Digest>),
    Items { items: Vec<Item>, is_last: bool },
}

impl World {
    /// A link begins another reading, or ends the one it had.
    pub fn survey(&mut self, run: Run, survey: Option<Survey>) {
        let running = self.running(run);
        running.surveys += 1;
        let number = running.surveys;
        running.survey = survey.map(|survey| Reading { number, survey, page: None });
        if let Some(reading) = &running.survey {
            let fault = if reading.survey.compares { Fault::Compared } else { Fault::Existing };
            self.faults.fire(fault);
            self.soon(20, Coming::Survey { run, number });
        }
    }

    /// The reading of this number, if it goes on.
    fn reading(&mut self, run: Run, number: u64) -> Option<&mut Reading> {
        self.runs.get_mut(&run)?.survey.as_mut().filter(|reading| reading.number == number)
    }

    /// Reads on: a batch of the feed, or the next page of keys.
    pub fn survey_on(&mut self, run: Run, number: u64) -> Result<(), String> {
        let Some(reading) = self.reading(run, number) else { return Ok(()) };
        let survey = reading.survey.clone();
        let store = &self.sites[run.site].store;
        if survey.compares {
            let descent = self.page(run, &survey);
            if let Some(reading) = self.reading(run, number) {
                reading.page = Some(descent);
            }
            return self.ask(run, number);
        }
        if !store.knows(survey.cursor.as_ref()) {
            return self.expired(run);
        }
        let (events, cursor) = store.changes(survey.cursor.as_ref(), BATCH);
        let is_last = events.is_empty() || store.place(Some(&cursor)) >= store.place(Some(&survey.until));
        let changes = events.into_iter().map(|e| Change {
            version: Arc::new(e.version),
            pending_since: e.pending_since,
            traceparent: None,
        });
        self.found(run, number, changes.collect(), cursor, is_last)
    }

    /// The store has lost the link's place.
    pub fn expired(&mut self, run: Run) -> Result<(), String> {
        self.faults.fire(Fault::CursorExpired);
        self.running(run).is_read_due = false;
        let head = self.sites[run.site].store.head();
        self.step(run, Event::Expired { head })
    }

    /// A reading has found something, or come to its end.
    fn found(
        &mut self,
        run: Run,
        number: u64,
        changes: Vec<Change>,
        cursor: Cursor,
        is_last: bool,
    ) -> Result<(), String> {
        self.work += 1;
        if let Some(reading) = self.reading(run, number) {
            (reading.survey.cursor, reading.page) = (Some(cursor.clone()), None);
        }
        self.step(run, Event::Existing { changes, cursor, is_last })?;
        match self.reading(run, number) {
            Some(_) if is_last => self.running(run).survey = None,
            Some(_) => self.soon(20, Coming::Survey { run, number }),
            None => {}
        }
        Ok(())
    }

    /// What a rule compares of a site's own store.
    fn projection(&self, run: Run) -> Projection {
        Projection::of(&self.runs[&run].settings)
    }
    fn items(&self, site: usize, range: &KeyRange, project: impl Fn(&Version) -> Option<Item>) -> Vec<Item> {
        let held = self.sites[site].store.versions().map(|(_, v)| v).filter(|v| range.contains(&v.key));
        held.filter_map(project).collect()
    }

    /// A page ends behind the last version of a key.
    fn page(&self, run: Run, survey: &Survey) -> (Descent, Option<String>) {
        let projection = self.projection(run);
        let after = survey.cursor.as_ref().map(|cursor| String::from_utf8_lossy(&cursor.0).into_owned());
        let mut range = KeyRange { after, upto: None };
        let mut items = self.items(run.site, &range, |v| projection.item(v));
        if items.len() > PAGE_ITEMS {
            let last = items[PAGE_ITEMS - 1].key.clone();
            items.retain(|item| item.key <= last);
            range.upto = Some(last);
        }
        let end = range.upto.clone();
        (Descent::new(range, items), end)
    }

    /// The next question goes over, or the page is done.
    fn ask(&mut self, run: Run, number: u64) -> Result<(), String> {
        let Some(reading) = self.reading(run, number) else { return Ok(()) };
        let Some((descent, _)) = &reading.page else { return Ok(()) };
        let Some(ask) = descent.ask() else { return self.compared(run, number) };
        // Whatever is lost on the way, the page is compared again; what was asked before is then of an old page.
        self.at(self.now + PAUSE_MS + 4 * self.options.delay_ms, Coming::AskAgain { run, number, ask: ask.clone() });
        let is_cut = self.is_parted(run.site, run.peer) || !self.sites[run.peer].is_up;
        if !is_cut && (self.is_healing || !self.dice.chance(self.options.lost)) {
            self.carry(run.site, run.peer, Coming::Asked { run, number, ask });
        }
        Ok(())
    }

    /// No answer came: the page is compared anew.
    pub fn ask_again(&mut self, run: Run, number: u64, asked: &Ask) -> Result<(), String> {
        let Some(reading) = self.reading(run, number) else { return Ok(()) };
        let waits = reading.page.as_ref().is_some_and(|(descent, _)| descent.ask().as_ref() == Some(asked));
        if waits { self.survey_on(run, number) } else { Ok(()) }
    }

    /// The peer answers by what it holds now.
    pub fn asked(&mut self, run: Run, number: u64, ask: Ask) {
        if !self.sites[run.peer].is_up || self.is_parted(run.peer, run.site) || !self.runs.contains_key(&run) {
            return;
        }
        let projection = self.projection(run);
        let told = match &ask {
            Ask::Digests(ranges) => {
                let digest = |range| Digest::of(&self.items(run.peer, range, |v| projection.answer(v)));
                Told::Digests(ranges.iter().map(digest).collect())
            }
            Ask::Items { range, behind } => {
                let mut items = self.items(run.peer, range, |v| projection.answer(v));
                items.sort();
                let is_behind = |i: &Item, b: &(String, VersionId)| (&i.key, i.version_id) > (&b.0, b.1);
                items.retain(|item| behind.as_ref().is_none_or(|b| is_behind(item, b)));
                let is_last = items.len() <= ITEMS_MAX;
                items.truncate(ITEMS_MAX);
                Told::Items { items, is_last }
            }
        };
        self.carry(run.peer, run.site, Coming::Told { run, number, ask, told });
    }

    /// An answer, if it is to the question that is open.
    pub fn told(&mut self, run: Run, number: u64, ask: &Ask, told: Told) -> Result<(), String> {
        let Some(reading) = self.reading(run, number) else { return Ok(()) };
        let Some((descent, _)) = &mut reading.page else { return Ok(()) };
        if descent.ask().as_ref() != Some(ask) {
            return Ok(());
        }
        let fits = match told {
            Told::Digests(digests) => descent.digests(&digests),
            Told::Items { items, is_last } => descent.items(items, is_last),
        };
        fits.map_err(|misfit| format!("{}→{}: {misfit}", run.site, run.peer))?;
        self.ask(run, number)
    }

    /// A page is done: what the peer lacks is taken in.
    fn compared(&mut self, run: Run, number: u64) -> Result<(), String> {
        let Some(reading) = self.reading(run, number) else { return Ok(()) };
        let Some((descent, end)) = reading.page.take() else { return Ok(()) };
        let until = reading.survey.until.clone();
        let changes = self.lacking(run, descent.differences());
        let is_last = end.is_none();
        let cursor = end.map_or(until, |key| Cursor(key.into_bytes().into()));
        self.found(run, number, changes, cursor, is_last)
    }

    /// What this site holds of what differs; what only the peer holds is never pulled.
    fn lacking(&self, run: Run, differences: Vec<Difference>) -> Vec<Change> {
        let store = &self.sites[run.site].store;
        let held = differences.into_iter().filter_map(|difference| match difference {
            Difference::OnlyHere { key, version_id, .. } | Difference::Unlike { key, version_id, .. } => {
                store.get(&key, version_id)
            }
            Difference::OnlyThere { .. } => None,
        });
        let change = |v: &Version| Change {
            version: Arc::new(v.clone()),
            pending_since: v.max_hlc().millis(),
            traceparent: None,
        };
        held.map(change).collect()
    }

    /// A person has the whole bucket compared and what differs sent again (`verify --repair`); how much that was.
    pub fn repair(&mut self, run: Run) -> Result<usize, String> {
        let projection = self.projection(run);
        let range = KeyRange::default();
        let mut descent = Descent::new(range.clone(), self.items(run.site, &range, |v| projection.item(v)));
        while let Some(ask) = descent.ask() {
            let there = |range: &KeyRange| self.items(run.peer, range, |v| projection.answer(v));
            let fits = match ask {
                Ask::Digests(ranges) => {
                    descent.digests(&ranges.iter().map(|r| Digest::of(&there(r))).collect::<Vec<_>>())
                }
                Ask::Items { range, .. } => {
                    let mut items = there(&range);
                    items.sort();
                    descent.items(items, true)
                }
            };
            fits.map_err(|misfit| misfit.to_string())?;
        }
        let changes = self.lacking(run, descent.differences());
        for change in &changes {
            self.push(run, super::network::NOBODYS, &change.version)?;
        }
        Ok(changes.len())
    }
}
