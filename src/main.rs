//! The binary: installs the TLS provider, parses, runs one role or verb, returns its exit code.
use clap::Parser;
use isthmus::cli::{self, Cli, Verb, exit};
use isthmus::{role, telemetry};
use std::process::ExitCode;

fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing installed a TLS provider before main");
    let cli = Cli::try_parse().unwrap_or_else(|e| {
        let usage = e.use_stderr();
        e.print().ok();
        std::process::exit(if usage { i32::from(exit::USAGE) } else { 0 })
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("isthmus: start the runtime: {e}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    ExitCode::from(runtime.block_on(run(cli.verb)))
}

/// Runs a role with its logs and traces; the last spans are sent when it has ended.
async fn telling(role: impl Future<Output = u8>) -> u8 {
    if let Err(e) = telemetry::init() {
        eprintln!("isthmus: {e}");
        return exit::USAGE;
    }
    let code = role.await;
    telemetry::trace::flush().await;
    code
}

async fn run(verb: Verb) -> u8 {
    match verb {
        Verb::Site { config } => telling(role::site::run(&config)).await,
        Verb::Store(run) => telling(role::store::run(run.config())).await,
        Verb::Replicator { config, kubeconfig } => telling(role::replicator::run(config.as_deref(), kubeconfig)).await,
        Verb::Check(args) => cli::check::run(&args).await,
        Verb::Certs(args) => cli::certs::run(&args),
        Verb::Crds(args) => cli::crds::run(&args),
        Verb::Dashboards(args) => cli::dashboards::run(&args),
        Verb::Metrics(args) => cli::metrics::run(&args),
        Verb::Demo(args) => cli::demo::run(args).await.unwrap_or_else(|e| {
            eprintln!("isthmus demo: {e:#}");
            exit::INTERNAL
        }),
        Verb::Status { socket, output, watch } => watch.run(async || cli::status::run(&socket, output).await).await,
        Verb::Lag(args) => args.watch.run(async || cli::lag::run(&args.asking).await).await,
        Verb::Backlog(args) => args.watch.run(async || cli::backlog::run(&args).await).await,
        Verb::Conflicts(args) => cli::conflicts::run(&args).await,
        Verb::Explain(args) => cli::explain::run(&args).await,
        Verb::Retry(args) => cli::retry::run(&args).await,
        Verb::Release(args) => cli::release::run(&args).await,
        Verb::Suspend(args) => cli::suspend::suspend(&args).await,
        Verb::Resume(args) => cli::suspend::resume(&args).await,
        Verb::Verify(args) => cli::verify::run(&args).await,
        Verb::Drill(args) => cli::drill::run(&args).await,
        Verb::Failover(args) => cli::failover::run(&args).await,
        Verb::Completions(args) => cli::completions::run(&args),
        Verb::Man(args) => cli::man::run(&args),
        Verb::Diff { a, b, bucket, output } => cli::diff::run(&a, &b, &bucket, output).await,
    }
}
