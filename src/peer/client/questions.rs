//! What is asked of a peer besides pushing versions: epochs, ranges of keys, buckets, versions that are not here yet.
//! Each question waits for its answer on a stream of its own. Called by `replicator`.
use super::{Connection, Drilling, Error, Waiter, hello};
use crate::peer::frame::bucket::BucketAsk;
use crate::peer::frame::content::ContentAsk;
use crate::peer::frame::drill::{Act, DrillAsk};
use crate::peer::frame::read::{Found, Read};
use crate::peer::frame::reconcile::{Answer, Question};
use crate::peer::frame::{FRAME_BYTES_MAX, Frame, Message, on_stream};
use tokio::sync::oneshot;

impl Connection {
    /// The highest epoch the peer has seen of a link of this site.
    ///
    /// # Errors
    /// [`Error::PeerGone`].
    pub async fn highest_epoch(&self, link: &str) -> Result<u64, Error> {
        let (tell, told) = oneshot::channel();
        let stream = self.shared.register(Waiter::Hello(tell))?;
        self.shared.outbox.control(&Frame { stream, ..hello("", vec![link.into()]) });
        let hello = told.await.map_err(|_| self.shared.gone())?;
        Ok(hello.epochs.get(link).copied().unwrap_or(0))
    }

    /// Asks what the peer holds of ranges of keys; returns the answer and the bytes of both frames.
    ///
    /// # Errors
    /// [`Error::PeerGone`]; [`Error::NoReconcile`] from a peer of an earlier build.
    pub async fn ask(&self, question: Question) -> Result<(Answer, u64), Error> {
        if !self.shared.abilities.reconciles {
            return Err(Error::NoReconcile);
        }
        self.exchange(Message::Question(Box::new(question))).await
    }

    /// Asks how a bucket at the peer is set, and brings documents for it.
    ///
    /// # Errors
    /// [`Error::PeerGone`]; [`Error::NoBuckets`] from a peer of an earlier build.
    pub async fn ask_bucket(&self, ask: BucketAsk) -> Result<Answer, Error> {
        if !self.shared.abilities.tells_of_buckets {
            return Err(Error::NoBuckets);
        }
        Ok(self.exchange(Message::Bucket(Box::new(ask))).await?.0)
    }

    /// Asks for hashes of what the peer reads of versions, one a span.
    ///
    /// # Errors
    /// [`Error::PeerGone`]; [`Error::NoContents`] from a peer of an earlier build.
    pub async fn ask_contents(&self, ask: ContentAsk) -> Result<(Answer, u64), Error> {
        if !self.shared.abilities.tells_of_contents {
            return Err(Error::NoContents);
        }
        self.exchange(Message::Contents(Box::new(ask))).await
    }

    /// Asks for one step of a drill.
    ///
    /// # Errors
    /// [`Error::PeerGone`]; [`Error::NoDrills`] from a peer of an earlier build.
    pub async fn ask_drill(&self, ask: DrillAsk) -> Result<Answer, Error> {
        let Drilling { any, one_way, live } = self.drills();
        match &ask.act {
            _ if !any => return Err(Error::NoDrills("drills")),
            Act::Fault { cut, .. } if cut.is_one_way() && !one_way => return Err(Error::NoDrills(Drilling::ONE_WAY)),
            Act::Stage { .. } if !live => return Err(Error::NoDrills(Drilling::LIVE)),
            _ => {}
        }
        Ok(self.exchange(Message::Drill(Box::new(ask))).await?.0)
    }

    /// Which drills the peer takes part in.
    pub fn drills(&self) -> Drilling {
        self.shared.abilities.drills
    }

    /// One question and its answer, with the bytes of both frames.
    async fn exchange(&self, message: Message) -> Result<(Answer, u64), Error> {
        let frame = Frame { stream: 0, message }.encode().map_err(|_| Error::TooLarge { bytes: FRAME_BYTES_MAX })?;
        let asked = frame.len() as u64;
        let room = self.shared.outbox.room(&frame).await.map_err(|_| self.shared.gone())?;
        let (tell, told) = oneshot::channel();
        let stream = self.shared.register(Waiter::Answer(tell))?;
        self.shared.outbox.data(on_stream(frame, stream), room);
        let (answer, answered) = told.await.map_err(|_| self.shared.gone())?;
        Ok((answer, asked + answered))
    }

    /// Reads some of a version that is not here yet; a peer of an earlier build has nothing to lend. Fails as `ask` does.
    pub async fn read(&self, read: Read) -> Result<Found, Error> {
        if !self.shared.abilities.lends {
            return Ok(Found::Nothing);
        }
        let turn = self.shared.reads.clone().acquire_owned().await.map_err(|_| self.shared.gone())?;
        let frame = Frame { stream: 0, message: Message::Read(Box::new(read)) }.encode();
        let frame = frame.map_err(|_| Error::TooLarge { bytes: FRAME_BYTES_MAX })?;
        let room = self.shared.outbox.room(&frame).await.map_err(|_| self.shared.gone())?;
        let (tell, told) = oneshot::channel();
        let stream = self.shared.register(Waiter::Found(tell, turn))?;
        self.shared.outbox.data(on_stream(frame, stream), room);
        told.await.map_err(|_| self.shared.gone())
    }
}
