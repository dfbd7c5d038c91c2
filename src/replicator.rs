//! The shell around the links of one site: takes rule sets, plans, starts, alters and stops links, keeps
//! a line to each peer, and shows all of it. It owns the tasks; it decides nothing about versions
//! (`crate::link` does) and never waits for a peer to answer a question about itself.
pub mod accepted;
pub mod admin;
pub mod answer;
pub mod ask;
mod attempts;
pub mod bucket;
pub mod content;
pub mod control;
pub mod drill;
pub mod explain;
pub mod far;
pub mod foreign;
pub mod health;
pub mod job;
pub mod lateness;
pub mod lease;
pub mod leftovers;
pub mod lend;
pub mod line;
pub mod neighbour;
pub mod others;
pub mod outward;
pub mod own;
pub mod proof;
pub mod push;
pub mod receive;
pub mod reconcile;
pub mod remade;
pub mod report;
pub mod run;
pub mod survey;
pub mod suspend;
pub mod tenure;
pub mod told;
pub mod toll;
pub mod verbs;
pub mod verify;

use crate::peer::client::{Dial, PeerClient, Target};
use crate::rule::plan::{self, Change, LinkName, LinkView};
use crate::rule::refs::Refs;
use crate::rule::watch_folder::Snapshot;
use crate::rule::{Destination, FarDoc, ForeignDoc, PeerDoc, Rule, RuleSet, SiteDoc};
use crate::shutdown;
use crate::store::Store;
use accepted::Kept;
use bucket::Watcher;
use drill::Drills;
use far::{Far, FarEnd};
use foreign::gate::Gate;
use health::Health;
use job::Jobs;
use line::{Line, Standing};
use neighbour::Lender;
use own::{Shared, Way};
use proof::Proof;
use push::Route;
use receive::Receive;
use report::{
    Certificate, ConditionReport, LinkReport, OtherCertificates, PeerReport, ProblemReport, ProofReport, SiteReport,
};
use run::Command;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use storage_engine::identity::{Files, Identity};
use suspend::Suspensions;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use toll::Tolls;
use verify::{Verify, VerifyReport};

/// What lines and the journal have to end after the links: a line closes at once, the journal writes one row.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What a link that was stopped may take before its successor of the same name starts without it.
const END: Duration = Duration::from_secs(30);
/// How often what verbs hold back is read again: another replicator of the site may have been told.
const VERBS_FRESH: Duration = Duration::from_secs(2);
/// Commands waiting for one link; a person gives few.
const COMMANDS: usize = 16;

/// A line as the replicator holds it.
struct LineHandle {
    doc: PeerDoc,
    standing: Arc<Standing>,
    trouble: watch::Receiver<Option<String>>,
    /// When its last connection ended.
    ended: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
}

/// A link as the replicator holds it.
struct LinkHandle {
    commands: mpsc::Sender<Command>,
    /// The far end while it can be reached, and else why not.
    line: Far,
    trouble: watch::Receiver<Option<String>>,
    /// Keeps the way to an S3 endpoint, by the link as its rule is now.
    gate: Option<watch::Sender<LinkView>>,
    shown: watch::Receiver<LinkReport>,
    task: JoinHandle<()>,
    /// How its pushes go, while this process owns it.
    route: watch::Receiver<Option<Arc<Route>>>,
    /// What the slow proof compares, and what it has found.
    proves: watch::Sender<Arc<Verify>>,
    proof: watch::Receiver<Option<ProofReport>>,
    /// What does not fit between its two buckets.
    conditions: watch::Receiver<Vec<ConditionReport>>,
    /// The proof ends with the link.
    _proving: DropGuard,
}

