//! Traces of real processes: one trace from the PUT at one site to the version at the other, nothing of what is not sampled,
//! and a collector that is away disturbs nobody.
use crate::collector::{Collector, Span, tree};
use crate::proxy::Fault;
use crate::site::{BUCKET, Fleet, LOOK, Site};
use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode, Tag, Tagging,
};
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use storage_engine::clock::{Clock, SystemClock};

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "a-key-that-nobody-shows";

/// The whole way of a change, as the two sites tell it, behind the name of its request.
const WAY: &str = "\
server fra
  link.wait internal fra
    link.push client fra
      peer.apply server ams
        store.commit internal ams
  store.commit internal fra
";

/// That of a guard: whoever learns of one passes it on, and is told that it is known.
const GUARDS_WAY: &str = "\
server fra
  link.wait internal fra
    link.push client fra
      peer.apply server ams
        link.wait internal ams
          link.push client ams
            peer.apply server fra
        store.commit internal ams
  store.commit internal fra
";

/// The way of what this request did.
fn way_of(request: &str) -> String {
    format!("S3.{request} {WAY}")
}

/// Name, kind and site of each span below this one.
fn way(spans: &[Span], root: &str) -> String {
    tree(spans, root, &|span| {
        let kind = format!("{:?}", span.kind).to_lowercase();
        format!("{} {kind} {}", span.name, span.says("isthmus.site"))
    })
}

/// The same with times, for people (docs/tracing.md).
fn timed(spans: &[Span], root: &str) -> String {
    let zero = spans.iter().map(|s| s.began).min().unwrap_or_default();
    let millis = |nanos: u64| nanos as f64 / 1e6;
    tree(spans, root, &|span| {
        let (at, took) = (millis(span.began - zero), millis(span.ended - span.began));
        let words =
            ["attempt", "bytes", "acks", "drives", "outcome"].map(|word| (word, span.says(&format!("isthmus.{word}"))));
        let said: Vec<_> =
            words.iter().filter(|(_, said)| !said.is_empty()).map(|(w, said)| format!("{w}={said}")).collect();
        format!("{} ({}) +{at:.1} ms, {took:.1} ms  {}", span.name, span.says("isthmus.site"), said.join(" "))
    })
}

/// A traceparent of trace `number`, sampled or not.
fn traceparent(number: u8, is_sampled: bool) -> (String, String) {
    let trace = format!("0af7651916cd43dd8448eb211c8031{number:02x}");
    let text = format!("00-{trace}-{CLIENT}-{:02x}", u8::from(is_sampled));
    (trace, text)
}

/// The span of the client.
const CLIENT: &str = "b7ad6b7169203331";

/// Sends it with a request.
fn with(traceparent: Option<String>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    move |request| {
        if let Some(traceparent) = &traceparent {
            request.headers_mut().insert("traceparent", traceparent.clone());
        }
    }
}

/// The id of the version it made.
async fn put(site: &Site, key: &str, size: usize, traceparent: Option<String>) -> String {
    let body = ByteStream::from(vec![7; size]);
    let request = site.s3().client.put_object().bucket(BUCKET).key(key).body(body).customize();
    let sent = request.mutate_request(with(traceparent)).send().await.expect("an acked put");
    sent.version_id.expect("the bucket has versions")
}

