//! The report of a drill: verdict, timeline, figures against objectives, and what is left to a person. Pure.
//! One value is printed, kept as JSON and as Markdown, and told in the status of the kind.
use super::cost::Cost;
use super::ledger::Counted;
use super::machine::{Figures, Machine, Stopped, Went};
use super::trend::Trend;
use super::{Direction, Plan, RPO_SLACK_MILLIS, Type, canary, place};
use crate::words::{bytes, seconds, utc};
use serde::{Deserialize, Serialize};

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    #[default]
    Running,
    Pass,
    Fail,
    Aborted,
    /// Its preflight found something; nothing was injected.
    Refused,
}

impl Verdict {
    /// As the first word of the report.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Running => "RUNNING",
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Aborted => "ABORTED",
            Verdict::Refused => "REFUSED",
        }
    }
}

/// One figure against what was promised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub what: String,
    pub found: String,
    pub objective: String,
    pub holds: bool,
}

/// A drill as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub plan: Plan,
    /// siteID of the site that drives it.
    pub site: String,
    pub verdict: Verdict,
    /// Why it was refused, or did not go through.
    pub reason: Option<String>,
    /// Unix milliseconds.
    pub began_at: u64,
    pub ended_at: Option<u64>,
    pub steps: Vec<Went>,
    pub figures: Figures,
    pub client: Counted,
    /// What it cost in service level; absent: nothing was wrong yet, or its fault was not come to.
    #[serde(default)]
    pub cost: Option<Cost>,
    pub checks: Vec<Check>,
    /// Beside those before it; absent: it came to no verdict.
    #[serde(default)]
    pub trend: Option<Trend>,
    /// What the drill cannot do or see.
    pub left_to_a_person: Vec<String>,
}

impl Report {
    /// A drill that was not begun.
    pub fn refused(plan: Plan, site: &str, now: u64, reason: String) -> Self {
        let mut report = Report::begun(plan, site, now);
        (report.verdict, report.reason, report.ended_at) = (Verdict::Refused, Some(reason), Some(now));
        report
    }

    /// A drill that begins now.
    pub fn begun(plan: Plan, site: &str, now: u64) -> Self {
        Report {
            plan,
            site: site.into(),
            verdict: Verdict::Running,
            reason: None,
            began_at: now,
            ended_at: None,
            steps: Vec::new(),
            figures: Figures::default(),
            client: Counted::default(),
            cost: None,
            checks: Vec::new(),
            trend: None,
            left_to_a_person: Vec::new(),
        }
    }

    /// How far it is.
    pub fn show(&mut self, machine: &Machine, client: Counted) {
        self.steps.clone_from(&machine.went);
        self.figures.clone_from(&machine.figures);
        self.client = client;
    }

    /// Its verdict, once the last step is over.
    pub fn conclude(&mut self, machine: &Machine, client: Counted, now: u64) {
        self.show(machine, client);
        self.ended_at = Some(now);
        self.checks = checks(&self.plan, &self.figures);
        let all_hold = self.checks.iter().all(|c| c.holds);
        (self.verdict, self.reason) = match &machine.stopped {
            Some(Stopped::Aborted) => (Verdict::Aborted, Some("a person ended it".into())),
            Some(Stopped::Failed(why)) => (Verdict::Fail, Some(why.clone())),
            Some(Stopped::Deadline) => {
                let why = format!("not over within {}", seconds(self.plan.deadline_millis as f64 / 1000.0));
                (Verdict::Fail, Some(why))
            }
            None if all_hold => (Verdict::Pass, None),
            None => (Verdict::Fail, self.checks.iter().find(|c| !c.holds).map(|c| format!("{} {}", c.what, c.found))),
        };
        self.left_to_a_person = left(&self.plan, machine);
    }

    /// What it cost in service level, in one sentence.
    fn cost_said(&self) -> Option<String> {
        let said = self.cost.as_ref()?.said(self.plan.is_live());
        let is_partial = self.figures.catch_up_seconds.is_none();
        Some(if is_partial { format!("{said}; counted before all had caught up") } else { said })
    }