impl LinkHandle {
    fn report(&self) -> LinkReport {
        let report = self.shown.borrow().clone();
        let proof = if report.is_pushed_here() { self.proof.borrow().clone() } else { None };
        let dialect = match &*self.line.borrow() {
            Some(FarEnd::S3(end)) => Some(end.target.dialect().name().to_string()),
            _ => None,
        };
        // Why nothing can be sent says more than what failed before.
        let trouble = if self.gate.is_some() { self.trouble.borrow().clone() } else { None };
        let last_error = trouble.or(report.last_error);
        LinkReport { proof, dialect, last_error, ..report }.under(&self.conditions.borrow())
    }

    /// What a comparison sees of it.
    fn ways(&self) -> Ways {
        (self.line.clone(), self.route.clone(), self.shown.clone(), self.conditions.clone())
    }
}

/// What a comparison sees of a link: the line to its peer, how it pushes, what it shows, what does not fit.
type Ways =
    (Far, watch::Receiver<Option<Arc<Route>>>, watch::Receiver<LinkReport>, watch::Receiver<Vec<ConditionReport>>);

/// A gate: the way, why it is closed, who tells it of its rule, and what is to be mended.
type Opened =
    (Far, watch::Receiver<Option<String>>, Option<watch::Sender<LinkView>>, watch::Receiver<Vec<ConditionReport>>);

#[derive(Default)]
struct State {
    lines: BTreeMap<String, LineHandle>,
    links: BTreeMap<LinkName, LinkHandle>,
    /// Links that were stopped and may still drain.
    ending: BTreeMap<LinkName, JoinHandle<()>>,
    /// The set carried out last.
    in_force: RuleSet,
    /// What verbs hold back, as last read or told.
    suspensions: Suspensions,
    /// The last comparison of each rule, by its name.
    verifies: BTreeMap<String, watch::Receiver<VerifyReport>>,
}

/// The replicator of one site.
pub struct Replicator {
    /// Name of the Site document and its siteID.
    site: String,
    site_id: String,
    shared: Shared,
    refs: Refs,
    /// How peers are called.
    dial: Arc<dyn Dial>,
    /// What the peer listener shows and believes.
    listener: Arc<Identity>,
    /// What the process shows elsewhere.
    other_certificates: OtherCertificates,
    rules: watch::Receiver<Snapshot>,
    receive: Arc<Receive>,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// What verbs hold back; locked while the journal is asked, so that two verbs do not mix.
    suspensions: tokio::sync::Mutex<Suspensions>,
    /// A verb changed it.
    verbs: Notify,
    /// What the journal holds of jobs.
    jobs: watch::Sender<Jobs>,
    /// What links share on their way out.
    tolls: Tolls,
    /// This site's parts in failover drills.
    drills: Arc<Drills>,
    /// How the own store and the journal are, as last seen.
    health: Arc<Health>,
    ready: AtomicBool,
    /// Comparisons end with it; what they had repaired stays.
    stopping: CancellationToken,
}

