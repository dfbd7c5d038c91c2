//! `isthmus drill run|list|report|abort`: rehearses a failure with a peer, on a canary bucket or on rules that are named, and
//! shows the reports.
use super::output::{self, Format};
use super::socket::{self, Failed, Method};
use super::{Asking, exit};
use crate::drill::report::{Report, Verdict};
use crate::drill::trend;
use crate::drill::{BESIDE_MILLIS, Direction, Load, Type, confirmed};
use crate::rule::accept::duration_millis;
use crate::rule::resource::shared::Duration as Written;
use clap::{Subcommand, ValueEnum};
use std::time::Duration;
use tokio::time::Instant;

/// How often a running drill is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What to do with drills.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Injects one failure between this site and a peer, on a bucket of its own unless told otherwise, measures, and puts
    /// all back.
    Run(Run),
    /// The drills this site drove, newest first.
    List(Asking),
    /// The report of one drill, or of the last.
    Report(Shown),
    /// Ends the drill that runs, and removes what a killed one left.
    Abort(Asking),
}

/// What a drill touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// A bucket made for the drill at both sites, and removed after it.
    Canary,
    /// The links of the rules that are named, both ways: clients feel it.
    Live,
}

#[derive(clap::Args, Debug)]
struct Run {
    #[command(flatten)]
    asking: Asking,
    /// Name of the Peer; its own Peer document for this site must say `drills: Enabled`.
    #[arg(long)]
    peer: String,
    /// Which failure.
    #[arg(long = "type", value_enum, default_value_t)]
    kind: Type,
    /// Which way a partition cuts, seen from this site; the other one goes on.
    #[arg(long, value_enum, default_value_t)]
    direction: Direction,
    /// How long the fault stays, or the peer serves.
    #[arg(long, value_parser = millis, default_value = "30s")]
    duration: u64,
    /// The drill is over so long after its start, whatever happens; left out: 2m more than the duration.
    #[arg(long, value_parser = millis)]
    deadline: Option<u64>,
    /// What the drill touches.
    #[arg(long, value_enum, default_value = "canary")]
    scope: Scope,
    /// A rule whose link to the peer a live drill acts on; may be given several times.
    #[arg(long = "rule")]
    rules: Vec<String>,
    /// The names of these rules once more, with commas between, for a live drill.
    #[arg(long, value_delimiter = ',')]
    confirm: Vec<String>,
    /// Writes a second of the workload; a live drill makes at most 200.
    #[arg(long, default_value_t = Load::default().writes_per_second)]
    writes_per_second: u32,
    /// Bytes of each object.
    #[arg(long, default_value_t = Load::default().object_bytes)]
    object_bytes: u32,
    /// Share of the writes that are deletes.
    #[arg(long, default_value_t = Load::default().delete_percent)]
    delete_percent: u32,
}

#[derive(clap::Args, Debug)]
struct Shown {
    #[command(flatten)]
    asking: Asking,
    /// Id of the drill; left out: the last one.
    id: Option<String>,
    /// The whole report as Markdown.
    #[arg(long)]
    markdown: bool,
}

fn millis(text: &str) -> Result<u64, String> {
    duration_millis(&Written(text.into())).ok_or_else(|| "write a duration as 30s or 1m30s".into())
}

/// Exit code: 0 pass (or shown), 1 failed, aborted or refused by its preflight, 2 could not find out, 64 no such peer.
pub async fn run(args: &Args) -> u8 {
    match &args.verb {
        Verb::Run(run) => drilled(run).await,
        Verb::List(asking) => listed(asking).await,
        Verb::Report(shown) => report(shown).await,
        Verb::Abort(asking) => abort(asking).await,
    }
}

async fn drilled(run: &Run) -> u8 {
    let fits = match run.scope {
        Scope::Canary if run.rules.is_empty() && run.confirm.is_empty() => Ok(()),
        Scope::Canary => Err("--rule and --confirm are for --scope live: a canary has a rule of its own".into()),
        Scope::Live if run.rules.is_empty() => Err("--scope live needs --rule, for each rule it is to act on".into()),
        Scope::Live => confirmed(&run.rules, &run.confirm).map_err(|why| format!("{why} (--confirm)")),
    };
    if let Err(why) = fits {
        return Failed::Refused(why).say();
    }
    match to_its_end(run).await {
        Ok(report) => {
            print(run.asking.output, &report);
            code(&report)
        }
        Err(failed) => failed.say(),
    }
}

