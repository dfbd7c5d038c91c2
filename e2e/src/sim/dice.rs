//! The simulator's only source of chance: SplitMix64, so that a seed is a whole world.
use storage_engine::version::VersionId;

/// A stream of numbers that depends on nothing but its seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }
    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    /// A number in `low..high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low)
    }
    /// The id of a version nobody made before.
    pub fn version_id(&mut self) -> VersionId {
        VersionId::from_bytes((u128::from(self.bits()) << 64 | u128::from(self.bits())).to_be_bytes())
    }
    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.range(0, 1000) < per_mille
    }
}

/// SplitMix64's finalizer.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