impl Replicator {
    /// A replicator that has started nothing yet.
    pub fn new(
        site: &SiteDoc,
        shared: Shared,
        refs: Refs,
        listener: Arc<Identity>,
        rules: watch::Receiver<Snapshot>,
    ) -> Self {
        let (site, site_id) = (site.name.clone(), site.site_id.clone());
        let drills = Arc::<Drills>::default();
        let receive = Arc::new(Receive {
            site_id: site_id.clone(),
            rules: rules.clone(),
            store: shared.store.clone(),
            journal: shared.journal.clone(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
            epochs: Mutex::default(),
            drills: drills.clone(),
            conflicts: 0.into(),
            refused: 0.into(),
        });
        Replicator {
            site,
            site_id,
            shared,
            refs,
            dial: Arc::new(PeerClient),
            listener,
            other_certificates: Arc::new(Vec::new),
            rules,
            receive,
            tasks: TaskTracker::new(),
            state: Mutex::default(),
            suspensions: tokio::sync::Mutex::default(),
            verbs: Notify::new(),
            jobs: watch::Sender::default(),
            tolls: Tolls::default(),
            drills,
            health: Arc::default(),
            ready: AtomicBool::new(false),
            stopping: CancellationToken::new(),
        }
    }

    /// Calls its peers over another network than TCP.
    pub fn dialling(mut self, dial: Arc<dyn Dial>) -> Self {
        self.dial = dial;
        self
    }

    /// Tells of certificates that the process shows elsewhere than at the peer listener.
    pub fn also_showing(mut self, others: OtherCertificates) -> Self {
        self.other_certificates = others;
        self
    }

    /// What the peer listener hands versions to.
    pub fn receiver(&self) -> Arc<Receive> {
        self.receive.clone()
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Carries out every rule set until `stop`, then drains the links while their lines still stand. What has not
    /// drained by [`shutdown::DRAIN`] is said and cut: it is sent again after a restart, as it is when this future is
    /// dropped.
    pub async fn run(&self, stop: CancellationToken) {
        let works = self.stopping.clone();
        tokio::join!(self.replicate(stop), works.run_until_cancelled(self.carry_jobs()));
    }

    async fn replicate(&self, stop: CancellationToken) {
        let mut rules = self.rules.clone();
        // The claims are renewed until the last link has drained and given its own back.
        let (drained, tenure) = (CancellationToken::new(), self.shared.tenure.clone());
        let told = drained.clone();
        let keeper = tokio::spawn(async move { tenure.keep(told).await });
        let forget = leftovers::forget(self.shared.store.clone(), self.rules.clone(), self.shared.clock.clone());
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(forget));
        let look = self.health.clone().watch(self.shared.store.clone(), self.shared.journal.clone());
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(look));
        let mut kept = Kept::default();
        stop.run_until_cancelled(self.first_suspensions()).await;
        while !stop.is_cancelled() {
            let Snapshot { rules: mut set, accepted, .. } = rules.borrow_and_update().clone();
            self.state().suspensions.lay_over(&mut set);
            self.drills.lay_over(&mut set, &self.site);
            self.carry_out(set).await;
            if let Err(e) = kept.keep(&*self.shared.journal, &accepted).await {
                tracing::warn!(error = %e, "The documents in force are not in the journal; they go there with the next change.");
            }
            self.ready.store(true, Ordering::Relaxed);
            tokio::select! {
                () = stop.cancelled() => {}
                changed = rules.changed() => if changed.is_err() { break },
                () = self.other_suspensions() => {}
            }
        }
        self.ready.store(false, Ordering::Relaxed);
        self.stopping.cancel();
        self.drain_links().await;
        self.state().lines.values().for_each(|line| line.stop.cancel());
        drained.cancel();
        self.tasks.close();
        let ended = async {
            // It fails only by a panic, which ends the process.
            let _ = keeper.await;
            self.tasks.wait().await;
        };
        if timeout(LAST_WORDS, ended).await.is_err() {
            tracing::warn!("A line or the journal did not end in time; it is cut.");
        }
    }

    /// Nothing is sent before it is known what verbs hold back.
    async fn first_suspensions(&self) {
        while let Err(e) = self.read_suspensions().await {
            tracing::warn!(error = %e, "The journal does not say what is suspended; links wait for it.");
            tokio::time::sleep(VERBS_FRESH).await;
        }
    }

    /// Ends when verbs have changed what is held back, here or at another replicator of the site.
    async fn other_suspensions(&self) {
        loop {
            match timeout(VERBS_FRESH, self.verbs.notified()).await {
                Ok(()) => return,
                // A journal that does not answer is said by its links; what is known goes on.
                Err(_) => {
                    if self.read_suspensions().await.unwrap_or(false) {
                        return;
                    }
                }
            }
        }
    }

