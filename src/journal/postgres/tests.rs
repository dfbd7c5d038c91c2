use super::server::Server;
use super::*;
use std::io::Write;
use std::sync::Arc;
use tempfile::TempDir;

/// A server, or one line that says why there is none.
async fn server(more: &[&str]) -> Option<Server> {
    // Past the test harness, which shows what a passing test prints to nobody.
    let skip = |why: &String| writeln!(std::io::stderr(), "SKIPPED: journal on PostgreSQL: {why}").expect("stderr");
    Server::start(more).await.inspect_err(skip).ok()
}

fn settings(url_file: PathBuf) -> Settings {
    Settings { url_file, tls: Tls::VerifyFull, ca_file: None, connections_max: 2 }
}

fn link() -> LinkId {
    LinkId { rule: "r".into(), bucket: "b".into(), peer: "p".into() }
}

const TERMS: ClaimTerms = ClaimTerms { at_least: 0, lease: Duration::from_secs(600), patience: Duration::ZERO };

#[tokio::test(flavor = "multi_thread")]
async fn postgres_journal_conforms() {
    // As a careless database would have it: the journal asks for what it needs.
    let Some(server) = server(&["synchronous_commit=off"]).await else { return };
    let settings = settings(server.url_file());
    let open = async || Arc::new(PostgresJournal::open(settings.clone()).await.unwrap()) as Arc<dyn Journal>;
    crate::journal::conformance::run(open).await;
    crate::journal::conformance::run_shared(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_outlives_the_server_and_the_pool_finds_it_again() {
    let Some(mut server) = server(&["synchronous_commit=off"]).await else { return };
    let journal = PostgresJournal::open(settings(server.url_file())).await.unwrap();
    let Claim::Owned { epoch } = journal.claim(&link(), "me", TERMS).await.unwrap() else { panic!("it is free") };
    for at in 1..=20 {
        let checkpoint = Checkpoint { committed_through: at, ..Checkpoint::default() };
        journal.record(&link(), epoch, &Record { checkpoint, ..Record::default() }).await.unwrap();
    }
    server.crash_and_restart().await;
    let again = async {
        loop {
            match journal.load(&link(), 1).await {
                Ok((checkpoint, _)) => return checkpoint.unwrap().committed_through,
                Err(e) => assert!(e.is_retryable(), "{e}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), again).await.expect("it answers again"), 20);
    server.stop();
    let refused = journal.record(&link(), epoch, &Record::default()).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
}

#[tokio::test]
async fn what_a_person_must_mend_is_told_with_the_place_and_without_the_password() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("url");
    let said = async || match PostgresJournal::open(settings(file.clone())).await {
        Err(Error::Unusable(said)) => said,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    };
    assert!(said().await.contains("write the database's URL into it"));
    std::fs::write(&file, "mysql://u:hush@h/d").unwrap();
    let told = said().await;
    assert!(told.contains("postgres://") && !told.contains("hush"), "{told}");
    let Some(server) = server(&[]).await else { return };
    std::fs::write(&file, server.url().replace("/postgres?", "/nowhere?")).unwrap();
    let told = said().await;
    assert!(told.contains("nowhere") && told.contains("create the database"), "{told}");
    std::fs::write(&file, server.url().replace("user=isthmus", "user=nobody")).unwrap();
    assert!(said().await.contains("look at the user"), "{}", said().await);
}
