//! Compares what a link's peer holds with this site's store, a page of keys at a time: reads the pages,
//! carries the questions of `link/reconcile.rs` over the line, and names the differences.
//!
//! Never changes anything, and never takes what it could not read for absent: a store or a peer that does
//! not answer ends the comparison with an error. Called by `verify.rs`.
pub mod walk;

use super::far::{Far, FarEnd};
use super::foreign::{End, compare as foreign};
use super::tenure::Lease;
use crate::link::project::Projection;
use crate::link::reconcile::{Ask, Descent, Difference, Item, KeyRange, Misfit};
use crate::peer::client;
use crate::peer::frame::content::{Content, ContentAsk};
use crate::peer::frame::reconcile::{Answer, Question};
use crate::store::{self, Store};
use futures::Stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage_engine::wire::Fields;
use walk::Walk;

/// Items of a page: its digest is the price of an equal one, and a few pages are held at once. With keys of
/// 1,024 bytes it takes 20 MB.
const PAGE_ITEMS: usize = 16_384;
/// What the peer may hold of one page and this site not; above it the comparison stops and says so.
const SURPLUS_MAX: usize = 200_000;
/// How often a question is asked; the peer may be dialled anew in between.
const ATTEMPTS: u32 = 5;
/// Pause before a question is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take: the peer reads a page's keys from its drives, with others waiting.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Why a comparison did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read own store: {0}")]
    Store(#[from] store::Error),
    #[error("the peer is down")]
    PeerDown,
    /// Only who pushes a link knows what it has under way.
    #[error("the link is not pushed by this process; ask the one that does: {0}")]
    NotPushedHere(String),
    #[error("{0}")]
    Peer(#[from] client::Error),
    #[error("the peer gives no answer: {0}")]
    NoAnswer(String),
    /// Outside the grant; a person must look.
    #[error("the peer refuses: {0}")]
    Refused(String),
    #[error("the S3 endpoint: {0}")]
    Foreign(#[from] foreign::Error),
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(
        "the peer holds more than {SURPLUS_MAX} versions between two keys that this site lacks: did this site lose its data?"
    )]
    Surplus,
}

/// What is compared, and over which line.
pub struct Sides {
    pub store: Arc<dyn Store>,
    /// Bucket here and there.
    pub bucket: String,
    pub peer_bucket: String,
    pub projection: Arc<Projection>,
    pub line: Far,
    /// The claim under which what is found at a foreign target is kept; `None`: the link is not pushed from here.
    pub lease: Option<Arc<Lease>>,
    /// Bytes of questions and answers so far.
    pub wire_bytes: AtomicU64,
    /// Questions so far.
    pub questions: AtomicU64,
}

/// All that this site holds of a range of keys, as the rule sees it.
pub struct Page {
    pub range: KeyRange,
    pub items: Vec<Item>,
}

/// Where the reading of pages stands.
struct Reading {
    walk: Walk,
    after: Option<String>,
    /// The first item of the next page.
    carry: Option<Item>,
    is_over: bool,
    items_max: usize,
}

impl Sides {
    /// This site's pages, from the first key to the last; together they cover every key there can be.
    pub fn pages(&self) -> impl Stream<Item = Result<Page, Error>> + '_ {
        let reading = self.reading(None, PAGE_ITEMS);
        futures::stream::try_unfold(reading, |mut reading| async move {
            if reading.is_over {
                return Ok(None);
            }
            let page = reading.page().await?;
            Ok(Some((page, reading)))
        })
    }

    /// This site's page of about `items_max` items behind the key `after` (`None`: the first page).
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn page(&self, after: Option<String>, items_max: usize) -> Result<Page, Error> {
        self.reading(after, items_max).page().await
    }

    fn reading(&self, after: Option<String>, items_max: usize) -> Reading {
        let mut walk = self.walk();
        walk.seek(after.as_deref());
        Reading { walk, after, carry: None, is_over: false, items_max }
    }

    /// What this site holds of a range now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn read(&self, range: KeyRange) -> Result<Page, Error> {
        let mut walk = self.walk();
        walk.seek(range.after.as_deref());
        let mut items = Vec::new();
        while let Some(item) = walk.next(&range).await? {
            items.push(item);
        }
        Ok(Page { range, items })
    }

    /// What differs in a page.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known of the page.
    pub async fn compare(&self, page: Page) -> Result<Vec<Difference>, Error> {
        let far = self.line.borrow().clone();
        if let Some(FarEnd::S3(end)) = far {
            return self.list(&end, page).await;
        }
        let mut surplus = 0;
        let mut descent = Descent::new(page.range, page.items);
        while let Some(ask) = descent.ask() {
            match (&ask, self.ask(&ask).await?) {
                (Ask::Digests(_), Answer::Digests(digests)) => descent.digests(&digests)?,
                (Ask::Items { .. }, Answer::Items { items, is_last }) => {
                    surplus = if is_last { 0 } else { surplus + items.len() };
                    if surplus > SURPLUS_MAX {
                        return Err(Error::Surplus);
                    }
                    descent.items(items, is_last)?;
                }
                _ => return Err(Error::NoAnswer("it answers another question".into())),
            }
        }
        Ok(descent.differences())
    }

    /// What differs in a page from what a foreign target holds, which is listed.
    async fn list(&self, end: &End, mut page: Page) -> Result<Vec<Difference>, Error> {
        let Some(lease) = self.lease.clone() else {
            return Err(Error::NotPushedHere("it has no claim on the link".into()));
        };
        self.questions.fetch_add(1, Ordering::Relaxed);
        page.items.sort();
        let (store, bucket, projection) = (&self.store, &*self.bucket, &*self.projection);
        let here = foreign::Here { store, bucket, projection, lease };
        Ok(foreign::page(end, &here, &page.range, &page.items).await?)
    }

    fn walk(&self) -> Walk {
        let projection = self.projection.clone();
        Walk::new(
            self.store.clone(),
            &self.bucket,
            &self.projection.prefix,
            Arc::new(move |version| projection.item(version)),
        )
    }

    /// Asks, and asks again where the line broke or the peer's store did not answer.
    async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        self.again(|| self.ask_once(ask)).await
    }

    async fn again<F: Future<Output = Result<Answer, Error>>>(&self, once: impl Fn() -> F) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let failed = match once().await {
                Ok(Answer::Refused(why)) => return Err(Error::Refused(why)),
                Ok(Answer::Unavailable(why)) => Error::NoAnswer(why),
                Ok(answer) => return Ok(answer),
                Err(Error::Peer(err)) if !err.is_peer_gone() => return Err(err.into()),
                Err(err) => err,
            };
            if attempt == ATTEMPTS {
                return Err(failed);
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks what the peer reads of versions, one answer a span; again as [`Sides::ask`] does.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known of them.
    pub(super) async fn ask_contents(&self, ask: &ContentAsk) -> Result<Vec<Content>, Error> {
        let once = || async {
            let Some(FarEnd::Site(line)) = self.line.borrow().clone() else { return Err(Error::PeerDown) };
            self.answered(line.ask_contents(ask.clone())).await
        };
        match self.again(once).await? {
            Answer::Contents(contents) if contents.len() == ask.spans.len() => Ok(contents),
            _ => Err(Error::NoAnswer("it answers another question".into())),
        }
    }

    async fn ask_once(&self, ask: &Ask) -> Result<Answer, Error> {
        let Some(FarEnd::Site(line)) = self.line.borrow().clone() else { return Err(Error::PeerDown) };
        let question = Question {
            bucket: self.peer_bucket.clone(),
            projection: (*self.projection).clone(),
            ask: ask.clone(),
            unknown: Fields::default(),
        };
        self.answered(line.ask(question)).await
    }

    /// Waits for an answer, and counts it.
    async fn answered(
        &self,
        asking: impl Future<Output = Result<(Answer, u64), client::Error>>,
    ) -> Result<Answer, Error> {
        let answered = tokio::time::timeout(ANSWER_MAX, asking).await;
        let (answer, bytes) =
            answered.map_err(|_| Error::NoAnswer(format!("none within {}s", ANSWER_MAX.as_secs())))??;
        self.wire_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.questions.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

impl Reading {
    /// The next page; it ends behind the last version of a key.
    async fn page(&mut self) -> Result<Page, Error> {
        let rest = KeyRange { after: self.after.clone(), upto: None };
        let mut items: Vec<Item> = self.carry.take().into_iter().collect();
        loop {
            match self.walk.next(&rest).await? {
                None => {
                    self.is_over = true;
                    return Ok(Page { range: rest, items });
                }
                Some(item)
                    if items.len() >= self.items_max && items.last().is_some_and(|last| last.key != item.key) =>
                {
                    let upto = items.last().map(|last| last.key.clone());
                    let range = KeyRange { after: std::mem::replace(&mut self.after, upto.clone()), upto };
                    self.carry = Some(item);
                    return Ok(Page { range, items });
                }
                Some(item) => items.push(item),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
