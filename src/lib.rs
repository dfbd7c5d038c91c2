//! isthmus: one replicator per site tails its own store's change feed and pushes versions to peer
//! sites over mutual TLS, as rules say.
//!
//! The map, from the top: `cli` and `main` start a role; `role` joins a store node and a replicator in
//! one process, or runs either by itself; `replicator` is the shell around the pure `link`; `journal`, `peer`, `store` and
//! `rule`'s watchers are its edges and do not see each other. ARCHITECTURE.md says it at length.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

// Fixtures that benchmarks share name the crate from outside.
#[cfg(test)]
extern crate self as isthmus;

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted bugs are for tests: build isthmus without --workspace, or without e2e");

pub mod cli;
pub mod config;
pub mod dashboard;
pub mod document;
pub mod drill;
mod https;
pub mod journal;
pub mod link;
pub mod peer;
pub mod replicator;
pub mod role;
pub mod rule;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod words;
