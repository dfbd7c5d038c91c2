//! The slowest a request body may come: a client that drips holds a connection and two stripes of memory.
//!
//! It stands between the connection and the codec, so that it sees bytes as they arrive and not chunks as
//! they are verified. Only time spent waiting for the client counts: slow drives are not its fault.
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How slow is too slow.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Waiting that costs nothing.
    pub grace: Duration,
    /// Bytes that earn a second of waiting beyond the grace.
    pub bytes_per_second: u64,
    /// Longest wait for the next byte, however much came before.
    pub silence_max: Duration,
}

/// 1 KiB/s after 30 s, as `security.md` has it: a modem does better; and a minute of silence means it has gone.
pub const FLOOR: Floor =
    Floor { grace: Duration::from_secs(30), bytes_per_second: 1024, silence_max: Duration::from_secs(60) };

/// What has come so far, and how long it was waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    waited: Duration,
    received: u64,
}

impl Pace {
    /// How long the next byte may take.
    fn patience(&self, floor: &Floor) -> Duration {
        let earned = Duration::from_secs(self.received / floor.bytes_per_second.max(1));
        (floor.grace + earned).saturating_sub(self.waited).min(floor.silence_max)
    }
}

/// Whether a body was read to its clean end; outlives the body.
pub struct End(Arc<AtomicBool>);

impl End {
    pub fn was_seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body that ends in an error when it comes too slowly.
pub struct Paced<B> {
    body: B,
    floor: Floor,
    pace: Pace,
    /// Since when the client is waited for.
    waiting: Option<Instant>,
    /// Made at the first wait: most bodies come with their head.
    alarm: Option<Pin<Box<Sleep>>>,
    end: Arc<AtomicBool>,
}

impl<B: Body> Paced<B> {
    pub fn new(body: B, floor: Floor) -> (Self, End) {
        let end = Arc::new(AtomicBool::new(body.is_end_stream()));
        let paced = Paced { body, floor, pace: Pace::default(), waiting: None, alarm: None, end: end.clone() };
        (paced, End(end))
    }

    fn arrived(&mut self, bytes: usize) {
        if let Some(since) = self.waiting.take() {
            self.pace.waited += since.elapsed();
        }
        self.pace.received += bytes as u64;
    }

    /// Ready when the client has been waited for too long.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            let now = Instant::now();
            let deadline = now + self.pace.patience(&self.floor);
            self.waiting = Some(now);
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(deadline),
                None => self.alarm = Some(Box::pin(sleep_until(deadline))),
            }
        }
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let frame = frame.map(|f| f.map_err(io::Error::other));
            this.arrived(frame.as_ref().and_then(|f| f.as_ref().ok()?.data_ref().map(Bytes::len)).unwrap_or(0));
            if frame.is_none() || this.body.is_end_stream() {
                this.end.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(frame);
        }
        ready!(this.poll_alarm(context));
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, TOO_SLOW))))
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Text of the error: the codec wraps it in types of its own, and only the text comes through.
pub const TOO_SLOW: &str = "the body came too slowly";

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    #[test]
    fn bytes_earn_time_up_to_a_silence() {
        let floor = FLOOR;
        let patience = |waited: u64, received: u64| {
            Pace { waited: Duration::from_secs(waited), received }.patience(&floor).as_secs()
        };
        assert_eq!(patience(0, 0), 30, "the grace");
        assert_eq!(patience(29, 0), 1);
        assert_eq!(patience(31, 0), 0, "nothing came");
        assert_eq!(patience(40, 10 << 10), 0, "1 KiB/s exactly uses all it earned");
        assert_eq!(patience(40, 15 << 10), 5);
        assert_eq!(patience(0, 1 << 30), 60, "fast before is no excuse for silence");
    }

    #[tokio::test]
    async fn a_body_that_stops_ends_in_an_error_and_one_that_flows_passes() {
        let floor =
            Floor { grace: Duration::from_millis(10), bytes_per_second: 1024, silence_max: Duration::from_millis(10) };
        let frame = || Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"abc")));
        let (flows, end) = Paced::new(StreamBody::new(stream::iter([frame(), frame()])), floor);
        assert!(!end.was_seen());
        assert_eq!(flows.collect().await.unwrap().to_bytes(), "abcabc");
        assert!(end.was_seen());
        let stops = StreamBody::new(stream::iter([frame()]).chain(stream::pending()));
        let (stops, end) = Paced::new(stops, floor);
        let ended = stops.collect().await.unwrap_err();
        assert_eq!((ended.kind(), ended.to_string().as_str()), (io::ErrorKind::TimedOut, TOO_SLOW));
        assert!(!end.was_seen());
    }
}
