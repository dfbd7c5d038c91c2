//! A limit of bandwidth that several links share: when the next bytes may go, and whose. Pure.
//!
//! A token bucket counted in time. Interactive rules go before bulk ones, but for one turn in eight, so that a full
//! line never stops bulk for good. Waiting is the shell's (`replicator/toll.rs`).

/// Unused time that may be caught up on: 100 ms smooth out jitter without a burst.
const BURST_MICROS: u64 = 100_000;
/// How often in a row bulk gives way.
const GIVES_WAY: u32 = 7;
/// When bulk that gave way looks again.
const GIVE_WAY_MICROS: u64 = 1_000;

/// What gives way when a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Interactive,
    Bulk,
}

/// The bucket.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Bytes a second; `None`: no limit.
    rate: Option<u64>,
    free_at_micros: u64,
    gave_way: u32,
}

impl Bucket {
    /// The limit from now on.
    pub fn set(&mut self, bytes_per_second: Option<u64>) {
        if self.rate != bytes_per_second {
            (self.rate, self.free_at_micros, self.gave_way) = (bytes_per_second, 0, 0);
        }
    }

    /// Whether there is one.
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Takes `bytes`, or says at what time to ask again. `is_wanted`: somebody of the interactive class waits.
    ///
    /// # Errors
    /// The time, in microseconds of the clock `now_micros` is of.
    pub fn take(&mut self, now_micros: u64, bytes: u64, class: Class, is_wanted: bool) -> Result<(), u64> {
        let Some(rate) = self.rate else { return Ok(()) };
        if self.free_at_micros > now_micros {
            return Err(self.free_at_micros);
        }
        if class == Class::Bulk {
            if is_wanted && self.gave_way < GIVES_WAY {
                self.gave_way += 1;
                return Err(now_micros.saturating_add(GIVE_WAY_MICROS));
            }
            self.gave_way = 0;
        }
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let start = self.free_at_micros.max(now_micros.saturating_sub(BURST_MICROS));
        self.free_at_micros = start.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_gives_way_but_not_for_ever() {
        let mut bucket = Bucket::default();
        bucket.set(Some(1000));
        let mut refused = 0;
        while bucket.take(1_000_000, 1, Class::Bulk, true).is_err() {
            refused += 1;
        }
        assert_eq!(refused, GIVES_WAY);
        assert!(bucket.take(2_000_000, 1, Class::Interactive, true).is_ok());
    }

    #[test]
    fn what_passes_keeps_to_the_rate() {
        let mut bucket = Bucket::default();
        bucket.set(Some(1_000));
        let (mut now, mut passed) = (1_000_000, 0);
        while now < 11_000_000 {
            match bucket.take(now, 100, Class::Interactive, false) {
                Ok(()) => passed += 100,
                Err(at) => now = at,
            }
        }
        assert!((10_000..=10_200).contains(&passed), "{passed} bytes in 10 s");
        bucket.set(None);
        assert_eq!(bucket.take(now, u64::MAX, Class::Bulk, true), Ok(()));
    }
}
