use super::*;
use crate::rule::watch_kube::mock::Mock;
use storage_engine::clock::SystemClock;

#[test]
fn a_lease_is_taken_only_when_it_is_free_or_was_seen_unchanged_for_its_whole_term() {
    let (term, short) = (Duration::from_secs(15), Duration::from_secs(14));
    let table = [
        ("", short, Step::Acquire),
        ("me", short, Step::Renew),
        ("me", term, Step::Renew),
        ("other", Duration::ZERO, Step::Wait),
        ("other", short, Step::Wait),
        ("other", term, Step::Acquire),
    ];
    for (holder, unchanged, step) in table {
        assert_eq!(decide(holder, "me", term, unchanged), step, "{holder} {unchanged:?}");
    }
}

/// One process of an election on a mock.
struct One {
    leads: watch::Receiver<Leadership>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn one(mock: &Mock, me: &str) -> One {
    let (tell, leads) = watch::channel(Leadership::default());
    let terms = Terms {
        duration: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(700),
        retry: Duration::from_millis(50),
    };
    let stop = CancellationToken::new();
    let election = Election::new(&mock.cluster(), "isthmus-controller", me.into(), terms, Arc::new(SystemClock), tell);
    One { leads, task: tokio::spawn(election.run(stop.clone())), stop }
}

async fn until(one: &mut One, holds: impl Fn(&Leadership) -> bool) -> Leadership {
    let seen = timeout(Duration::from_secs(20), one.leads.wait_for(|l| holds(l))).await;
    seen.expect("in time").expect("it takes part").clone()
}

#[tokio::test]
async fn one_leads_and_when_it_stops_the_next_takes_over_at_once() {
    let mock = Mock::default();
    let mut a = one(&mock, "a");
    until(&mut a, |l| l.is_ours).await;
    let mut b = one(&mock, "b");
    assert_eq!(until(&mut b, |l| !l.holder.is_empty()).await.holder, "a");
    a.stop.cancel();
    a.task.await.expect("it ends");
    assert!(!a.leads.borrow().is_ours);
    let taken = until(&mut b, |l| l.is_ours).await;
    assert_eq!((taken.holder.as_str(), taken.transitions), ("b", 1));
}

#[tokio::test]
async fn one_that_cannot_renew_stops_leading_by_itself_and_the_lease_of_one_killed_expires() {
    let mock = Mock::default();
    let mut a = one(&mock, "a");
    until(&mut a, |l| l.is_ours).await;
    mock.fail("Lease", Some(500));
    until(&mut a, |l| !l.is_ours).await;
    // Killed: it gives nothing back.
    a.task.abort();
    mock.fail("Lease", None);
    let mut b = one(&mock, "b");
    until(&mut b, |l| l.is_ours).await;
}

#[tokio::test]
async fn a_write_that_meets_anothers_ends_the_lead() {
    let mock = Mock::default();
    let mut a = one(&mock, "a");
    until(&mut a, |l| l.is_ours).await;
    mock.fail("Lease", Some(409));
    until(&mut a, |l| !l.is_ours).await;
}