    /// How it compares with those before it, in one line.
    pub fn trend_said(&self) -> Option<String> {
        let rpo_seconds = self.figures.at_risk.as_ref().map(|risk| risk.seconds);
        self.trend.as_ref().map(|trend| trend.said(rpo_seconds, self.figures.rto_seconds))
    }

    /// What it allows for the age of what is at risk, as far as that is known.
    pub fn rpo_objective_seconds(&self) -> Option<f64> {
        rpo_objective_seconds(&self.plan, &self.figures)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.verdict != Verdict::Running
    }

    /// Verdict and figures in one line.
    pub fn headline(&self) -> String {
        let (plan, f) = (&self.plan, &self.figures);
        let mut line = format!("{}  {} {} -> {}", self.verdict.word(), kind(plan), self.site, plan.peer);
        if let Some(reason) = &self.reason {
            line += &format!(": {reason}");
        }
        let risk = f
            .at_risk
            .as_ref()
            .map(|r| format!("RPO {} of {} versions, {}, {:.3}s", r.versions, r.acked, bytes(r.bytes), r.seconds));
        let rto = f.rto_seconds.map(|s| format!("RTO {s:.3}s"));
        let figures: Vec<_> = risk.into_iter().chain(rto).collect();
        if !figures.is_empty() {
            line += &format!("{} {}", if self.reason.is_some() { ";" } else { ":" }, figures.join(", "));
        }
        line
    }

    /// For people, verdict first.
    pub fn text(&self) -> String {
        let mut out = self.headline() + "\n";
        let steps: Vec<_> = self.steps.iter().map(|w| format!("{} {}", w.step.name(), took(w))).collect();
        if !steps.is_empty() {
            out += &format!("{}\n", steps.join("  "));
        }
        for check in &self.checks {
            let word = if check.holds { "ok  " } else { "MISS" };
            out += &format!("{word}  {}: {} (objective: {})\n", check.what, check.found, check.objective);
        }
        if self.is_over() && !self.steps.is_empty() {
            out += &format!("client: {}\n", said_to_client(&self.client));
        }
        if let Some(said) = self.cost_said() {
            out += &format!("service level: {said}\n");
        }
        if let Some(conflicts @ 1..) = self.figures.conflicts {
            out += &format!("conflicts: {conflicts} since the fault; both versions are kept (isthmus conflicts)\n");
        }
        for failed in self.steps.iter().filter(|w| w.failure.is_some()) {
            out += &format!("{}: {}\n", failed.step.name(), failed.failure.as_deref().unwrap_or_default());
        }
        if let Some(said) = self.trend_said() {
            out += &format!("trend: {said}\n");
        }
        for todo in &self.left_to_a_person {
            out += &format!("left to you: {todo}\n");
        }
        out
    }

    /// The whole report as a page.
    pub fn markdown(&self) -> String {
        let plan = &self.plan;
        let mut out = format!("# Failover drill {}\n\n**{}**\n\n", plan.id, self.headline());
        out += &format!(
            "- type: {}, scope: {}\n- driven by site `{}`, peer `{}`\n- began {}, {}\n",
            kind(plan),
            scope(plan),
            self.site,
            plan.peer,
            utc(self.began_at),
            self.ended_at.map_or("runs".into(), |at| format!("ended {}", utc(at)))
        );
        out += &format!(
            "- workload: {} writes a second of {}, {} % deletes; {}\n",
            plan.load.writes_per_second,
            bytes(u64::from(plan.load.object_bytes)),
            plan.load.delete_percent,
            said_to_client(&self.client)
        );
        out += "\n## Figures\n\n| | found | objective | |\n|---|---|---|---|\n";
        for check in &self.checks {
            let word = if check.holds { "ok" } else { "**missed**" };
            out += &format!("| {} | {} | {} | {word} |\n", check.what, check.found, check.objective);
        }
        for (name, said) in [("Service level", self.cost_said()), ("Trend", self.trend_said())] {
            said.into_iter().for_each(|said| out += &format!("\n{name}: {said}.\n"));
        }
        out += "\n## Timeline\n\n| step | began | took | |\n|---|---|---|---|\n";
        for went in &self.steps {
            let failure = went.failure.as_deref().unwrap_or_default();
            out += &format!("| {} | {} | {} | {failure} |\n", went.step.name(), utc(went.began_at), took(went));
        }
        if let Some(risk) = self.figures.at_risk.as_ref().filter(|r| !r.samples.is_empty()) {
            out += "\n## Versions at risk at the fault\n\n";
            risk.samples.iter().for_each(|sample| out += &format!("- `{sample}`\n"));
        }
        if !self.left_to_a_person.is_empty() {
            out += "\n## Left to a person\n\n";
            self.left_to_a_person.iter().for_each(|todo| out += &format!("- {todo}\n"));
        }
        out
    }
}

