//! Versions to bare S3 endpoints: to a store of ours spoken to as any S3, to an independent server, and to a stand-in that
//! writes down what the wire said.
mod endpoint;
mod moto;
mod plain;
#[path = "../process/mod.rs"]
mod process;
mod site;
mod wire;