    /// Every link, those of former rules too, finishes what flies and records it; what does not in time is cut.
    async fn drain_links(&self) {
        let (links, ending) = {
            let mut state = self.state();
            (std::mem::take(&mut state.links), std::mem::take(&mut state.ending))
        };
        // A link whose last sender is gone drains.
        let links = links.into_iter().map(|(name, link)| (name, link.task));
        let mut left: Vec<_> = links.chain(ending).collect();
        let by = Instant::now() + shutdown::DRAIN;
        for (name, task) in &mut left {
            if timeout_at(by, &mut *task).await.is_err() {
                tracing::warn!(rule = %name.rule, peer = %name.peer, "The link did not drain within {}s and is cut; what flew is sent again after the next start.", shutdown::DRAIN.as_secs());
                task.abort();
            }
        }
    }

    /// Whether rules were planned and the process is not stopping.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Everything this process shows of itself.
    pub fn report(&self) -> SiteReport {
        let state = self.state();
        let snapshot = self.rules.borrow();
        let documents = &snapshot.rules;
        let named =
            documents.links_of(&self.site).map(|(rule, to)| ((rule.name.as_str(), to.peer.as_str()), (rule, to)));
        let told: BTreeMap<_, (&Rule, &Destination)> = named.collect();
        let promise = |mut shown: LinkReport| {
            if let Some((rule, destination)) = told.get(&(shown.rule.as_str(), shown.peer.as_str())) {
                shown.suspended = state.suspensions.why(documents, rule, destination);
                shown.rpo_seconds = rule.rpo_millis.map(|ms| ms as f64 / 1000.0);
            }
            shown
        };
        let mut links: Vec<_> =
            state.links.iter().map(|(name, l)| promise(self.drills.said(name, l.report()))).collect();
        links.sort_by(|a, b| (&a.rule, &a.bucket, &a.peer).cmp(&(&b.rule, &b.bucket, &b.peer)));
        let foreign = state.in_force.foreign.values().map(|doc| foreign_report(doc, &state.links));
        let now = self.shared.clock.now_millis();
        SiteReport {
            site: self.site_id.clone(),
            peers: state.lines.values().map(|line| peer_report(line, now)).chain(foreign).collect(),
            links,
            problems: snapshot.problems.iter().map(ProblemReport::from).collect(),
            conflicts: self.receive.conflicts.load(Ordering::Relaxed),
            frames_refused: self.receive.refused.load(Ordering::Relaxed),
            store_error: self.shared.store.trouble(),
            store: self.health.store.get(),
            journal: self.health.journal.get(),
            certificate: self.listener.valid_millis().map(Certificate::from),
            certificate_uri: self.listener.uri(),
            authorities: self.listener.authorities_valid_millis().map(Certificate::from),
            other_certificates: self.certificates_elsewhere(),
            last_drill: self.drills.last.get(),
        }
    }

    /// All metrics in OpenMetrics text.
    pub fn metrics_text(&self) -> String {
        self.shared.metrics.encode(&self.report())
    }

    /// Who may be asked for a version that is not here yet: the peers that can be reached, of rules that allow it.
    fn lenders(&self, bucket: &str, key: &str) -> Vec<Lender> {
        let state = self.state();
        let covers = |r: &Rule| r.bucket == bucket && key.starts_with(&r.filter.prefix);
        // A link that a drill has cut lends nothing either.
        let link = |r: &Rule, d: &Destination| LinkName { rule: r.uid.clone(), peer: d.peer.clone() };
        let is_cut = |r: &Rule, d: &Destination| self.drills.cut_by(&link(r, d)).is_some();
        let links = self.lending(&state).filter(|(rule, d)| covers(rule) && !is_cut(rule, d));
        let lender = |(_, d): (&Rule, &Destination)| {
            let line = state.lines.get(&d.peer)?;
            let (site, bucket) = (line.doc.site_id.clone(), d.bucket.clone());
            match line.standing.borrow().clone() {
                Some(FarEnd::Site(line)) => Some(Lender { site, bucket, line }),
                _ => None,
            }
        };
        links.filter_map(lender).collect()
    }

    /// Buckets of rules that let them be read from peers.
    fn lent(&self) -> Vec<String> {
        let state = self.state();
        let buckets: BTreeSet<_> = self.lending(&state).map(|(rule, _)| rule.bucket.clone()).collect();
        buckets.into_iter().collect()
    }

