//! Large objects over a line that is cut and to a site that is killed: what the peer holds already is not sent again.
use crate::proxy::Fault;
use crate::s3::sha256;
use crate::site::{BUCKET, Fleet, LOOK, Site};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
/// Four parts, as a client would upload them; none is a multiple of a piece.
const PART_BYTES: usize = (25 << 20) + 77;
const PARTS: usize = 4;
/// Of a transfer's pieces, so many may be under way when it stops: a piece of 8 MiB on each of four streams.
const UNDER_WAY: u64 = 4 * 8 * MIB;
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that differ from place to place.
fn part(number: usize) -> Bytes {
    (0..PART_BYTES).map(|at| (at / 253 + at + number) as u8).collect::<Vec<_>>().into()
}

/// Size, ETag and number of parts that a site shows.
async fn shape(site: &Site, key: &str, id: &str) -> (Option<i64>, Option<String>, Option<i32>) {
    let request = site.s3().client.head_object().bucket(BUCKET).key(key).version_id(id);
    let head = request.part_number(2).send().await.expect("a site shows its object");
    (head.content_length, head.e_tag, head.parts_count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_goes_on_where_a_cut_and_a_kill_stopped_it() {
    let fleet = Fleet::start(&["ams", "fra"], 4).await;
    let (ams, fra, line) = (&fleet.sites[0], &fleet.sites[1], &fleet.proxies[0]);
    fleet.drained(PATIENCE).await;
    line.set(Fault::Slow(12_000_000));
    let parts: Vec<Bytes> = (0..PARTS).map(part).collect();
    let upload = ams.s3().upload("large", &parts).await.expect("an upload");
    let id = ams.s3().complete("large", &upload).await.expect("a complete upload");
    let size = (PARTS * PART_BYTES) as u64;
    let carried = async |bytes: u64| {
        let deadline = Instant::now() + PATIENCE;
        while line.carried() < bytes {
            assert!(Instant::now() < deadline, "{} bytes were carried, {bytes} were waited for", line.carried());
            tokio::time::sleep(LOOK).await;
        }
    };

    carried(40 * MIB).await;
    line.set(Fault::Cut);
    let at_cut = line.carried();
    tokio::time::sleep(Duration::from_millis(300)).await;
    line.set(Fault::Slow(12_000_000));
    carried(at_cut + 25 * MIB).await;
    fra.kill().await;
    fra.start().await;
    line.set(Fault::None);
    fleet.drained(PATIENCE).await;

    assert_eq!(fra.s3().read("large", &id).await.expect("it is there"), sha256(&parts.concat()));
    assert_eq!(shape(fra, "large", &id).await, shape(ams, "large", &id).await);
    let twice = line.carried().saturating_sub(size);
    // Frames, TLS and the feed's own talk are some thousandths.
    assert!(twice < 2 * UNDER_WAY + size / 50, "{twice} bytes were sent twice, in two interruptions");
    println!("{twice} bytes of {size} were sent twice, in two interruptions");
    fleet.no_alarm();
}
