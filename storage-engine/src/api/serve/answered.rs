//! What a question came to <-> the body of its answer: a head, and what follows it as the line takes it.
use crate::api::framing::{append, framed};
use crate::api::message::{Answer, ERROR_TRAILER, Reply, error_to_bytes};
use crate::api::{Body, Error};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use std::convert::Infallible;

/// Messages of a list are joined into pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

pub(super) type Answered = Response<UnsyncBoxBody<Bytes, Infallible>>;
/// What a question comes to: its answer, and what follows it.
pub(super) type Outcome = Result<(Answer, Follows), Error>;

/// What follows an answer in its body.
pub(super) enum Follows {
    Nothing,
    Messages(Box<dyn Iterator<Item = Vec<u8>> + Send>),
    Bytes(Body),
}

pub(super) fn listed(versions: Vec<crate::version::Version>) -> (Answer, Follows) {
    (Answer::Versions, follow(versions))
}

pub(super) fn follow(versions: Vec<crate::version::Version>) -> Follows {
    Follows::Messages(Box::new(versions.into_iter().map(|v| v.to_bytes())))
}

pub(super) fn respond(status: u16, outcome: Outcome) -> Answered {
    let body = match outcome {
        Err(error) => whole(framed(&error_to_bytes(&error))),
        Ok((answer, follows)) => {
            let head = Reply::from(answer).to_bytes();
            match follows {
                Follows::Nothing => whole(framed(&head)),
                Follows::Messages(messages) => in_pieces(head, messages),
                Follows::Bytes(bytes) => with_bytes(framed(&head), bytes),
            }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("statuses are constants between 200 and 507");
    response
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(bytes).boxed_unsync()
}

/// The head and the messages behind it, encoded as the line takes them.
fn in_pieces(head: Vec<u8>, messages: Box<dyn Iterator<Item = Vec<u8>> + Send>) -> UnsyncBoxBody<Bytes, Infallible> {
    let mut messages = std::iter::once(head).chain(messages);
    let pieces = std::iter::from_fn(move || {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE_BYTES {
            let Some(message) = messages.next() else { break };
            append(&mut piece, &message);
        }
        (!piece.is_empty()).then(|| Ok(Frame::data(piece.freeze())))
    });
    StreamBody::new(stream::iter(pieces)).boxed_unsync()
}

/// The head and the bytes; where they cannot be given to their end, the trailers say why.
fn with_bytes(head: Bytes, bytes: Body) -> UnsyncBoxBody<Bytes, Infallible> {
    let bytes = bytes.map(|piece| piece.map_or_else(|err| Frame::trailers(to_trailers(err)), Frame::data));
    let frames = stream::once(std::future::ready(Frame::data(head))).chain(bytes).map(Ok);
    StreamBody::new(frames).boxed_unsync()
}

fn to_trailers(err: std::io::Error) -> HeaderMap {
    let error = err.downcast::<Error>().unwrap_or_else(|err| Error::Unavailable(err.to_string()));
    let value = HeaderValue::from_str(&STANDARD.encode(error_to_bytes(&error)));
    HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static(ERROR_TRAILER),
        value.expect("base64 is visible ASCII"),
    )])
}