    /// Links of rules that let their bucket be read from the peer, and are not suspended.
    fn lending<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (&'a Rule, &'a Destination)> {
        let allows = |(rule, d): &(&Rule, &Destination)| rule.read_from_peers && !rule.suspend && !d.suspend;
        state.in_force.links_of(&self.site).filter(allows)
    }

    /// Compares what a rule's peers hold with this site, and repairs where `repair`; joins a comparison that runs.
    /// `None`: there is no such rule in force.
    pub fn verify(&self, rule: &str, repair: bool) -> Option<VerifyReport> {
        self.verify_to(rule, None, repair, false)
    }

    /// The same, with one peer alone where it is named; `existing`: of versions too that the rule leaves where they are.
    fn verify_to(&self, rule: &str, peer: Option<&str>, repair: bool, existing: bool) -> Option<VerifyReport> {
        let mut state = self.state();
        if let Some(running) = state.verifies.get(rule).map(|v| v.borrow().clone()).filter(|v| v.is_running()) {
            return Some(running);
        }
        let views = plan::links(&state.in_force, &self.site);
        let mut links = Vec::new();
        let is_meant = |view: &LinkView| view.rule.name == rule && peer.is_none_or(|peer| view.peer.name() == peer);
        for (name, view) in views.iter().filter(|(_, view)| is_meant(view)) {
            let Some(link) = state.links.get(name) else { continue };
            links.push(Verify { existing, ..self.comparison(view, link.ways(), repair) });
        }
        if links.is_empty() {
            return None;
        }
        let (show, shown) = watch::channel(VerifyReport::begun(rule, repair, &links));
        let first = shown.borrow().clone();
        state.verifies.insert(rule.into(), shown);
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(verify::run(links, show)));
        Some(first)
    }

    /// What compares one link, as its rule is now.
    fn comparison(&self, view: &LinkView, ways: Ways, repair: bool) -> Verify {
        let (line, route, shown, conditions) = ways;
        Verify {
            settings: view.settings(),
            peer: view.peer.name().into(),
            bucket: view.rule.bucket.clone(),
            peer_bucket: view.destination.bucket.clone(),
            store: self.shared.store.clone(),
            line,
            route,
            shown,
            conditions,
            clock: self.shared.clock.clone(),
            repair,
            existing: false,
            content: false,
            allowance: None,
            pause: None,
            documents: view.rule.replicate.bucket_documents,
        }
    }

    /// The last comparison of a rule, or how far the one that runs is.
    pub fn verified(&self, rule: &str) -> Option<VerifyReport> {
        self.state().verifies.get(rule).map(|v| v.borrow().clone())
    }

    async fn carry_out(&self, set: RuleSet) {
        let old = std::mem::replace(&mut self.state().in_force, set.clone());
        self.tolls.set(&set, &self.site);
        self.keep_lines(&set).await;
        let views = plan::links(&set, &self.site);
        for change in plan::plan(&old, &set, &self.site) {
            match change {
                Change::Stop(name) => {
                    let gone = self.state().links.remove(&name);
                    if let Some(link) = gone {
                        let _ = link.commands.send(Command::Remove).await;
                        self.state().ending.insert(name, link.task);
                    }
                }
                Change::Start(name) => {
                    if let Some(view) = views.get(&name) {
                        self.start_link(name, view.clone());
                    }
                }
                Change::Alter(name) => {
                    let commands = self.state().links.get(&name).map(|l| l.commands.clone());
                    if let (Some(commands), Some(view)) = (commands, views.get(&name)) {
                        self.prove_anew(&name, view);
                        let _ = commands.send(Command::Alter(Box::new(view.clone()))).await;
                    }
                }
            }
        }
    }

    /// The slow proof of a link goes by its altered rule.
    fn prove_anew(&self, name: &LinkName, view: &LinkView) {
        let state = self.state();
        let Some(link) = state.links.get(name) else { return };
        link.proves.send_replace(Arc::new(self.comparison(view, link.ways(), true)));
        if let Some(gate) = &link.gate {
            gate.send_replace(view.clone());
        }
    }

    fn start_link(&self, name: LinkName, view: LinkView) {
        let mut state = self.state();
        let proving = self.stopping.child_token();
        // At an S3 endpoint the gate says what does not fit, and lets nothing through; else the watcher does, and the
        // link's loop goes by it.
        let (show_conditions, watched) = watch::channel(Vec::new());
        let (line, trouble, gate, conditions) = match &view.peer {
            FarDoc::Site(peer) => {
                let Some(line) = state.lines.get(&peer.name) else { return };
                let (standing, trouble) = (line.standing.subscribe(), line.trouble.clone());
                let line = self.drills.through(&name, standing, &self.tasks);
                (line, trouble, None, watched.clone())
            }
            FarDoc::S3(_) => self.open_gate(&view, proving.clone()),
        };
        let toll = self.tolls.of(&view.rule.uid, view.peer.name());
        let way = Way { line: line.clone(), toll, conditions: watched };
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (show, shown) = watch::channel(LinkReport::default());
        let (tell_route, route) = watch::channel(None);
        let former = state.ending.remove(&name);
        state.ending.retain(|_, task| !task.is_finished());
        tracing::info!(rule = %view.rule.name, bucket = %view.rule.bucket, peer = view.peer.name(), "Starting the link.");
        let ways = (way.line.clone(), route.clone(), shown.clone(), conditions.clone());
        let (proves, proven) = watch::channel(Arc::new(self.comparison(&view, ways, true)));
        let (show_proof, proof) = watch::channel(None);
        let labels = own::labels(&view);
        let (pace, metrics) = (self.shared.pace, self.shared.metrics.clone());
        let watcher = Watcher { show: show_conditions };
        self.tasks.spawn(proving.clone().run_until_cancelled_owned(watcher.run(proven.clone())));
        let prover = Proof { labels, pace, metrics, show: show_proof };
        self.tasks.spawn(proving.clone().run_until_cancelled_owned(prover.run(proven)));
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            // Its last record would fence this one, and what it forgets is this one's.
            if let Some(mut former) = former
                && timeout(END, &mut former).await.is_err()
            {
                former.abort();
            }
            own::own(shared, view, way, inbox, show, tell_route).await;
        });
        let _proving = proving.drop_guard();
        let handle =
            LinkHandle { commands, line, trouble, gate, shown, task, route, proves, proof, conditions, _proving };
        state.links.insert(name, handle);
    }

    /// Keeps a link's way to an S3 endpoint until `stop`.
    fn open_gate(&self, view: &LinkView, stop: CancellationToken) -> Opened {
        let (far, line) = watch::channel(None);
        let (trouble, told) = watch::channel(Some("the S3 endpoint was not reached yet".to_string()));
        let (tell, view) = watch::channel(view.clone());
        let (unfit, conditions) = watch::channel(Vec::new());
        let Shared { store, journal, clock, .. } = self.shared.clone();
        let gate = Gate { store, journal, clock, refs: self.refs.clone(), view, far, trouble, unfit };
        self.tasks.spawn(stop.run_until_cancelled_owned(gate.keep()));
        (line, told, Some(tell), conditions)
    }

    /// A line for each peer of the set; a line whose document changed is dialled anew.
    async fn keep_lines(&self, set: &RuleSet) {
        for (name, peer) in &set.peers {
            let held = self.state().lines.get(name).map(|l| (l.doc.clone(), l.standing.clone()));
            let standing = match held {
                Some((doc, _)) if doc == *peer => continue,
                Some((_, standing)) => standing,
                None => Arc::new(watch::channel(None).0),
            };
            let (trouble, told) = watch::channel(None);
            let (ended, over) = watch::channel(None);
            let stop = CancellationToken::new();
            let (doc, standing_here) = (peer.clone(), standing.clone());
            let handle = LineHandle { doc, standing: standing_here, trouble: told, ended: over, stop: stop.clone() };
            if let Some(old) = self.state().lines.insert(name.clone(), handle) {
                old.stop.cancel();
            }
            let files = match self.files(set, peer) {
                Ok(files) => files,
                Err(e) => {
                    tracing::error!(peer = %name, error = %e, "The peer's certificates are named wrongly; put its document right.");
                    trouble.send_replace(Some(e));
                    continue;
                }
            };
            let target = Target {
                endpoint: peer.endpoint.clone(),
                server_name: peer.server_name.clone(),
                identities: peer.identities.clone(),
                site: self.site_id.clone(),
                peer_site: peer.site_id.clone(),
            };
            let (tasks, dial) = (self.tasks.clone(), self.dial.clone());
            let line = Line { peer: name.clone(), target, dial, files, tasks, standing, trouble, ended };
            self.tasks.spawn(line::keep(line, stop));
        }
        self.trust(set).await;
        let gone: Vec<_> = self.state().lines.keys().filter(|n| !set.peers.contains_key(*n)).cloned().collect();
        for name in gone {
            if let Some(line) = self.state().lines.remove(&name) {
                line.stop.cancel();
            }
        }
    }

    /// The listener believes the CAs of the peers there are, and no others.
    async fn trust(&self, set: &RuleSet) {
        let bundles = set.peers.values().filter_map(|peer| self.refs.bundle(peer).ok()).collect();
        if let Err(e) = self.listener.trust(bundles).await {
            tracing::warn!(error = %e, "The peer listener keeps the CAs it had; they are read again within a minute.");
        }
    }

    /// What this site shows to one peer, and the CA that peer must chain to.
    fn files(&self, set: &RuleSet, peer: &PeerDoc) -> Result<Files, String> {
        let site = set.sites.get(&self.site).ok_or("the Site document is gone")?;
        self.refs.towards(site, peer).map_err(|e| e.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

fn peer_report(line: &LineHandle, now_millis: u64) -> PeerReport {
    let standing = match &*line.standing.borrow() {
        Some(FarEnd::Site(connection)) => Some(connection.clone()),
        _ => None,
    };
    PeerReport {
        peer: line.doc.name.clone(),
        site: line.doc.site_id.clone(),
        endpoint: line.doc.endpoint.clone(),
        is_up: standing.is_some(),
        rtt_ms: standing.as_ref().and_then(|c| c.rtt()).map(|rtt| rtt.as_secs_f64() * 1000.0),
        clock_offset_ms: standing.as_ref().and_then(|c| c.clock_offset_millis(now_millis)),
        certificate_until: standing.as_ref().map(|c| c.certificate_until()),
        last_seen: match &standing {
            Some(_) => Some(now_millis),
            None => line.ended.borrow().map(|at| now_millis.saturating_sub(at.elapsed().as_millis() as u64)),
        },
        last_error: line.trouble.borrow().clone(),
        dialect: None,
        lacks: standing.iter().flat_map(|c| c.lacks()).map(String::from).collect(),
    }
}

/// An S3 endpoint as its links find it: up while all of them may send.
fn foreign_report(doc: &ForeignDoc, links: &BTreeMap<LinkName, LinkHandle>) -> PeerReport {
    let of_it: Vec<&LinkHandle> = links.iter().filter(|(name, _)| name.peer == doc.name).map(|(_, l)| l).collect();
    PeerReport {
        peer: doc.name.clone(),
        site: "-".into(),
        endpoint: doc.endpoint.clone(),
        is_up: of_it.iter().all(|link| link.line.borrow().is_some()),
        last_error: of_it.iter().find_map(|link| link.trouble.borrow().clone()),
        dialect: of_it.iter().find_map(|link| link.report().dialect),
        ..PeerReport::default()
    }
}
