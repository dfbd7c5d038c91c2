//! The whole store node as a library: versioned objects, erasure-coded over many drives, an S3 front
//! door and a change feed. It knows no site, peer or rule; of where a version was born it knows an
//! opaque [`version::Origin`].
//!
//! Data flows one way: `s3` and `api` call `object` and `bucket`; `object` decides with `quorum`,
//! codes with `erasure` and talks to `drive`; `feed` reads what `drive` committed.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod api;
pub mod clock;
pub mod config;
pub mod entropy;
pub mod feed;
pub mod identity;
pub mod node;
pub mod version;
pub mod wire;

pub mod bucket;
pub mod drive;
pub mod erasure;
pub mod metrics;
pub mod object;
pub mod quorum;
pub mod record;
pub mod s3;
pub mod trace;
