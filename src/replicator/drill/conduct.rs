//! Carries a drill out: performs each step that `drill/machine.rs` orders, here and over the line to the peer, and
//! answers it with what it found. It decides nothing about what comes next; one task a drill, spawned by [`Replicator`].
//!
//! Dropped halfway, nothing is lifted by it: each site's own deadline does that (`canary.rs`).
use super::client::Client;
use super::live::Live;
use super::{Acted, Driven, Kept, Place, Replicator};
use crate::drill::cost::{Cost, Way};
use crate::drill::ledger::Counted;
use crate::drill::machine::{Event, Found, Machine, Order, Step};
use crate::drill::report::{Report, Verdict};
use crate::drill::trend::Trend;
use crate::drill::{Cut, Direction, Fence, Plan, Type, place};
use crate::peer::client;
use crate::peer::frame::drill::{Act, DrillAsk, DrillState};
use crate::peer::frame::reconcile::Answer;
use crate::replicator::far::FarEnd;
use crate::replicator::lateness::Judged;
use crate::replicator::report::{LastDrill, LinkReport};
use crate::replicator::verbs::Refused;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long the workload runs before the fault: the lag that is shown is this long's.
const BASELINE: Duration = Duration::from_secs(3);
/// How long the canary's links may take to run.
const LINKS_UP: Duration = Duration::from_secs(30);
/// How long one step at the peer may take to be answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A fault outlives what is planned of it by no more, should nobody lift it.
const FAULT_SPARE: Duration = Duration::from_secs(10);
/// How long the way that is not cut may take to bring all there is: less than [`FAULT_SPARE`], so that the cut stands.
const OTHER_WAY: Duration = Duration::from_secs(8);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// What waits when a live drill is ended before it caught up gets so long to go its way.
const SETTLES: Duration = Duration::from_secs(5);
/// How long the peer may take to remove what there is.
const GONE: Duration = Duration::from_secs(40);

/// The peer of a drill, over whichever line stands.
pub(super) struct Peer<'a> {
    host: &'a Replicator,
    plan: &'a Plan,
}

impl<'a> Peer<'a> {
    pub(super) fn new(host: &'a Replicator, plan: &'a Plan) -> Self {
        Peer { host, plan }
    }

    /// Asks for one step, again while the line is broken; every step may be asked for twice.
    pub(super) async fn ask(&self, act: Act, patience: Duration) -> Result<DrillState, String> {
        let by = Instant::now() + patience;
        loop {
            let failed = match self.ask_once(act.clone(), by).await {
                Ok(Answer::Drill(state)) => return Ok(*state),
                Ok(Answer::Refused(why)) => return Err(format!("the peer refuses: {why}")),
                Ok(Answer::Unavailable(why)) => why,
                Ok(_) => return Err("the peer's answer does not fit the question".into()),
                Err(Some(e)) if !e.is_peer_gone() => return Err(e.to_string()),
                Err(Some(e)) => e.to_string(),
                Err(None) => "the peer is down".into(),
            };
            if Instant::now() + LOOK >= by {
                return Err(failed);
            }
            sleep(LOOK).await;
        }
    }

    /// The line to it, while it stands.
    pub(super) fn line(&self) -> Option<Arc<client::Connection>> {
        match self.host.state().lines.get(&self.plan.peer).map(|l| l.standing.borrow().clone()) {
            Some(Some(FarEnd::Site(line))) => Some(line),
            _ => None,
        }
    }

    async fn ask_once(&self, act: Act, by: Instant) -> Result<Answer, Option<client::Error>> {
        let line = self.line().ok_or(None)?;
        let ask = DrillAsk { id: self.plan.id.clone(), act, unknown: Default::default() };
        match tokio::time::timeout_at(by, line.ask_drill(ask)).await {
            Ok(answered) => answered.map_err(Some),
            Err(_) => Err(None),
        }
    }
}

impl Replicator {
    /// From now on this process drives drills and takes part in those of its peers; reports are kept in `folder`.
    pub fn open_drills(self: &Arc<Self>, folder: PathBuf) {
        if self.drills.host.set((Arc::downgrade(self), Kept::new(folder))).is_ok() {
            let (host, stop) = (self.clone(), self.stopping.clone());
            self.tasks.spawn(async move {
                // Figures of a drill outlive the process that drove it.
                for report in host.drill_reports().await.iter().rev().filter(|report| report.is_over()) {
                    host.drilled(report);
                }
                host.keep_parts(stop).await;
            });
        }
    }