async fn to_its_end(run: &Run) -> Result<Report, Failed> {
    let deadline = run.deadline.unwrap_or(run.duration.saturating_add(BESIDE_MILLIS));
    let query = [
        ("peer", run.peer.clone()),
        ("type", run.kind.name().into()),
        ("direction", run.direction.name().into()),
        ("duration_millis", run.duration.to_string()),
        ("deadline_millis", deadline.to_string()),
        ("writes_per_second", run.writes_per_second.to_string()),
        ("object_bytes", run.object_bytes.to_string()),
        ("delete_percent", run.delete_percent.to_string()),
        ("rules", run.rules.join(",")),
        ("confirm", run.confirm.join(",")),
    ];
    let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let socket = &run.asking.socket;
    let mut report: Report = socket::ask(socket, Method::POST, &socket::with_query("/drill", &query)).await?;
    let look = socket::with_query("/drill", &[("id", &report.plan.id)]);
    let (began, mut said) = (Instant::now(), 0);
    while !report.is_over() {
        // A line as each step begins.
        for went in report.steps.iter().skip(said) {
            eprintln!("{:>6}  {}", output::seconds(began.elapsed().as_secs_f64()), went.step.name());
        }
        said = report.steps.len();
        tokio::time::sleep(LOOK).await;
        report = socket::ask(socket, Method::GET, &look).await?;
    }
    Ok(report)
}

fn code(report: &Report) -> u8 {
    match report.verdict {
        Verdict::Pass => exit::OK,
        Verdict::Running => exit::UNKNOWN,
        Verdict::Fail | Verdict::Aborted | Verdict::Refused => exit::DEGRADED,
    }
}

fn print(format: Format, report: &Report) {
    match format {
        format @ (Format::Json | Format::Yaml) => output::data(format, report),
        Format::Table | Format::Wide => say_all!(report.text()),
    }
}

async fn listed(asking: &Asking) -> u8 {
    let all: Vec<Report> = match socket::ask(&asking.socket, Method::GET, "/drills").await {
        Ok(all) => all,
        Err(failed) => return failed.say(),
    };
    if asking.output.is_data() {
        output::data(asking.output, &all);
        return exit::OK;
    }
    let seconds = |s: Option<f64>| s.map_or("-".into(), |s| format!("{s:.3}s"));
    let row = |r: &Report| {
        vec![
            r.plan.id.clone(),
            output::utc(r.began_at),
            r.plan.kind.name().into(),
            r.plan.peer.clone(),
            r.verdict.word().into(),
            seconds(r.figures.at_risk.as_ref().map(|risk| risk.seconds)),
            seconds(r.figures.rto_seconds),
        ]
    };
    match all.first() {
        None => say!("NONE  this site drove no drill. Next: isthmus drill run --peer PEER"),
        Some(last) => {
            let head = ["ID", "BEGAN", "TYPE", "PEER", "VERDICT", "RPO", "RTO"];
            let (passed, of) = trend::passed(&all);
            let all = output::table(&head, all.iter().map(row).collect());
            let passed = if of > 0 { format!("; {passed} of the last {of} passed") } else { String::new() };
            say!("{}{passed}\n\n{all}", last.headline());
        }
    }
    exit::OK
}

async fn report(shown: &Shown) -> u8 {
    let query: Vec<(&str, &str)> = shown.id.iter().map(|id| ("id", id.as_str())).collect();
    let path = socket::with_query("/drill", &query);
    let report: Report = match socket::ask(&shown.asking.socket, Method::GET, &path).await {
        Ok(report) => report,
        Err(failed) => return failed.say(),
    };
    match shown.markdown {
        true => say_all!(report.markdown()),
        false => print(shown.asking.output, &report),
    }
    code(&report)
}

async fn abort(asking: &Asking) -> u8 {
    let said: String = match socket::ask(&asking.socket, Method::POST, "/drill/abort").await {
        Ok(said) => said,
        Err(failed) => return failed.say(),
    };
    match asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &said),
        Format::Table | Format::Wide => say!("ABORTED  {said}"),
    }
    exit::OK
}
