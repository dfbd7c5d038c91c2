use super::*;
use crate::journal::memory::MemoryJournal;

/// Short terms, so that a test waits for tenths of seconds.
const TERMS: Terms = Terms {
    lease: Duration::from_millis(900),
    renew: Duration::from_millis(300),
    patience: Duration::from_millis(200),
};

struct Process {
    tenure: Arc<Tenure>,
    stop: CancellationToken,
    keeper: tokio::task::JoinHandle<()>,
    /// What it claims, one after another, as its links would.
    wanted: Vec<Wanted>,
    held: BTreeMap<LinkId, Arc<Lease>>,
}

fn link(n: usize) -> LinkId {
    LinkId { rule: format!("r{n}"), bucket: "b".into(), peer: "p".into() }
}

impl Process {
    fn start(journal: &MemoryJournal, name: &str, links: usize) -> Process {
        let tenure = Arc::new(Tenure::new(Arc::new(journal.clone()), name.into(), TERMS));
        let stop = CancellationToken::new();
        let (keeping, told) = (tenure.clone(), stop.clone());
        let keeper = tokio::spawn(async move { keeping.keep(told).await });
        let wanted = (0..links).map(|_| tenure.want()).collect();
        Process { tenure, stop, keeper, wanted, held: BTreeMap::new() }
    }

    /// What the links of a process do in one second: claim what they have not, give back what is called back.
    async fn go_on(&mut self) {
        for n in 0..self.wanted.len() {
            let id = link(n);
            match self.held.get(&id).cloned() {
                Some(lease) if lease.called_back.is_cancelled() => {
                    self.held.remove(&id);
                    self.tenure.free(&id, &lease).await;
                }
                Some(lease) if lease.is_held() => {}
                lost => {
                    if let Some(lease) = lost {
                        self.tenure.forget(&id, lease.epoch);
                        self.held.remove(&id);
                    }
                    if let Ok(Claimed::Owned(lease)) = self.tenure.claim(&id, 0).await {
                        self.held.insert(id, lease);
                    }
                }
            }
        }
    }

    fn owned(&self) -> usize {
        self.held.values().filter(|l| l.is_held()).count()
    }
}

/// Lets all processes go on until the fact holds, with a deadline no healthy run comes near.
async fn until(processes: &mut [&mut Process], fact: impl Fn(&[usize]) -> bool) {
    let wait = async {
        loop {
            for process in &mut *processes {
                process.go_on().await;
            }
            let owned: Vec<usize> = processes.iter().map(|p| p.owned()).collect();
            if fact(&owned) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the fact comes in time");
}

#[tokio::test]
async fn links_are_spread_over_the_processes_and_move_when_one_goes() {
    let journal = MemoryJournal::default();
    let mut a = Process::start(&journal, "a", 5);
    until(&mut [&mut a], |owned| owned == [5]).await;
    let mut b = Process::start(&journal, "b", 5);
    until(&mut [&mut a, &mut b], |owned| owned.iter().sum::<usize>() == 5 && owned.iter().all(|n| *n >= 2)).await;
    // One that would run nothing counts for nothing.
    let c = Process::start(&journal, "c", 0);
    until(&mut [&mut a, &mut b], |owned| owned.iter().sum::<usize>() == 5 && owned.iter().all(|n| *n >= 2)).await;
    // Killed: it says nothing.
    b.keeper.abort();
    let last: Vec<_> = b.held.iter().map(|(id, lease)| (id.clone(), lease.epoch)).collect();
    until(&mut [&mut a], |owned| owned == [5]).await;
    assert!(last.iter().all(|(id, old)| a.held[id].epoch > *old), "each under a new epoch");
    c.stop.cancel();
}

#[tokio::test]
async fn a_claim_that_is_not_renewed_ends_here_before_another_gets_it() {
    let journal = MemoryJournal::default();
    let mut a = Process::start(&journal, "a", 1);
    until(&mut [&mut a], |owned| owned == [1]).await;
    let lease = a.held[&link(0)].clone();
    journal.set_full(true);
    tokio::time::timeout(Duration::from_secs(60), lease.lost()).await.expect("it is lost with the journal away");
    assert!(!lease.is_held());
    journal.set_full(false);
    let other = ClaimTerms { at_least: 0, lease: TERMS.lease, patience: Duration::ZERO };
    // The journal's count ends later than the process' own, never before.
    if let Claim::Held { by } = journal.claim(&link(0), "b", other).await.unwrap() {
        assert!(by.is_none_or(|by| by == "a"));
    }
    until(&mut [&mut a], |owned| owned == [1] || owned == [0]).await;
}

#[tokio::test]
async fn a_process_that_leaves_in_good_order_is_followed_at_once() {
    let journal = MemoryJournal::default();
    let long = Terms { lease: Duration::from_secs(600), ..TERMS };
    let a = Arc::new(Tenure::new(Arc::new(journal.clone()), "a".into(), long));
    let _wanted = a.want();
    let Ok(Claimed::Owned(lease)) = a.claim(&link(0), 7).await else { panic!("it is free") };
    assert!(lease.is_held() && lease.epoch == 7);
    let b = Arc::new(Tenure::new(Arc::new(journal.clone()), "b".into(), long));
    let _wanted = b.want();
    let Ok(Claimed::Elsewhere(by)) = b.claim(&link(0), 0).await else { panic!("it is a's") };
    assert_eq!(by.as_deref(), Some("a"));
    a.free(&link(0), &lease).await;
    assert!(!lease.is_held(), "what was given back is not held");
    let Ok(Claimed::Owned(next)) = b.claim(&link(0), 0).await else { panic!("it was given back") };
    assert_eq!(next.epoch, 8);
}