    /// Shows what is left of a drill that is over.
    fn drilled(&self, report: &Report) {
        self.shared.metrics.drilled(report);
        self.drills.last.set(report.ended_at.map(|ended_at| LastDrill {
            id: report.plan.id.clone(),
            peer: report.plan.peer.clone(),
            kind: report.plan.kind.name().into(),
            verdict: report.verdict.word().into(),
            ended_at,
        }));
    }

    /// Begins a drill, or says why it was refused; the report shows how far it is.
    ///
    /// # Errors
    /// [`Refused`]: what is asked for cannot be done by anybody.
    pub async fn drill(self: &Arc<Self>, plan: Plan) -> Result<Report, Refused> {
        plan.check().map_err(Refused::Unknown)?;
        let now = self.shared.clock.now_millis();
        let under_way = self.driven_report().filter(|report| !report.is_over());
        let fits = match under_way {
            Some(other) => Err(format!("drill {} is under way", other.plan.id)),
            None => self.preflight(&plan).await?,
        };
        if let Err(why) = fits {
            return Ok(Report::refused(plan, &self.site_id, now, why));
        }
        let (show, shown) = watch::channel(Report::begun(plan.clone(), &self.site_id, now));
        let abort = CancellationToken::new();
        {
            let mut driven = self.drills.driven();
            if let Some(other) = driven.as_ref().map(|d| d.shown.borrow().clone()).filter(|r| !r.is_over()) {
                let why = format!("drill {} is under way", other.plan.id);
                return Ok(Report::refused(plan, &self.site_id, now, why));
            }
            *driven = Some(Driven { shown: shown.clone(), abort: abort.clone() });
        }
        let conductor = Conductor {
            host: self.clone(),
            show,
            client: None,
            machine: Machine::new(plan.clone()),
            plan,
            before: None,
            cost: None,
        };
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(conductor.run(abort)));
        Ok(shown.borrow().clone())
    }

    /// A drill of this site: the one that runs or ran last, or one whose report is kept.
    pub async fn drill_report(&self, id: Option<&str>) -> Option<Report> {
        let is_it = |report: &Report| id.is_none_or(|id| report.plan.id == id);
        match self.driven_report().filter(is_it) {
            Some(report) => Some(report),
            None => self.drill_reports().await.into_iter().find(is_it),
        }
    }

    /// All drills that this site drove, newest first.
    pub async fn drill_reports(&self) -> Vec<Report> {
        let mut all = match self.drills.host.get() {
            Some((_, kept)) => kept.list().await.unwrap_or_default(),
            None => Vec::new(),
        };
        if let Some(report) = self.driven_report() {
            all.retain(|other| other.plan.id != report.plan.id);
            all.insert(0, report);
        }
        all
    }

    /// Ends this drill, where this process drives it, once cancelled.
    pub fn drill_stop(&self, id: &str) -> Option<CancellationToken> {
        let driven = self.drills.driven();
        driven.as_ref().filter(|d| d.shown.borrow().plan.id == id).map(|d| d.abort.clone())
    }

    /// Ends the drill that runs; and where none does, removes what a former process left, here and at its peer.
    ///
    /// # Errors
    /// [`Refused`]: there is nothing to end.
    pub async fn abort_drill(self: &Arc<Self>) -> Result<String, Refused> {
        if let Some(driven) = self.drills.driven().as_ref().filter(|d| !d.shown.borrow().is_over()) {
            driven.abort.cancel();
            return Ok(format!("drill {} ends now", driven.shown.borrow().plan.id));
        }
        let left = self.drills.parts().iter().map(|(id, part)| (id.clone(), part.peer.clone())).next();
        let Some((id, peer)) = left else { return Err(Refused::Unknown("no drill is under way here".into())) };
        self.remove_part(&id).await.map_err(|e| Refused::Unavailable(e.to_string()))?;
        let plan = Plan { peer, ..Plan::of_a_former_life(&id) };
        // It may be the peer's own drill, which ends by itself when its part here is gone.
        let told = Peer::new(self, &plan).ask(Act::End, PATIENCE).await;
        let there = told.err().map_or(String::new(), |why| format!("; there it goes at its deadline: {why}"));
        Ok(format!("what drill {id} left is gone here{there}"))
    }

    fn driven_report(&self) -> Option<Report> {
        self.drills.driven().as_ref().map(|d| d.shown.borrow().clone())
    }
}