/// What it acts on.
fn scope(plan: &Plan) -> String {
    match plan.is_live() {
        false => format!("canary (bucket `{}`)", canary(&plan.id)),
        true => {
            let (rules, place) = (plan.rules.join(", "), place("", &plan.id));
            format!("live (rules {rules}; objects of its own in `{place}`, behind each rule's prefix)")
        }
    }
}

/// The failure, and its direction where it has one.
fn kind(plan: &Plan) -> String {
    match plan.direction {
        Direction::Both => plan.kind.name().into(),
        one_way => format!("{} {}", one_way.name(), plan.kind.name()),
    }
}

fn took(went: &Went) -> String {
    let millis = went.ended_at.map(|at| at.saturating_sub(went.began_at));
    millis.map_or("...".into(), |ms| format!("{:.1}s", ms as f64 / 1000.0))
}

fn said_to_client(c: &Counted) -> String {
    let mut line = format!("{} puts and {} deletes acked ({})", c.puts, c.deletes, bytes(c.bytes));
    for (count, what) in [
        (c.refused, "turned away by the fence"),
        (c.failed, "failed"),
        (c.skipped, "not begun for too many were under way"),
        (c.served_there, "probes served at the peer"),
        (c.not_served_there, "probes not served at the peer"),
    ] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line
}

fn rpo_objective_seconds(plan: &Plan, f: &Figures) -> Option<f64> {
    match plan.objectives.rpo_millis {
        Some(millis) => Some(millis as f64 / 1000.0),
        None if plan.kind.is_planned() => Some(0.0),
        None => f.shown_lag_seconds.map(|lag| lag + RPO_SLACK_MILLIS as f64 / 1000.0),
    }
}

/// The figures against what was promised; what was not measured does not hold.
fn checks(plan: &Plan, f: &Figures) -> Vec<Check> {
    let unknown = || "not measured".to_string();
    let check = |what: &str, found: Option<String>, objective: String, holds: bool| Check {
        what: what.into(),
        holds: holds && found.is_some(),
        found: found.unwrap_or_else(unknown),
        objective,
    };
    let mut all = Vec::new();
    let risk = f.at_risk.as_ref();
    let found = risk.map(|r| format!("{} versions, {}, {:.3}s", r.versions, bytes(r.bytes), r.seconds));
    let most = rpo_objective_seconds(plan, f);
    let objective = match (plan.kind.is_planned(), plan.objectives.rpo_millis, f.shown_lag_seconds) {
        (true, None, _) => "0 versions".to_string(),
        (_, Some(ms), _) => format!("at most {:.3}s", ms as f64 / 1000.0),
        (false, None, Some(lag)) => format!("the shown lag of {lag:.3}s and {RPO_SLACK_MILLIS} ms"),
        (false, None, None) => "the shown lag, which was not known".to_string(),
    };
    let may_lose = !plan.kind.is_planned() || plan.objectives.rpo_millis.is_some();
    let holds = risk.zip(most).is_some_and(|(r, most)| r.seconds <= most && (may_lose || r.versions == 0));
    all.push(check("RPO", found, objective, holds));
    let rto = plan.objectives.rto_millis as f64 / 1000.0;
    let within = |found: Option<f64>| found.is_some_and(|s| s <= rto);
    let shown = |s: Option<f64>| s.map(|s| format!("{s:.3}s"));
    all.push(check("RTO", shown(f.rto_seconds), format!("at most {rto:.0}s"), within(f.rto_seconds)));
    if plan.direction != Direction::Both {
        let objective = "brings all there is, while the cut stands".into();
        all.push(check("other way", shown(f.other_way_seconds), objective, true));
    }
    if plan.kind == Type::Switchover && plan.fails_back {
        let objective = format!("at most {rto:.0}s");
        all.push(check("fail back", shown(f.fail_back_seconds), objective, within(f.fail_back_seconds)));
    }
    all.push(check("catch up", shown(f.catch_up_seconds), "before the deadline".into(), true));
    let differ = f.differences_there.zip(f.differences_here).zip(f.versions_compared);
    let found = differ.map(|((there, here), of)| format!("{there} there, {here} here, of {of} versions"));
    all.push(check("differences", found, "none, both ways".into(), differ.is_some_and(|(d, _)| d == (0, 0))));
    all
}

