//! What stands at the far end of a link while it can be reached: another site's replicator, or a bucket at a bare S3
//! endpoint. The loop of a link pushes to either in the same words.
use super::foreign::{self, End};
use super::push::{Pushed, Route};
use crate::link::Settings;
use crate::peer::client::Connection;
use std::sync::Arc;
use storage_engine::version::{Version, VersionId};
use tokio::sync::watch;

/// A far end that answers.
#[derive(Clone)]
pub enum FarEnd {
    Site(Arc<Connection>),
    S3(Arc<End>),
}

/// The far end of a link, while it can be reached.
pub type Far = watch::Receiver<Option<FarEnd>>;

impl FarEnd {
    /// Sends a version with its bytes.
    pub async fn push(
        &self,
        route: &Route,
        settings: &Settings,
        version: &Version,
        traceparent: Option<String>,
    ) -> Pushed {
        match self {
            FarEnd::Site(line) => route.push(line, settings, version, traceparent).await,
            FarEnd::S3(end) => foreign::push(end, route, settings, version).await,
        }
    }

    /// Sends the version of a row: its current record is read first; one that the rule no longer covers is done.
    pub async fn push_row(
        &self,
        route: &Route,
        settings: &Settings,
        key: &str,
        id: VersionId,
        traceparent: Option<String>,
    ) -> Pushed {
        match self {
            FarEnd::Site(line) => route.push_row(line, settings, key, id, traceparent).await,
            FarEnd::S3(end) => match route.current(settings, key, id).await {
                Ok(version) => foreign::push(end, route, settings, &version).await,
                Err(pushed) => pushed,
            },
        }
    }
}