/// One drill under way.
pub(super) struct Conductor {
    pub(super) host: Arc<Replicator>,
    pub(super) plan: Plan,
    pub(super) machine: Machine,
    show: watch::Sender<Report>,
    pub(super) client: Option<Client>,
    /// How versions had come out just before the fault, here and there; and what it cost, once that is counted.
    before: Option<[Option<Judged>; 2]>,
    cost: Option<Cost>,
}

impl Conductor {
    async fn run(mut self, abort: CancellationToken) {
        let deadline = Instant::now() + Duration::from_millis(self.plan.deadline_millis);
        tracing::info!(drill = self.plan.id, peer = self.plan.peer, kind = self.plan.kind.name(), "A drill begins.");
        let mut order = self.machine.step(self.now(), Event::Begin);
        while let Order::Do(step) = order {
            let (machine, counted) = (self.machine.clone(), self.counted());
            self.show.send_modify(|report| report.show(&machine, counted));
            self.host.shared.metrics.drills_at(&self.plan, step);
            let may_stop = step != Step::CleanUp;
            let event = tokio::select! {
                done = self.perform(step) => match done {
                    Ok(found) => Event::Done(found),
                    Err(why) => Event::Failed(why),
                },
                () = abort.cancelled(), if may_stop => Event::Abort,
                () = sleep_until(deadline), if may_stop => Event::Deadline,
            };
            order = self.machine.step(self.now(), event);
        }
        let (machine, counted, now) = (self.machine.clone(), self.counted(), self.now());
        let mut report = self.show.borrow().clone();
        report.conclude(&machine, counted, now);
        report.cost = self.cost;
        report.trend = Trend::of(&report, &self.host.drill_reports().await);
        if let Some((_, kept)) = self.host.drills.host.get()
            && let Err(e) = kept.keep(&report).await
        {
            tracing::warn!(drill = self.plan.id, error = %e, "The report of a drill could not be kept; it is shown until the process ends.");
        }
        self.host.drilled(&report);
        let (verdict, reason) = (report.verdict.word(), report.reason.clone());
        match report.verdict {
            Verdict::Pass => tracing::info!(drill = self.plan.id, verdict, "A drill ended."),
            _ => tracing::warn!(drill = self.plan.id, verdict, reason, "A drill ended."),
        }
        self.show.send_replace(report);
    }

    pub(super) fn now(&self) -> u64 {
        self.host.shared.clock.now_millis()
    }

    fn counted(&self) -> Counted {
        self.client.as_ref().map(|c| c.ledger().counted()).unwrap_or_default()
    }

