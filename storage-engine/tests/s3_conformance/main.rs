//! The store as an S3 client sees it: over a real socket, on real drives, one story per behaviour.
#![allow(clippy::disallowed_methods)] // signatures carry the machine's time
mod access;
#[path = "../authority/mod.rs"]
mod authority;
mod client;
mod documents;
mod hostile;
mod locks;
mod objects;
mod tls;
mod uploads;
mod versions;
mod wire;