/// What the drill cannot do or see.
fn left(plan: &Plan, machine: &Machine) -> Vec<String> {
    let mut all = Vec::new();
    if machine.went.last().is_some_and(|w| w.failure.is_some()) {
        let what = match plan.is_live() {
            true => format!("objects in {} of the rules' buckets", place("", &plan.id)),
            false => format!("the canary {}", canary(&plan.id)),
        };
        all.push(format!(
            "{what} may stand still; each site removes its own by itself, at the latest {} after the start",
            seconds(plan.deadline_millis as f64 / 1000.0)
        ));
    }
    if let Some(left @ 1..) = machine.figures.left_versions {
        all.push(format!(
            "{left} versions of the drill's own stay here, hidden by delete markers: object lock keeps them"
        ));
    }
    all.push(
        "moving clients (DNS, load balancer, configuration) is not in the RTO: the drill's client turns at once".into(),
    );
    if plan.kind != Type::Partition && !plan.is_live() {
        all.push("only the canary was fenced: rehearse how your own writers are stopped".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::cost::Way;
    use super::super::ledger::AtRisk;
    use super::super::machine::{Event, Found, Order, Step};
    use super::super::tests::plan;
    use super::*;

    /// A drill that went through with these figures.
    fn report(kind: Type, risk: AtRisk, lag: Option<u64>, served_after: u64, here: u64) -> Report {
        went(plan(kind), risk, lag, served_after, here, None)
    }

    fn went(
        plan: Plan,
        risk: AtRisk,
        lag: Option<u64>,
        served_after: u64,
        here: u64,
        other_way_millis: Option<u64>,
    ) -> Report {
        let mut machine = Machine::new(plan.clone());
        let mut order = machine.step(0, Event::Begin);
        while let Order::Do(step) = order {
            let found = match step {
                Step::Cut | Step::Fence => Found::Fault { at: 1_000, shown_lag_millis: lag },
                Step::Takeover => Found::Served { at: 1_000 + served_after },
                Step::Measure => Found::AtRisk(risk.clone()),
                Step::Hold => Found::Held { other_way_millis },
                Step::FailBack => Found::ServedHere { millis: 300 },
                Step::Verify => Found::Compared { there: 0, here, versions: 9, conflicts: None },
                _ => Found::Nothing,
            };
            order = machine.step(2_000, Event::Done(found));
        }
        let mut report = Report::begun(plan, "fra", 0);
        report.conclude(&machine, Counted::default(), 9_000);
        report
    }

    fn risk(versions: u64, seconds: f64) -> AtRisk {
        AtRisk { versions, seconds, acked: 50, ..AtRisk::default() }
    }

    #[test]
    fn the_verdict_follows_the_objectives() {
        let table = [
            (Type::Partition, risk(3, 0.9), Some(0), 100, 0, Verdict::Pass),
            (Type::Partition, risk(3, 1.1), Some(0), 100, 0, Verdict::Fail),
            (Type::Partition, risk(3, 1.1), Some(200), 100, 0, Verdict::Pass),
            (Type::Partition, risk(0, 0.0), None, 100, 0, Verdict::Fail),
            (Type::SiteLoss, risk(0, 0.0), Some(0), 60_001, 0, Verdict::Fail),
            (Type::SiteLoss, risk(0, 0.0), Some(0), 60_000, 0, Verdict::Pass),
            (Type::Partition, risk(0, 0.0), Some(0), 100, 1, Verdict::Fail),
            (Type::Switchover, risk(0, 0.0), None, 100, 0, Verdict::Pass),
            (Type::Switchover, risk(1, 0.001), Some(5_000), 100, 0, Verdict::Fail),
        ];
        for (kind, risk, lag, served_after, here, verdict) in table {
            let report = report(kind, risk.clone(), lag, served_after, here);
            assert_eq!(report.verdict, verdict, "{kind:?} {risk:?} {lag:?} {served_after} {here}: {}", report.text());
        }
    }

    #[test]
    fn a_cut_in_one_direction_passes_only_if_the_other_goes_on() {
        let one_way = || Plan { direction: Direction::Outbound, ..plan(Type::Partition) };
        let passed = went(one_way(), risk(0, 0.0), Some(0), 100, 0, Some(40));
        assert!(passed.text().starts_with("PASS  outbound partition fra -> ams"), "{}", passed.text());
        assert!(passed.markdown().contains("type: outbound partition"), "{}", passed.markdown());
        let failed = went(one_way(), risk(0, 0.0), Some(0), 100, 0, None);
        assert_eq!((failed.verdict, failed.reason.as_deref()), (Verdict::Fail, Some("other way not measured")));
    }

    #[test]
    fn the_report_says_its_verdict_first_and_keeps_over_json() {
        let report = report(Type::Switchover, risk(0, 0.0), Some(0), 250, 0);
        assert!(report.text().starts_with("PASS  switchover fra -> ams: RPO 0 of 50 versions"), "{}", report.text());
        assert!(report.markdown().contains("| RTO | 0.250s | at most 60s | ok |"), "{}", report.markdown());
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn the_report_tells_its_cost_in_service_level_and_its_trend_wherever_it_is_read() {
        let way = |versions, late| Some(Way { versions, late });
        let mut report = report(Type::Partition, risk(0, 0.0), Some(0), 100, 0);
        assert!(!report.text().contains("service level") && !report.text().contains("trend"), "{}", report.text());
        report.cost = Some(Cost::new(way(300, 2), way(5, 0), Some(61_500)));
        report.trend = Trend::of(&report, &[]);
        let cost = "no cost to users; of the canary's own 2 of 300 versions";
        assert!(report.text().contains(&format!("\nservice level: {cost}")), "{}", report.text());
        assert!(report.markdown().contains(&format!("\nService level: {cost}")), "{}", report.markdown());
        assert!(report.text().contains("\ntrend: the first of its kind"), "{}", report.text());
        assert!(report.markdown().contains("\nTrend: the first of its kind"), "{}", report.markdown());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["cost"]["from_here"]["late"], &json["trend"]["of"]), (&2.into(), &1.into()));
        assert_eq!(serde_json::from_value::<Report>(json.clone()).unwrap(), report);

        report.plan.rules = vec!["orders".into()];
        report.figures.catch_up_seconds = None;
        let line = "spent is the budget of 2000 versions; counted before all had caught up";
        assert!(report.text().contains(line), "{}", report.text());
        // One that was kept by an earlier build.
        let mut former = json;
        former.as_object_mut().unwrap().retain(|field, _| field != "cost" && field != "trend");
        assert_eq!(serde_json::from_value::<Report>(former).unwrap().cost, None);
    }

    #[test]
    fn what_was_refused_says_why_and_shows_no_figures() {
        let report = Report::refused(plan(Type::Partition), "fra", 7, "the peer is down".into());
        assert_eq!(report.text(), "REFUSED  partition fra -> ams: the peer is down\n");
        assert!(report.is_over());
    }
}
