//! `isthmus demo`: three sites on this machine, real files, one of them killed half-way; at the end all
//! sites are compared version by version through S3. Starts real processes and uses only what users
//! use: configuration files, rule files, S3, status.
pub mod compare;
pub mod load;
pub mod sites;
pub mod verdict;

use super::exit;
use super::output::Format;
use anyhow::Context;
use load::Load;
use sites::{Site, Sites};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verdict::{Lag, Verdict};

/// Name of the bucket the demo writes.
pub const BUCKET: &str = "demo";
/// How long the sites may take to agree after the last write.
const CONVERGE: Duration = Duration::from_secs(120);
/// How often the lag of every link is sampled.
const SAMPLE: Duration = Duration::from_millis(200);

/// What the demo takes.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Files to write: this directory's, without `.git` and build output, up to 200 MiB.
    #[arg(long, value_name = "DIR", default_value = ".")]
    from: PathBuf,
    /// Leave the sites running and print how to reach them.
    #[arg(long)]
    keep: bool,
    /// How to print the verdict; `json` is one object on the last line.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Runs the demo. Exit code 0 only if all sites are identical.
///
/// # Errors
/// When the sites cannot be started or reached.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let started = Instant::now();
    let inputs = load::inputs(&args.from).with_context(|| format!("read the files of {}", args.from.display()))?;
    eprintln!("Three sites, full mesh, {} files as input.", inputs.len());
    let mut sites = Sites::start().await.context("start three sites")?;
    match play(&mut sites, inputs, started).await {
        Ok(verdict) => {
            let is_clean = verdict.verdict == "converged";
            verdict.print(args.output);
            if args.keep {
                sites.keep(is_clean).await?
            } else {
                sites.stop(is_clean).await?
            }
            Ok(if is_clean { exit::OK } else { exit::DEGRADED })
        }
        Err(e) => {
            sites.stop(false).await?;
            Err(e)
        }
    }
}

async fn play(sites: &mut Sites, inputs: Vec<load::Input>, started: Instant) -> anyhow::Result<Verdict> {
    let watch = watch_lag(sites);
    let load = Arc::new(Load::new(inputs));

    eprintln!("Writing on all three sites at once.");
    load.first_half(sites).await.context("write the first half")?;
    eprintln!("kill -9 of site {}; writing goes on elsewhere.", sites.last().name);
    sites.kill_last().await?;
    load.second_half(&sites.all()[..2]).await.context("write the second half")?;
    eprintln!("Starting site {} again.", sites.last().name);
    sites.restart_last().await.context("start the killed site again")?;
    let back = Instant::now();
    sites.until_drained(CONVERGE).await?;
    let catch_up = back.elapsed();
    // The returned site writes too: what it makes now must travel like everything else.
    load.after_return(sites.last()).await.context("write on the returned site")?;
    sites.until_drained(CONVERGE).await?;
    let lag = watch.stop().await;

    eprintln!("Comparing all sites version by version.");
    let compared = compare::all(sites.all()).await.context("compare the sites")?;
    Ok(Verdict::new(&compared, lag, catch_up, started.elapsed()))
}

/// Samples the lag of every link while it runs, and shows it.
struct Watch {
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<Lag>,
}

fn watch_lag(sites: &Sites) -> Watch {
    let stop = tokio_util::sync::CancellationToken::new();
    let token = stop.clone();
    let away = sites.away();
    let sites: Vec<Site> = sites.all().to_vec();
    let task = tokio::spawn(async move {
        let bar = indicatif::ProgressBar::new_spinner();
        bar.set_style(indicatif::ProgressStyle::with_template("{spinner} {wide_msg}").expect("a fixed template"));
        let mut lag = Lag::default();
        let mut tick = tokio::time::interval(SAMPLE);
        loop {
            tokio::select! {
                () = token.cancelled() => { bar.finish_and_clear(); return lag; }
                _ = tick.tick() => {}
            }
            let mut line = Vec::new();
            for site in &sites {
                let Ok(report) = site.status().await else { continue };
                for link in &report.links {
                    let shown = link.lag_seconds.map_or("?".into(), super::output::seconds);
                    line.push(format!("{}→{} {shown}", site.name, link.peer));
                    let involved = away.lock().expect("no panic while held").clone();
                    if let (None, Some(seconds)) =
                        (involved.filter(|a| a == &site.name || a == &link.peer), link.lag_seconds)
                    {
                        lag.samples.push(seconds);
                    }
                }
            }
            bar.set_message(format!("lag  {}", line.join("  ")));
        }
    });
    Watch { stop, task }
}

impl Watch {
    async fn stop(self) -> Lag {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}
