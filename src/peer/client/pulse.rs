//! The pulse of a connection: its pings, the round trip they take, and what the peer's clock said on the way. Sends
//! nothing itself.
use super::Connection;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

impl Connection {
    /// The last measured round trip; `None` before the first answer to a ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.pulse.rtt()
    }

    /// How far the peer's clock is ahead of one that says `now_millis` now, milliseconds; as good as half a round trip.
    /// `None` before the first answer to a ping, and of a peer that does not tell its time.
    pub fn clock_offset_millis(&self, now_millis: u64) -> Option<i64> {
        self.shared.pulse.clock_offset_millis(now_millis)
    }
}

/// What pings have told so far.
pub(super) struct Pulse(Mutex<Told>);

struct Told {
    /// Number of the last ping, and when it was sent.
    last: (u64, Instant),
    rtt: Option<Duration>,
    /// What the peer's clock said last, Unix milliseconds, and when.
    clock: Option<(u64, Instant)>,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse(Mutex::new(Told { last: (0, Instant::now()), rtt: None, clock: None }))
    }

    /// Number of the ping that is sent now.
    pub(super) fn ping(&self) -> u64 {
        let mut told = self.told();
        told.last = (told.last.0 + 1, Instant::now());
        told.last.0
    }

    /// The answer to a ping; one that comes behind the next ping tells nothing.
    pub(super) fn pong(&self, number: u64, clock_millis: Option<u64>) {
        let mut told = self.told();
        let (last, sent) = told.last;
        if last == number {
            let took = sent.elapsed();
            told.rtt = Some(took);
            // It was read halfway, as far as anybody knows.
            told.clock = clock_millis.map(|millis| (millis, sent + took / 2));
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.told().rtt
    }

    /// How far the peer's clock is ahead of one that says `now_millis` now, milliseconds.
    pub(super) fn clock_offset_millis(&self, now_millis: u64) -> Option<i64> {
        let (said, at) = self.told().clock?;
        let theirs = said.saturating_add(at.elapsed().as_millis() as u64);
        Some(theirs.cast_signed().saturating_sub(now_millis.cast_signed()))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_compared_halfway_and_goes_on_since() {
        let pulse = Pulse::new();
        assert_eq!((pulse.rtt(), pulse.clock_offset_millis(0)), (None, None));
        let number = pulse.ping();
        tokio::time::advance(Duration::from_millis(200)).await;
        pulse.pong(number, Some(1_000_000));
        assert_eq!(pulse.rtt(), Some(Duration::from_millis(200)));
        // Ours said 999,300 when theirs said 1,000,000, and 100 ms later both have gone on.
        assert_eq!(pulse.clock_offset_millis(999_400), Some(700));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pulse.clock_offset_millis(1_003_100), Some(-1_000), "ours ran on faster");
        let late = pulse.ping();
        pulse.ping();
        pulse.pong(late, None);
        assert_eq!(pulse.rtt(), Some(Duration::from_millis(200)), "an answer that came too late");
    }
}
