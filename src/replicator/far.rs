//! What stands at the far end of a link while it can be reached: another site's replicator, or a bucket at a bare S3
//! endpoint. The loop of a link pushes to either in the same words.
use super::foreign::{self, End};
use super::push::{Pushed, Route};
use crate::link::{Outcome, Settings, includes};
use crate::peer::client::Connection;
use std::sync::Arc;
use storage_engine::version::Version;
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

    /// Sends a version that was read just now: one that the rule no longer covers is done.
    pub async fn push_current(
        &self,
        route: &Route,
        settings: &Settings,
        version: &Version,
        traceparent: Option<String>,
    ) -> Pushed {
        match includes(settings, version) {
            true => self.push(route, settings, version, traceparent).await,
            false => Pushed::Done(Outcome::Superseded),
        }
    }
}
