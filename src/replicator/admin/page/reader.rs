//! Who reads the page. The admin port is open to whoever reaches it: there it says no more than `/metrics` does. Keys and
//! reasons, which may hold one, are for those who hold the token of `page_token_file`, or ask the local socket.
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;

/// What a listener asks of readers.
#[derive(Clone, Debug)]
pub enum Door {
    /// Nothing: anybody may be asking.
    Open,
    /// The token in this file, read at each request, so that a new one takes effect at once.
    Token(Arc<PathBuf>),
    /// Nothing: who reaches it may know everything.
    Local,
}

/// What may be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// No key, no reason.
    Anybody,
    Trusted,
}

impl Door {
    /// The door of the admin port.
    pub fn of(token: Option<PathBuf>) -> Self {
        token.map_or(Door::Open, |file| Door::Token(Arc::new(file)))
    }

    /// Who asks; `Err` is the answer to who may not.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<Reader, Response> {
        let file = match self {
            Door::Open => return Ok(Reader::Anybody),
            Door::Local => return Ok(Reader::Trusted),
            Door::Token(file) => file,
        };
        let token = tokio::fs::read_to_string(&**file).await.map_err(|e| {
            tracing::warn!(file = %file.display(), error = %e, "The status page's token cannot be read.");
            (StatusCode::SERVICE_UNAVAILABLE, "page_token_file cannot be read; the log says why\n").into_response()
        })?;
        let token = token.trim();
        // An empty file lets nobody in.
        if !token.is_empty() && given(headers).is_some_and(|given| is_same(&given, token)) {
            return Ok(Reader::Trusted);
        }
        let ask = [(WWW_AUTHENTICATE, "Basic realm=\"isthmus\", charset=\"UTF-8\""), (CACHE_CONTROL, "no-store")];
        let how = "the token of page_token_file is asked for, as password or bearer token; any user name will do\n";
        Err((StatusCode::UNAUTHORIZED, ask, how).into_response())
    }
}

/// The token of a request: a bearer's, or the password of a browser.
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.trim().to_owned()),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
            Some(pair.split_once(':')?.1.to_owned())
        }
        _ => None,
    }
}

/// By their hashes: how long it takes says nothing about the token.
fn is_same(a: &str, b: &str) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(door: &Door, authorization: Option<&str>) -> Result<Reader, StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        door.admit(&headers).await.map_err(|answer| answer.status())
    }

    #[tokio::test]
    async fn keys_are_for_who_holds_the_token_or_asks_the_socket() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let file = dir.path().join("token");
        let door = Door::of(Some(file.clone()));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(asked(&Door::of(None), Some("Bearer x")).await, Ok(Reader::Anybody));
        assert_eq!(asked(&Door::Local, None).await, Ok(Reader::Trusted));
        assert_eq!(asked(&door, Some("Bearer x")).await, Err(StatusCode::SERVICE_UNAVAILABLE));
        std::fs::write(&file, "\n").expect("write");
        for empty in ["Bearer ", &basic("me:")] {
            assert_eq!(asked(&door, Some(empty)).await, Err(StatusCode::UNAUTHORIZED));
        }
        std::fs::write(&file, "a-token-of-the-tests\n").expect("write");
        for right in ["Bearer a-token-of-the-tests", &basic("me:a-token-of-the-tests")] {
            assert_eq!(asked(&door, Some(right)).await, Ok(Reader::Trusted));
        }
        let wrong = ["Bearer a-token", "a-token-of-the-tests", "Basic ?", "Digest a-token-of-the-tests"];
        for wrong in wrong.map(Some).into_iter().chain([None, Some(basic("a-token-of-the-tests:").as_str())]) {
            assert_eq!(asked(&door, wrong).await, Err(StatusCode::UNAUTHORIZED), "{wrong:?}");
        }
        std::fs::write(&file, "another-token-by-now").expect("write");
        assert_eq!(asked(&door, Some("Bearer a-token-of-the-tests")).await, Err(StatusCode::UNAUTHORIZED));
    }
}
