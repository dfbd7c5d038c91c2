//! The status page of real processes: what it shows, that it shows a peer's end and return, and, where there is a Chromium,
//! that a browser takes it as it is.
use crate::site::{Fleet, LOOK, Site};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

/// Head and body of an answer.
async fn get(site: &Site, path: &str) -> (String, String) {
    let admin = site.door().expect("the site runs").admin;
    let mut stream = TcpStream::connect(admin).await.expect("the admin port is open");
    let request = format!("GET {path} HTTP/1.1\r\nhost: isthmus\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an answer");
    let (head, body) = said.split_once("\r\n\r\n").expect("an answer of HTTP");
    (head.to_lowercase(), body.to_owned())
}

async fn until_it_says(site: &Site, what: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, body) = get(site, "/").await;
        let missing: Vec<_> = what.iter().filter(|what| !body.contains(**what)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "no {missing:?} in\n{body}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_peer_go_and_come_back_and_is_read_only() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    fra.s3().put("a-key-that-nobody-shows", Bytes::from("x")).await.expect("an acked put");
    fleet.drained(PATIENCE).await;
    until_it_says(fra, &["<strong>HEALTHY</strong>", "Lag to peers: ams 0.", "<td>orders</td>"]).await;

    let began = Instant::now();
    let (head, body) = get(fra, "/").await;
    println!("{} bytes in {:?}", body.len(), began.elapsed());
    assert!(body.len() < 100_000 && !body.contains("a-key-that-nobody-shows"), "{body}");
    for header in ["200 ok", "content-security-policy: default-src 'none'", "cache-control: no-store"] {
        assert!(head.contains(header), "no {header} in\n{head}");
    }
    assert!(get(fra, "/status.css").await.0.contains("text/css"));
    in_a_browser(fra, "HEALTHY").await;

    ams.kill().await;
    fra.s3().put("another", Bytes::from("y")).await.expect("an acked put");
    until_it_says(fra, &["<strong>DEGRADED</strong>", "peers down: 1", "Lag to peers: ams down"]).await;
    ams.start().await;
    until_it_says(fra, &["<strong>HEALTHY</strong>", "<p>Nothing.</p>"]).await;
    fleet.no_alarm();
}

/// Renders the page in Chromium, narrow: it must show the verdict and complain of nothing.
async fn in_a_browser(site: &Site, verdict: &str) {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=400,900"]);
    command.arg(format!("--user-data-dir={}", site.dir.join("chromium").display())).arg("--dump-dom");
    command.arg(format!("http://{}/", site.door().expect("it runs").admin)).kill_on_drop(true);
    let Ok(ran) = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends") else {
        println!("SKIPPED: chromium is not installed (Debian: apt-get install chromium)");
        return;
    };
    let (dom, log) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && dom.contains(verdict), "{dom}\n{log}");
    let complaints: Vec<_> = log.lines().filter(|line| line.contains(":CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
