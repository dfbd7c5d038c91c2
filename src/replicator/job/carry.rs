//! Carries out, of what jobs ask, the part that belongs to links this process pushes, and tells how far it is.
//!
//! A link that moves takes its part along: whoever has it next begins that part anew. What had an end is not begun again.
//! Run by `replicator.rs`; dropping it ends what runs, and what was repaired stays.
use super::super::Replicator;
use super::super::tenure::Lease;
use super::super::toll::Allowance;
use super::super::verify::{self, LinkVerify, VerifyReport};
use super::{Asked, ROOT, Told};
use crate::journal;
use crate::rule::plan::{LinkName, LinkView};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::DropGuard;

/// How often it is looked whose links are whose, and what there is to be told.
const LOOK: Duration = Duration::from_secs(1);
/// Progress is told no oftener; an end at once.
const TELL: Duration = Duration::from_secs(2);
/// That it is worked at is told at least so often.
const ALIVE: Duration = Duration::from_secs(10);

/// The part of one link.
struct Work {
    asked: Asked,
    shown: watch::Receiver<VerifyReport>,
    allowance: Arc<Allowance>,
    pause: watch::Sender<bool>,
    /// The claim it goes under.
    lease: Arc<Lease>,
    /// What was told last, and when.
    told: Option<(Instant, LinkVerify)>,
    /// It ends with the work.
    _stop: DropGuard,
}

impl Work {
    /// What is to be told now.
    fn news(&self) -> Option<LinkVerify> {
        let now = self.shown.borrow().links.first().cloned()?;
        let Some((at, last)) = &self.told else { return Some(now) };
        let is_over = now.verdict != "running";
        let is_due = at.elapsed() >= if now == *last { ALIVE } else { TELL };
        (if is_over { now != *last } else { is_due }).then_some(now)
    }
}

type Works = BTreeMap<(String, LinkName), Work>;

impl Replicator {
    /// Works for jobs until it is dropped.
    pub(in super::super) async fn carry_jobs(&self) {
        let mut known = self.jobs.subscribe();
        let (mut works, mut failed) = (Works::new(), false);
        loop {
            self.take_up(&mut works);
            let told = self.tell_jobs(&mut works).await;
            if let Err(e) = &told
                && !failed
            {
                tracing::warn!(error = %e, "How far a job is cannot be told; it goes on, and is told later.");
            }
            failed = told.is_err();
            // It fails only with the replicator itself.
            let _ = timeout(LOOK, known.changed()).await;
        }
    }

    /// Begins what is asked for links pushed from here, and ends what is not any more.
    fn take_up(&self, works: &mut Works) {
        let all = self.jobs.borrow().all();
        let is_asked = |uid: &String, work: &Work| all.get(uid).is_some_and(|now| work.asked.is_same_work(now));
        works.retain(|(uid, _), work| is_asked(uid, work) && work.lease.is_held());
        for (uid, asked) in &all {
            // Where there is nothing to compare the leader says so.
            for (name, view) in self.job_links(asked).unwrap_or_default() {
                let key = (uid.clone(), name);
                if let Some(work) = works.get(&key) {
                    work.allowance.set(asked.bytes_per_second);
                    work.pause.send_if_modified(|is| std::mem::replace(is, asked.is_suspended) != asked.is_suspended);
                    continue;
                }
                let had_an_end = |told: Told| told.link.verdict != "running";
                if asked.is_suspended || self.jobs.borrow().told(uid, &key.1.peer).is_some_and(had_an_end) {
                    continue;
                }
                if let Some(work) = self.begin_job(asked, &key.1, &view) {
                    works.insert(key, work);
                }
            }
        }
    }

    /// `None`: another process pushes the link.
    fn begin_job(&self, asked: &Asked, name: &LinkName, view: &LinkView) -> Option<Work> {
        let ways = self.state().links.get(name)?.ways();
        let lease = ways.1.borrow().as_ref()?.lease.clone();
        let allowance = Arc::new(Allowance::default());
        allowance.set(asked.bytes_per_second);
        let pause = watch::Sender::new(asked.is_suspended);
        let mut one = self.comparison(view, ways, asked.repair);
        one.existing = asked.existing;
        one.content = asked.content;
        one.allowance = Some(allowance.clone());
        one.pause = Some(pause.subscribe());
        let links = vec![one];
        let (show, shown) = watch::channel(VerifyReport::begun(&asked.rule, asked.repair, &links));
        let stop = self.stopping.child_token();
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(verify::run(links, show)));
        Some(Work { asked: asked.clone(), shown, allowance, pause, lease, told: None, _stop: stop.drop_guard() })
    }

    async fn tell_jobs(&self, works: &mut Works) -> Result<(), journal::Error> {
        for ((uid, name), work) in works {
            let Some(link) = work.news().filter(|_| work.lease.is_held()) else { continue };
            let told = Told { at: self.shared.clock.now_millis(), link };
            let state = serde_json::to_string(&told).expect("it has string keys");
            let subject = format!("{ROOT}{uid}/{}/{}", name.peer, work.lease.epoch);
            self.keep_job(&subject, Some(state)).await?;
            work.told = Some((Instant::now(), told.link));
        }
        Ok(())
    }
}
