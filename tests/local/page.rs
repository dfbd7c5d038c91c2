//! The status page of real processes: what it shows, that it shows a peer's end and return and what waits for a person, and, where there is a Chromium,
//! that a browser takes it as it is.
use crate::site::{Fleet, LOOK, Site};
use bytes::Bytes;
use std::fs;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

/// What fra's page asks for.
const TOKEN: &str = "a-token-of-the-tests";
/// What a user may call an object.
const KEY: &str = "<img src=x onerror='go()'>&amp;";

/// Head and body of an answer to a reader with this token.
async fn get(site: &Site, path: &str, token: &str) -> (String, String) {
    let admin = site.door().expect("the site runs").admin;
    let mut stream = TcpStream::connect(admin).await.expect("the admin port is open");
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: isthmus\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an answer");
    let (head, body) = said.split_once("\r\n\r\n").expect("an answer of HTTP");
    (head.to_lowercase(), body.to_owned())
}

async fn until_it_says(site: &Site, what: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, body) = get(site, "/", TOKEN).await;
        let missing: Vec<_> = what.iter().filter(|what| !body.contains(**what)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "no {missing:?} in\n{body}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_waits_to_who_may_know_it_and_a_peer_go_and_come_back() {
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    rewrite(fra, "site.yaml", "rules_dir: rules\n", "rules_dir: rules\npage_token_file: page-token\n");
    fs::write(fra.dir.join("page-token"), TOKEN).expect("write a token");
    fra.start().await;
    ams.start().await;
    fra.s3().put("a-key-that-is-there", Bytes::from("x")).await.expect("an acked put");
    fleet.drained(PATIENCE).await;
    until_it_says(fra, &["<strong>HEALTHY</strong>", "Lag to peers: ams 0.", "<td>orders</td>"]).await;

    let began = Instant::now();
    let (head, body) = get(fra, "/", TOKEN).await;
    println!("{} bytes in {:?}", body.len(), began.elapsed());
    assert!(body.len() < 100_000 && !body.contains("a-key-that-is-there"), "{body}");
    for header in ["200 ok", "content-security-policy: default-src 'none'", "cache-control: no-store"] {
        assert!(head.contains(header), "no {header} in\n{head}");
    }
    let (head, body) = get(fra, "/", "a-guess-of-somebody").await;
    assert!(
        head.contains("401") && head.contains("www-authenticate: basic") && !body.contains("orders"),
        "{head}{body}"
    );
    assert!(get(fra, "/status.css", "").await.0.contains("text/css"));

    // The same key on both sides, neither knowing of the other; then one that ams does not take.
    ams.kill().await;
    fra.s3().put(KEY, Bytes::from("y")).await.expect("an acked put");
    until_it_says(
        fra,
        &[
            "<strong>DEGRADED</strong>",
            "peer ams is down since 20",
            "isthmus explain --peer ams",
            "Lag to peers: ams down",
        ],
    )
    .await;
    fra.kill().await;
    ams.start().await;
    ams.s3().put(KEY, Bytes::from("z")).await.expect("an acked put");
    fra.start().await;
    until_it_says(fra, &["<strong>HEALTHY</strong>", "<code>isthmus explain 'orders/&lt;img src=x"]).await;
    rewrite(ams, "rules/peer-fra.yaml", "bucket: orders,", "bucket: orders, prefix: public/,");
    let deadline = Instant::now() + PATIENCE;
    // The grant takes effect within a moment; what came before is taken.
    while fra.status().await.is_ok_and(|r| r.links.iter().all(|l| l.parked_versions == 0)) {
        fra.s3().put(KEY, Bytes::from("w")).await.expect("an acked put");
        assert!(Instant::now() < deadline, "nothing was parked");
        tokio::time::sleep(LOOK).await;
    }
    until_it_says(
        fra,
        &["<td>orders/&lt;img src=x onerror='go()'&gt;&amp;amp;</td>", "isthmus retry orders --version"],
    )
    .await;
    in_a_browser(fra, &["DEGRADED", "isthmus retry orders --version", "&lt;img src=x"]).await;
    let (_, body) = get(ams, "/", "").await;
    assert!(body.contains("isthmus conflicts") && !body.contains("&lt;img"), "an open page shows no key: {body}");
    fleet.no_alarm();
}

/// Changes a file of a site.
fn rewrite(site: &Site, file: &str, from: &str, to: &str) {
    crate::process::rewrite(&site.dir.join(file), from, to);
}

/// Renders the page in Chromium, narrow: it must show all of this, take no key for markup, and complain of nothing.
async fn in_a_browser(site: &Site, what: &[&str]) {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=400,900"]);
    command.arg(format!("--user-data-dir={}", site.dir.join("chromium").display())).arg("--dump-dom");
    command.arg(format!("http://any:{TOKEN}@{}/", site.door().expect("it runs").admin)).kill_on_drop(true);
    let Ok(ran) = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends") else {
        println!("SKIPPED: chromium is not installed (Debian: apt-get install chromium)");
        return;
    };
    let (dom, log) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && what.iter().all(|what| dom.contains(what)), "{dom}\n{log}");
    assert!(!dom.contains("<img"), "{dom}");
    let complaints: Vec<_> = log.lines().filter(|line| line.contains(":CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
