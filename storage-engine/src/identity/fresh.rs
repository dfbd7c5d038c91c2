//! The loop that reads certificates again while their files change, and what it says of it: each news once.
//! Called by whoever holds a certificate; what a reload does is the holder's.
use super::Error;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the files are read again. A mounted secret swaps a link, which file events miss.
/// Source: security.md section 3.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// Reloads every [`RELOAD_INTERVAL`] until `stop`; `file` stands for the files in the log. May be dropped at any time.
pub(super) async fn keep<F>(file: &Path, reload: impl Fn() -> F, stop: &CancellationToken)
where
    F: Future<Output = Result<bool, Error>>,
{
    let mut said = Said::default();
    while stop.run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL)).await.is_some() {
        let file = file.display();
        match said.news_of(reload().await) {
            None => {}
            Some(News::Reloaded) => tracing::info!(%file, "The certificate was reloaded."),
            Some(News::AsBefore) => tracing::info!(%file, "The files are again those of the certificate in use."),
            Some(News::Broken(error)) => {
                tracing::warn!(%file, error, "The certificate cannot be reloaded; the old one stays.");
            }
        }
    }
}

/// Something to say of a reload.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Reloaded,
    /// What was broken is gone, and with it the change.
    AsBefore,
    Broken(String),
}

/// The trouble that was told and lasts; the same is told once, however often it is met.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    fn news_of(&mut self, outcome: Result<bool, Error>) -> Option<News> {
        let trouble = outcome.as_ref().err().map(ToString::to_string);
        let before = std::mem::replace(&mut self.0, trouble.clone());
        match (outcome, trouble) {
            (Ok(true), _) => Some(News::Reloaded),
            (Ok(false), _) => before.map(|_| News::AsBefore),
            (Err(_), trouble) if trouble == before => None,
            (Err(_), trouble) => trouble.map(News::Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(reason: &str) -> Result<bool, Error> {
        Err(Error::Pem { path: "tls.crt".into(), reason: reason.into() })
    }

    #[test]
    fn a_broken_file_is_told_once_and_its_end_too() {
        let mut said = Said::default();
        let told = |text: &str| Some(News::Broken(format!("read tls.crt: {text}")));
        assert_eq!(said.news_of(Ok(false)), None);
        assert_eq!(said.news_of(broken("cut")), told("cut"));
        assert_eq!(said.news_of(broken("cut")), None);
        assert_eq!(said.news_of(broken("empty")), told("empty"), "another trouble is news");
        assert_eq!(said.news_of(Ok(false)), Some(News::AsBefore));
        assert_eq!(said.news_of(Ok(false)), None);
        assert_eq!(said.news_of(broken("empty")), told("empty"), "it came back");
        assert_eq!(said.news_of(Ok(true)), Some(News::Reloaded));
    }
}
