//! Stripes, shards, and the checksums that bind each block to its place.
pub mod bitrot;
pub mod code;
pub mod stripe;
