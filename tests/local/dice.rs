//! The only source of chance of these tests: SplitMix64 from one seed, printed when a test fails. Processes and
//! the network do what they like, so a seed repeats the plan of a run, not its every step.

/// A stream of numbers that depends on nothing but its seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of `SEED`, else of the test's own seed; a failing test prints the line that repeats it.
    pub fn of(test: &'static str, seed: u64) -> (Dice, Replay) {
        let given = std::env::var("SEED").ok();
        let seed = given.map_or(seed, |s| {
            u64::from_str_radix(s.trim_start_matches("0x"), 16).expect("SEED is a hexadecimal number")
        });
        (Dice(seed), Replay { test, seed })
    }
    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    /// A number in `low..high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low)
    }
    /// A place among `count`.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.range(0, count as u64)).expect("below a usize")
    }
    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }
    /// Another stream, of its own.
    pub fn fork(&mut self) -> Dice {
        Dice(self.bits())
    }
}

/// Says how to repeat a test when it fails.
pub struct Replay {
    test: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={:#x} cargo test --test local {} -- --nocapture", self.seed, self.test);
        }
    }
}