/// Gives the version tags, hides it and deletes it for good, each in a trace of its own; requests and traces.
async fn change(fleet: &Fleet, site: &Site, version: &str) -> [(&'static str, String); 3] {
    let client = site.s3().client;
    let traces = [4, 5, 6].map(|number| traceparent(number, true));
    let [tagged, marked, purged] = traces.clone().map(|(_, header)| with(Some(header)));
    let tag = Tag::builder().key("a").value("b").build().expect("a tag");
    let tags = Tagging::builder().tag_set(tag).build().expect("a set");
    let request = client.put_object_tagging().bucket(BUCKET).key(KEY).version_id(version).tagging(tags);
    request.customize().mutate_request(tagged).send().await.expect("tags");
    // Of two changes of a version that wait together only one is pushed.
    fleet.drained(PATIENCE).await;
    let request = client.delete_object().bucket(BUCKET).key(KEY);
    request.customize().mutate_request(marked).send().await.expect("a delete marker");
    let request = client.delete_object().bucket(BUCKET).key(KEY).version_id(version);
    request.customize().mutate_request(purged).send().await.expect("a version that is gone");
    fleet.drained(PATIENCE).await;
    let [tagged, marked, purged] = traces.map(|(trace, _)| trace);
    [("PutObjectTagging", tagged), ("DeleteObject", marked), ("DeleteObject", purged)]
}

/// Versions that the peer took, by what was newest of them.
fn brought(shown: &str, op: &str) -> u64 {
    let is_of =
        |line: &&str| line.starts_with("isthmus_link_versions_total{") && line.contains(&format!("op=\"{op}\""));
    let counts = shown.lines().filter(is_of).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// Holds and retains another version, each in a trace of its own; requests and traces.
async fn guard(fleet: &Fleet, site: &Site) -> [(&'static str, String); 2] {
    let (client, key) = (site.s3().client, "guarded");
    let version = put(site, key, 10, Some(traceparent(8, false).1)).await;
    fleet.drained(PATIENCE).await;
    let traces = [9, 10].map(|number| traceparent(number, true));
    let [held, retained] = traces.clone().map(|(_, header)| with(Some(header)));
    let hold = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::On).build();
    let request = client.put_object_legal_hold().bucket(BUCKET).key(key).version_id(&version).legal_hold(hold);
    request.customize().mutate_request(held).send().await.expect("a hold");
    fleet.drained(PATIENCE).await;
    let until = DateTime::from_secs((SystemClock.now_millis() / 1000 + 3600).cast_signed());
    let retention = ObjectLockRetention::builder().mode(ObjectLockRetentionMode::Governance).retain_until_date(until);
    let request = client.put_object_retention().bucket(BUCKET).key(key).version_id(&version);
    let request = request.retention(retention.build());
    request.customize().mutate_request(retained).send().await.expect("a retention");
    fleet.drained(PATIENCE).await;
    let [held, retained] = traces.map(|(trace, _)| trace);
    [("PutObjectLegalHold", held), ("PutObjectRetention", retained)]
}

/// Puts a key that the peer does not take, until it says so: the line of its log bears the id of the trace.
async fn refused(from: &Site, to: &Site) {
    let grant = to.dir.join(format!("rules/peer-{}.yaml", from.name));
    let text = fs::read_to_string(&grant).expect("a grant");
    fs::write(&grant, text.replace("bucket: orders,", "bucket: orders, prefix: public/,")).expect("a smaller one");
    let (trace, header) = traceparent(7, true);
    let deadline = Instant::now() + PATIENCE;
    loop {
        put(from, "refused", 10, Some(header.clone())).await;
        let log = fs::read_to_string(to.dir.join("log")).expect("a log");
        if let Some(line) = log.lines().find(|line| line.contains("A version was refused.")) {
            let said: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(said["span"]["trace_id"], trace.as_str(), "{line}");
            return;
        }
        assert!(Instant::now() < deadline, "nothing was refused:\n{log}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_put_to_the_version_at_the_other_site() {
    let collector = Collector::start().await;
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    for site in [fra, ams] {
        let settings = site.dir.join("site.yaml");
        let text = fs::read_to_string(&settings).expect("settings");
        fs::write(settings, text.replace("versioning: true", "versioning: true, object_lock: true"))
            .expect("with lock");
        site.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.addr));
        site.set("OTEL_TRACES_SAMPLER", "parentbased_always_on");
    }
    fra.set("OTEL_BSP_SCHEDULE_DELAY", "50");
    // What ams has to say comes at its end.
    ams.set("OTEL_BSP_SCHEDULE_DELAY", "600000");
    fra.start().await;
    ams.start().await;
    fleet.drained(PATIENCE).await;

    let (sampled, header) = traceparent(1, true);
    let version = put(fra, KEY, 10, Some(header)).await;
    fleet.drained(PATIENCE).await;
    // A later version in the same bucket would leave its own.
    let shown = fra.metrics().await;
    for of in ["isthmus_link_commit_to_ack_seconds_bucket", "isthmus_store_request_seconds_bucket"] {
        let is_its = |line: &&str| line.starts_with(of) && line.contains(&format!("# {{trace_id=\"{sampled}\"}}"));
        assert!(shown.lines().any(|line| is_its(&line)), "no exemplar of {of} in\n{shown}");
    }
    let (unsampled, header) = traceparent(2, false);
    put(fra, "not-sampled", 10, Some(header)).await;
    put(fra, "without-a-trace", 10, None).await;
    fleet.drained(PATIENCE).await;
    assert!(shown.contains(r#"isthmus_trace_spans_total{site="fra",result="dropped"} 0"#), "{shown}");

    let before = fra.metrics().await;
    let changes = change(&fleet, fra, &version).await;
    let after = fra.metrics().await;
    for (op, more) in [("put", 0), ("meta", 1), ("marker", 1), ("purge", 1)] {
        let [before, after] = [&before, &after].map(|shown| brought(shown, op));
        assert_eq!(after - before, more, "{op}");
    }
    let guards = guard(&fleet, fra).await;

    // The line breaks in the middle of a version.
    let (broken, header) = traceparent(3, true);
    fleet.proxies[0].set(Fault::ResetAfter(200_000));
    put(fra, "broken", 4 << 20, Some(header)).await;
    let is_push = |span: &Span| span.trace == broken && span.name == "link.push";
    let first = collector.until(PATIENCE, "failed push", |span| is_push(span) && span.is_failure).await;
    fleet.heal();
    fleet.drained(PATIENCE).await;
    refused(fra, ams).await;
    for site in [fra, ams] {
        assert!(site.stop().await.success(), "a clean end");
    }

    let spans = collector.of(&sampled);
    println!("{}", timed(&spans, CLIENT));
    assert_eq!(way(&spans, CLIENT), way_of("PutObject"), "{spans:#?}");
    assert_eq!(spans.len(), WAY.lines().count(), "a span without its parent: {spans:#?}");
    let apply = spans.iter().find(|s| s.name == "peer.apply").expect("it is in the tree");
    assert_eq!(apply.events, ["readable"]);
    for (name, value) in [("peer", "fra"), ("origin", "fra"), ("bucket", BUCKET), ("outcome", "applied")] {
        assert_eq!(apply.says(&format!("isthmus.{name}")), value);
    }
    let put = spans.iter().find(|s| s.name == "S3.PutObject").expect("it is in the tree");
    assert!(spans.iter().all(|s| s.says("isthmus.version_id") == put.says("isthmus.version_id")), "{spans:#?}");
    assert!(!format!("{:?}", collector.all()).contains(KEY), "keys stand as hashes");

    for (request, trace) in &changes {
        let spans = collector.of(trace);
        println!("{}", timed(&spans, CLIENT));
        assert_eq!((way(&spans, CLIENT), spans.len()), (way_of(request), WAY.lines().count()), "{spans:#?}");
        assert!(spans.iter().all(|s| !s.says("isthmus.version_id").is_empty()), "{spans:#?}");
    }

    for (request, trace) in &guards {
        let spans = collector.of(trace);
        println!("{}", timed(&spans, CLIENT));
        assert_eq!(way(&spans, CLIENT), format!("S3.{request} {GUARDS_WAY}"), "{spans:#?}");
    }

    assert!(collector.of(&unsampled).is_empty(), "{:#?}", collector.of(&unsampled));

    // The store began this one, and the link and the peer went on with it.
    let own: Vec<_> = collector.all().into_iter().filter(|s| s.name == "S3.PutObject" && s.parent.is_empty()).collect();
    let [own] = &own[..] else { panic!("one PUT came without a trace: {own:#?}") };
    let spans = collector.of(&own.trace);
    assert_eq!((way(&spans, ""), spans.len()), (way_of("PutObject"), WAY.lines().count()), "{spans:#?}");

    let spans = collector.of(&broken);
    println!("{}", timed(&spans, CLIENT));
    let later: Vec<_> = spans.iter().filter(|s| is_push(s) && s.id != first.id).collect();
    assert!(!later.is_empty(), "{spans:#?}");
    assert!(later.iter().all(|s| s.links == [first.id.clone()] && s.parent == first.parent), "{spans:#?}");
    assert_eq!(later.iter().filter(|s| !s.is_failure).count(), 1, "one attempt succeeds: {spans:#?}");
    assert_eq!(spans.iter().filter(|s| s.name == "link.wait").count(), 1, "{spans:#?}");
    let is_there = |id: &str| id == CLIENT || spans.iter().any(|s| s.id == id);
    assert!(spans.iter().all(|s| is_there(&s.parent)), "a span without its parent: {spans:#?}");
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_failed_stays_in_its_trace_over_a_restart() {
    let collector = Collector::start().await;
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    for site in [fra, ams] {
        site.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.addr));
        site.set("OTEL_TRACES_SAMPLER", "parentbased_always_on");
        site.set("OTEL_BSP_SCHEDULE_DELAY", "50");
        site.start().await;
    }
    fleet.drained(PATIENCE).await;
    let grant = ams.dir.join("rules/peer-fra.yaml");
    let whole = fs::read_to_string(&grant).expect("a grant");
    fs::write(&grant, whole.replace("bucket: orders,", "bucket: orders, prefix: public/,")).expect("a smaller one");
    let (trace, header) = traceparent(11, true);
    let is_push = |span: &Span| span.trace == trace && span.name == "link.push";
    // The smaller grant takes effect within a moment: what came before it got there.
    let mut refused = None;
    while refused.is_none() {
        put(fra, "refused", 10, Some(header.clone())).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        refused = collector.all().into_iter().find(|span| is_push(span) && span.is_failure);
    }
    assert!(fra.stop().await.success(), "a clean end");
    let tried: Vec<_> = collector.all().into_iter().filter(is_push).map(|span| span.id).collect();
    fs::write(&grant, whole).expect("the grant of before");
    fra.start().await;
    let is_later = |span: &Span| is_push(span) && !tried.contains(&span.id) && !span.is_failure;
    let later = collector.until(PATIENCE, "a push of the next life", is_later).await;
    fleet.drained(PATIENCE).await;
    for site in [fra, ams] {
        assert!(site.stop().await.success(), "a clean end");
    }
    let spans = collector.of(&trace);
    let named = |name: &str, parent: &str| spans.iter().filter(|s| s.name == name && s.parent == parent).count();
    let wait = spans.iter().find(|s| s.id == later.parent).expect("the wait before it");
    let put = spans.iter().find(|s| s.id == wait.parent).expect("the request before that");
    assert_eq!((wait.name.as_str(), put.name.as_str()), ("link.wait", "S3.PutObject"));
    assert_eq!(named("peer.apply", &later.id), 1, "{spans:#?}");
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_stops_nothing_and_without_one_nothing_is_exported() {
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    // A port that refuses: it was bound a moment ago.
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    fra.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{gone}"));
    fra.set("OTEL_BSP_SCHEDULE_DELAY", "50");
    for site in [fra, ams] {
        site.set("OTEL_TRACES_SAMPLER", "always_on");
        site.start().await;
    }
    let dropped = regex::Regex::new(r#"isthmus_trace_spans_total\{site="fra",result="dropped"\} [1-9]"#).expect("one");
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        put(fra, &format!("{number}"), 10, None).await;
        fleet.drained(PATIENCE).await;
        if number > 2 && dropped.is_match(&fra.metrics().await) {
            break;
        }
        assert!(Instant::now() < deadline, "no span was dropped:\n{}", fra.metrics().await);
    }
    assert!(!ams.metrics().await.contains("trace_"), "nothing is exported where nothing is asked for");
    let exporter = |site: &Site| {
        let threads = fs::read_dir(format!("/proc/{}/task", site.process())).expect("the site runs");
        threads
            .flatten()
            .any(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.starts_with("OpenTelemetry")))
    };
    assert!(exporter(fra) && !exporter(ams), "only fra exports");
    let began = Instant::now();
    assert!(fra.stop().await.success(), "a clean end");
    assert!(began.elapsed() < Duration::from_secs(20), "the end waits for the collector: {:?}", began.elapsed());
    let log = fs::read_to_string(fra.dir.join("log")).expect("a log");
    assert_eq!(log.matches("The collector takes no spans").count(), 1, "one line, not one a span:\n{log}");
    fleet.no_alarm();
}
