//! The only door to dice: ids come from here, from the operating system's random bytes.
use uuid::Uuid;

/// A UUID of version 7 at `millis`, random below that.
pub fn id_at(millis: u64) -> Uuid {
    let mut random = [0u8; 10];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// A random UUID for drives, incarnations and blobs.
pub fn id() -> Uuid {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    uuid::Builder::from_random_bytes(random).into_uuid()
}
