//! A full disk: 503 with the documented code, everything acked is still there, also after a kill -9 on the full
//! disk, and writing goes on once there is room. What peers send meanwhile waits with them.
use crate::load::body;
use crate::mesh::{alike, silent};
use crate::oracle::Oracle;
use crate::s3::{Miss, sha256};
use crate::site::{Fleet, LOOK, Site};
use crate::view::{View, nothing};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

/// The documented code of a full store.
const FULL: &str = "XIsthmusStorageFull";
/// Everything is everywhere within this time after there is room: what failed often is tried again rarely.
const HEAL: Duration = Duration::from_secs(180);

/// A small file system in memory, unmounted at the end.
struct Small(PathBuf);

impl Small {
    /// Mounts one where this process may; else why not.
    fn mount(at: PathBuf, megabytes: u32) -> Result<Small, String> {
        std::fs::create_dir_all(&at).expect("make a folder");
        let option = format!("size={megabytes}m");
        let said = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(&at).output();
        match said {
            Ok(said) if said.status.success() => Ok(Small(at)),
            Ok(said) => Err(String::from_utf8_lossy(&said.stderr).trim().to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Mounts one under the drives of a site; where that cannot be, says so past the capture of test output.
    fn under(site: &Site, megabytes: u32) -> Option<Small> {
        let mounted = Small::mount(site.dir.join("drives"), megabytes);
        if let Err(why) = &mounted {
            writeln!(std::io::stderr(), "SKIPPED: a full disk: no small file system can be mounted here: {why}")
                .expect("stderr takes a line");
        }
        mounted.ok()
    }

    fn grow(&self, megabytes: u32) {
        let option = format!("remount,size={megabytes}m");
        let said = Command::new("mount").args(["-o", &option]).arg(&self.0).status().expect("run mount");
        assert!(said.success(), "the file system grows");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn put(site: &Site, oracle: &Oracle, key: &str, size: usize) -> Result<(), Miss> {
    let body = body(size);
    let hash = sha256(&body);
    let began = oracle.put_begins(key, &hash);
    let said = site.s3().put(key, body).await;
    oracle.put_ends(0, key, &hash, began, &said);
    said.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_loses_nothing_that_was_acked() {
    let fleet = Fleet::write(&["fra"], 4).await;
    let (site, oracle) = (&fleet.sites[0], Oracle::default());
    let Some(small) = Small::under(site, 400) else { return };
    site.start().await;
    let mut refused = None;
    for number in 0..2000 {
        // Large ones fill the drives, small ones take what is left.
        let size = if number % 4 == 0 { 3 << 20 } else { 20 << 10 };
        if let Err(miss) = put(site, &oracle, &format!("full/{}", number % 40), size).await {
            refused = Some(miss);
            break;
        }
    }
    let Some(Miss::Unknown(why)) = refused else { panic!("the disk never filled: {refused:?}") };
    assert!(why.contains(FULL) && why.contains("503"), "a full disk has its own code: {why}");
    nothing("on the full disk", &oracle.judge(&View::read(&site.s3(), &oracle, "").await));

    site.kill().await;
    site.start().await;
    nothing("killed on the full disk", &oracle.judge(&View::read(&site.s3(), &oracle, "").await));

    small.grow(800);
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(miss) = put(site, &oracle, "after", 3 << 20).await {
        assert!(Instant::now() < deadline, "there is room and still: {miss:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    nothing("with room again", &oracle.judge(&View::read(&site.s3(), &oracle, "").await));
    println!("{:?}", oracle.counts());
    site.stop().await;
    drop(small);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_whose_disk_is_full_takes_what_its_peer_sent_once_there_is_room() {
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let (fra, ams, oracle) = (&fleet.sites[0], &fleet.sites[1], Oracle::default());
    let Some(small) = Small::under(ams, 300) else { return };
    fra.start().await;
    ams.start().await;
    let mut written = 0;
    while !is_held_up(fra).await {
        assert!(written < 400, "the peer's disk never filled");
        put(fra, &oracle, &format!("full/{written}"), 3 << 20).await.expect("the disk here has room");
        written += 1;
    }
    // Neither a death on the full disk nor more to come changes what is owed.
    ams.kill().await;
    for number in 0..10 {
        put(fra, &oracle, &format!("more/{number}"), 10 << 10).await.expect("the disk here has room");
    }
    ams.start().await;
    nothing("here, while the peer is full", &oracle.judge(&View::read(&fra.s3(), &oracle, "").await));

    small.grow(1200);
    fleet.drained(HEAL).await;
    alike(&fleet, &oracle).await;
    silent(&fleet).await;
    println!("{written} large objects, {:?}", oracle.counts());
    fra.stop().await;
    ams.stop().await;
    drop(small);
}

/// Whether versions wait for another try because the peer had no room.
async fn is_held_up(site: &Site) -> bool {
    tokio::time::sleep(LOOK).await;
    let report = site.status().await.expect("a running site shows its status");
    report.links.iter().any(|l| l.retry_versions > 0 && l.last_error.as_deref().is_some_and(|why| why.contains("full")))
}