    fn peer(&self) -> Peer<'_> {
        Peer::new(&self.host, &self.plan)
    }

    async fn perform(&mut self, step: Step) -> Result<Found, String> {
        match step {
            Step::Prepare => self.prepare().await,
            Step::Baseline => {
                self.client = Some(Client::start(self.host.clone(), &self.plan));
                sleep(BASELINE).await;
                match self.counted() {
                    told if told.puts == 0 => Err("no write of the workload was acked".into()),
                    _ => {
                        let [here, there] = self.both().await;
                        self.before = Some([here.judged, there.judged]);
                        Ok(Found::Nothing)
                    }
                }
            }
            Step::Cut => self.cut().await,
            Step::Fence => self.fence().await,
            Step::Drain => self.drain().await,
            Step::Takeover => self.take_over().await,
            Step::Measure => self.measure().await,
            Step::Hold => self.hold().await,
            Step::FailBack => self.fail_back().await,
            Step::Heal => self.heal().await,
            Step::CatchUp => self.drained(true).await.map(|()| Found::Nothing),
            Step::Verify => {
                self.count_cost().await;
                self.verify().await
            }
            Step::CleanUp => self.clean_up().await,
        }
    }

    async fn prepare(&self) -> Result<Found, String> {
        match self.plan.is_live() {
            true => self.prepare_live().await,
            false => self.prepare_canary().await,
        }
    }

    /// Both sites find the links that are meant; nothing is changed yet.
    async fn prepare_live(&self) -> Result<Found, String> {
        let (id, peer, ttl_millis) = (&self.plan.id, &self.plan.peer, self.plan.deadline_millis);
        let own = self.host.named_links(&self.plan)?;
        let links: Vec<_> = own.iter().map(|own| own.told.clone()).collect();
        let places: Vec<_> =
            links.iter().map(|l| Place { bucket: l.from.clone(), prefix: place(&l.prefix, id) }).collect();
        let back = self.peer().ask(Act::Stage { ttl_millis, links }, PATIENCE).await?.links;
        let doc = self.host.state().in_force.peers.get(peer).cloned();
        let doc = doc.ok_or_else(|| format!("Peer {peer} is not in force any more"))?;
        for link in &back {
            self.host.takes(&doc, id, link).await?;
        }
        let incoming = back.into_iter().map(|link| link.link).collect();
        let live = Live { links: own.into_iter().map(|own| own.acted).collect(), incoming, places };
        self.host.stage(id, peer, Duration::from_millis(ttl_millis), true, live).await?;
        Ok(Found::Nothing)
    }

    async fn prepare_canary(&self) -> Result<Found, String> {
        let (id, peer) = (&self.plan.id, &self.plan.peer);
        let ttl = Duration::from_millis(self.plan.deadline_millis);
        self.host.make_canary(id, peer, ttl, true).await.map_err(|e| format!("make the canary here: {e}"))?;
        let ttl_millis = self.plan.deadline_millis;
        self.peer().ask(Act::Prepare { ttl_millis }, PATIENCE).await?;
        let up = async {
            while self.shown().is_none_or(|all| all.iter().any(|s| s.state != "live" || s.lag_seconds.is_none()))
                || self.peer().ask(Act::Look, PATIENCE).await?.backlog_versions.is_none()
            {
                sleep(LOOK).await;
            }
            Ok(())
        };
        let late = |_| "the canary's links do not run within 30s".to_string();
        timeout(LINKS_UP, up).await.map_err(late)?.map(|()| Found::Nothing)
    }

    /// What the drill's links from here show; `None`: one of them does not run.
    fn shown(&self) -> Option<Vec<LinkReport>> {
        let acted = self.host.drills.acted(&self.plan.id);
        let state = self.host.state();
        let shown = |acted: &Acted| state.links.get(&acted.name).map(|link| link.shown.borrow().clone());
        acted.iter().map(shown).collect()
    }

    fn shown_lag_millis(&self) -> Option<u64> {
        // It grows until it is measured again.
        let lag = |shown: &LinkReport| {
            let at = shown.oldest_pending.map_or(0, |since| shown.measured_at.saturating_sub(since));
            shown.lag_seconds.map(|_| at)
        };
        let lags: Option<Vec<_>> = self.shown()?.iter().map(lag).collect();
        lags?.into_iter().max()
    }

    pub(super) fn fault_ttl(&self) -> Duration {
        Duration::from_millis(self.plan.duration_millis) + FAULT_SPARE
    }

    async fn cut(&self) -> Result<Found, String> {
        let cut = self.plan.direction.cut();
        let fence = if self.plan.kind == Type::SiteLoss { Fence::All } else { Fence::None };
        let ttl = self.fault_ttl();
        let (at, shown_lag_millis) = (self.now(), self.shown_lag_millis());
        self.host.inject(&self.plan.id, cut, fence, ttl).await?;
        let ttl_millis = ttl.as_millis() as u64;
        self.peer().ask(Act::Fault { cut: cut.mirrored(), is_fenced: false, ttl_millis }, PATIENCE).await?;
        Ok(Found::Fault { at, shown_lag_millis })
    }

    async fn fence(&self) -> Result<Found, String> {
        let (at, shown_lag_millis) = (self.now(), self.shown_lag_millis());
        // Nobody knows how long it drains: it stays for as long as the canary, at most.
        let ttl = Duration::from_millis(self.plan.deadline_millis);
        self.host.inject(&self.plan.id, Cut::NONE, Fence::Writes, ttl).await?;
        if let Some(client) = &self.client {
            client.quiet().await;
        }
        Ok(Found::Fault { at, shown_lag_millis })
    }

    /// How the drill's links stand here and there; a peer that does not answer says nothing.
    async fn both(&self) -> [DrillState; 2] {
        let there = self.peer().ask(Act::Look, SETTLES).await.unwrap_or_default();
        [self.host.look(&self.plan.id).await, there]
    }

    /// What the fault cost in service level until now; nothing before there was one.
    async fn count_cost(&mut self) {
        let (Some([before_here, before_there]), Some(_)) = (self.before, self.machine.figures.fault_at) else { return };
        let [here, there] = self.both().await;
        let way = |before: Option<Judged>, after: Option<Judged>| Way::between(before?, after?);
        let longest = here.longest_wait_millis.zip(there.longest_wait_millis).map(|(a, b)| a.max(b));
        self.cost = Some(Cost::new(way(before_here, here.judged), way(before_there, there.judged), longest));
    }

    /// Waits until nothing is under way from here, and `both` ways where asked for, by measurements younger than now; live,
    /// where clients go on, until all there was is at the other side.
    async fn drained(&self, both: bool) -> Result<(), String> {
        if self.plan.is_live() {
            let began = Instant::now();
            self.brought_since(began, Side::Here).await?;
            return if both { self.brought_since(began, Side::There).await } else { Ok(()) };
        }
        loop {
            let here = self.host.look(&self.plan.id).await;
            let there = match both {
                true => self.peer().ask(Act::Look, PATIENCE).await?.backlog_versions,
                false => Some(0),
            };
            if (here.backlog_versions, there) == (Some(0), Some(0)) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the links from one side have brought all that was there at this moment.
    async fn brought_since(&self, moment: Instant, side: Side) -> Result<(), String> {
        loop {
            let passed = moment.elapsed();
            let state = match side {
                Side::Here => self.host.look(&self.plan.id).await,
                Side::There => self.peer().ask(Act::Look, PATIENCE).await?,
            };
            // Measured after the question: nothing that was there at the moment is still under way.
            if state.lag_millis.is_some_and(|lag| u128::from(lag) <= passed.as_millis()) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// Until everything is at the peer, or for as long as the plan allows.
    async fn drain(&self) -> Result<Found, String> {
        let most = Duration::from_millis(self.plan.drain_millis.unwrap_or(self.plan.deadline_millis));
        let drained = timeout(most, self.drained(false)).await;
        drained.unwrap_or_else(|_| Err(format!("the backlog did not drain within {most:?}"))).map(|()| Found::Nothing)
    }

    async fn take_over(&self) -> Result<Found, String> {
        if self.plan.kind == Type::SiteLoss && !self.plan.is_live() {
            // Its client turns to the peer when it was turned away here.
            while self.counted().refused == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        for number in 0.. {
            if self.probe(number).await {
                return Ok(Found::Served { at: self.now() });
            }
            sleep(LOOK).await;
        }
        unreachable!("the deadline ends it")
    }

    /// One probe at the peer; whether it was served.
    async fn probe(&self, number: u64) -> bool {
        let key = format!("probes/{:?}/{number:06}", self.machine.current());
        let served = self.peer().ask(Act::Probe { key }, Duration::from_secs(2)).await.is_ok();
        if let Some(client) = &self.client {
            client.ledger().count(|c| if served { c.served_there += 1 } else { c.not_served_there += 1 });
        }
        served
    }

    /// Lets the fault last, and the peer serve.
    async fn hold(&self) -> Result<Found, String> {
        let began = self.machine.figures.fault_at.unwrap_or_else(|| self.now());
        // A planned one lasts from the switch on: the drain took what it took.
        let began = if self.plan.kind.is_planned() { self.now() } else { began };
        let until = began + self.plan.duration_millis;
        for number in 0.. {
            let left = until.saturating_sub(self.now());
            if left == 0 {
                break;
            }
            self.probe(number).await;
            sleep(Duration::from_millis(left.min(self.plan.probe_every_millis()))).await;
        }
        Ok(Found::Held { other_way_millis: self.other_way().await? })
    }

    /// How long the way that is not cut takes to bring all there is now, while the other is; `None`: both are.
    async fn other_way(&self) -> Result<Option<u64>, String> {
        let side = match self.plan.direction {
            Direction::Both => return Ok(None),
            Direction::Outbound => Side::There,
            Direction::Inbound => Side::Here,
        };
        let began = Instant::now();
        let late = |_| format!("the {} cut stops the other way too", self.plan.direction.name());
        timeout(OTHER_WAY, self.brought_since(began, side)).await.map_err(late)??;
        Ok(Some(began.elapsed().as_millis() as u64))
    }

    async fn fail_back(&self) -> Result<Found, String> {
        let began = self.now();
        let ttl_millis = self.plan.deadline_millis;
        self.peer().ask(Act::Fault { cut: Cut::NONE, is_fenced: true, ttl_millis }, PATIENCE).await?;
        self.drained(true).await?;
        self.lift_here().await;
        self.host.probe(&self.plan.id, "probes/here").await?;
        Ok(Found::ServedHere { millis: self.now().saturating_sub(began) })
    }

    async fn heal(&self) -> Result<Found, String> {
        self.lift().await?;
        if let Some(client) = &self.client {
            client.stop();
            client.quiet().await;
        }
        Ok(Found::Nothing)
    }

    /// Lifts the fault here. A fence that is not lifted ends by its own deadline.
    async fn lift_here(&self) {
        let is_part = self.host.drills.fault(&self.plan.id).is_some();
        if !is_part {
            return;
        }
        if let Err(why) = self.host.inject(&self.plan.id, Cut::NONE, Fence::None, Duration::ZERO).await {
            tracing::warn!(
                drill = self.plan.id,
                why,
                "The fault of a drill is not lifted; it ends by its own deadline."
            );
        }
    }

    /// Lifts the fault at both sites, here first.
    async fn lift(&self) -> Result<(), String> {
        self.lift_here().await;
        let act = Act::Fault { cut: Cut::NONE, is_fenced: false, ttl_millis: 0 };
        self.peer().ask(act, PATIENCE).await.map(drop)
    }

    async fn verify(&self) -> Result<Found, String> {
        self.host.compare_acted(&self.plan.id)?;
        self.peer().ask(Act::Verify, PATIENCE).await?;
        let (here, there) = loop {
            let here = self.host.look(&self.plan.id).await;
            let there = self.peer().ask(Act::Look, PATIENCE).await?;
            let runs = |state: &DrillState| state.verdict.as_deref() == Some("running");
            if !runs(&here) && !runs(&there) {
                break (here, there);
            }
            sleep(LOOK).await;
        };
        for (state, whose) in [(&here, "from here"), (&there, "from there")] {
            if !matches!(state.verdict.as_deref(), Some("equal" | "different" | "behind")) {
                let verdict = state.verdict.as_deref().unwrap_or("none");
                return Err(format!("the comparison {whose} has no verdict: {verdict}"));
            }
        }
        let versions = here.versions + there.versions;
        let conflicts = if self.plan.is_live() { Some(self.conflicts().await?) } else { None };
        Ok(Found::Compared { there: here.differences, here: there.differences, versions, conflicts })
    }

    /// What was made goes; a canary at the peer first, so that nothing is sent to one that is gone. What a live drill
    /// wrote goes where it was written first, so that nothing of it comes after.
    async fn clean_up(&mut self) -> Result<Found, String> {
        if let Some(client) = &self.client {
            client.stop();
        }
        self.lift_here().await;
        let places = if self.plan.is_live() { self.host.drills.places(&self.plan.id) } else { Vec::new() };
        let mut cleared = Ok(());
        if !places.is_empty() {
            let act = Act::Fault { cut: Cut::NONE, is_fenced: false, ttl_millis: 0 };
            // It is lifted there by itself too; what waited goes its way before anything is removed.
            if self.peer().ask(act, SETTLES).await.is_ok() {
                _ = timeout(SETTLES, self.drained(true)).await;
            }
            if self.cost.is_none() {
                self.count_cost().await;
            }
            cleared = self.host.clear_places(&places).await.map_err(|e| format!("objects of the drill here: {e}"));
        }
        let there = async {
            while !self.peer().ask(Act::End, PATIENCE).await?.is_gone {
                sleep(LOOK).await;
            }
            Ok(())
        };
        let there = timeout(GONE, there).await.unwrap_or_else(|_| Err("the peer has not removed it yet".to_string()));
        let here = self.host.remove_part(&self.plan.id).await.map_err(|e| format!("here: {e}"));
        cleared.and(there).and(here)?;
        match places.is_empty() {
            true => Ok(Found::Nothing),
            false => {
                let versions = self.host.left_in(&places).await.map_err(|e| e.to_string())?;
                Ok(Found::Left { versions })
            }
        }
    }
}

/// Whose links are looked at.
#[derive(Clone, Copy, Debug)]
enum Side {
    Here,
    There,
}
