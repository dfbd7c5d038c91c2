//! Bodies on their way in and out. What comes in is believed only after a clean end; what goes out small goes
//! out in one piece. Called by the handlers; never touches a drive itself.
use crate::object::{Body, Error, Opened};
use crate::s3::{error, pace};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use std::io;
use std::ops::Range;

/// Objects and ranges up to this size leave in one write with the head; larger ones stream. It bounds what one
/// reader can hold in memory.
const ONE_PIECE_BYTES: u64 = 1 << 20;

/// Trailers the client announced: the handle the codec fills, and the names that must be there at the end.
pub struct Announced {
    pub handle: TrailingHeaders,
    pub names: Vec<String>,
}

struct Incoming {
    blob: StreamingBlob,
    left: u64,
    announced: Option<Announced>,
    ended: bool,
}

/// The body of a request, exactly `size_bytes` long.
///
/// The last bytes are handed on only after the end was seen to be clean: right length, right signatures, the
/// announced trailers there. An error ends the stream; its kind says which S3 error it is (`error::from_body`).
pub fn incoming(blob: Option<StreamingBlob>, size_bytes: u64, announced: Option<Announced>) -> Body {
    let blob = blob.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
    let state = Incoming { blob, left: size_bytes, announced, ended: false };
    stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        let item = state.next().await.transpose()?;
        state.ended |= item.is_err();
        Some((item, state))
    })
    .fuse() // readers may look behind the end
    .boxed()
}

impl Incoming {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            self.finish().await?;
            return Ok(None);
        }
        let Some(bytes) = self.chunk().await? else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early"));
        };
        self.left =
            self.left.checked_sub(bytes.len() as u64).ok_or_else(|| invalid("the body is longer than announced"))?;
        if self.left == 0 {
            self.finish().await?;
        }
        Ok(Some(bytes))
    }

    /// Sees the stream to its end; nothing may come any more, and the announced trailers must be there.
    async fn finish(&mut self) -> io::Result<()> {
        self.ended = true;
        if self.chunk().await?.is_some() {
            return Err(invalid("the body is longer than announced"));
        }
        let Some(announced) = &self.announced else { return Ok(()) };
        let there = |name: &String| announced.handle.read(|h| h.contains_key(name.as_str())) == Some(true);
        match announced.names.iter().find(|name| !there(name)) {
            Some(missing) => Err(invalid(&format!("the trailer {missing} was announced and did not come"))),
            None => Ok(()),
        }
    }

    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.blob.next().await {
                None => return Ok(None),
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(source)) => return Err(classify(&*source)),
            }
        }
    }
}

/// The codec's body errors are private types: their text is all there is to tell them apart.
fn classify(source: &(dyn std::error::Error + Send + Sync)) -> io::Error {
    let text = source.to_string();
    let kind = if text.contains(pace::TOO_SLOW) {
        io::ErrorKind::TimedOut
    } else if text.contains("SignatureMismatch") {
        io::ErrorKind::PermissionDenied
    } else if text.contains("Sha256Mismatch") {
        io::ErrorKind::InvalidData
    } else if ["FormatError", "TooLarge", "TooMany", "LengthMismatch"].iter().any(|what| text.contains(what)) {
        io::ErrorKind::InvalidInput
    } else {
        io::ErrorKind::UnexpectedEof
    };
    io::Error::new(kind, text)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// The bytes of a range, ready to send. The first bytes are read before the status line is written, so that an
/// object that cannot be read answers with an error and not with a cut body.
pub async fn outgoing(opened: &Opened, range: Range<u64>) -> S3Result<StreamingBlob> {
    let size = range.end - range.start;
    if size == 0 {
        return Ok(StreamingBlob::from(s3s::Body::empty()));
    }
    let mut body = opened.read(range);
    let first = body.try_next().await.map_err(unreadable)?.ok_or_else(|| short(size))?;
    if size > ONE_PIECE_BYTES {
        let frames = stream::once(async { Ok(first) }).chain(body).map_ok(Frame::data);
        return Ok(StreamingBlob::from(s3s::Body::http_body_unsync(StreamBody::new(frames))));
    }
    let whole = if first.len() as u64 == size { first } else { collect(first, body, size).await? };
    Ok(StreamingBlob::from(s3s::Body::from(whole)))
}

async fn collect(first: Bytes, mut rest: Body, size: u64) -> S3Result<Bytes> {
    let mut whole = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
    whole.extend_from_slice(&first);
    while let Some(bytes) = rest.try_next().await.map_err(unreadable)? {
        whole.extend_from_slice(&bytes);
    }
    if whole.len() as u64 == size { Ok(whole.freeze()) } else { Err(short(size)) }
}

fn short(size: u64) -> S3Error {
    s3_error!(InternalError, "Fewer than {size} bytes could be read.")
}

/// A read that failed: the object layer's own error where it is inside.
fn unreadable(source: io::Error) -> S3Error {
    match source.downcast::<Error>() {
        Ok(error) => error::from_object(error, false),
        Err(source) => s3_error!(source, InternalError, "The object could not be read."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(chunks: &[&'static str]) -> Option<StreamingBlob> {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok::<_, io::Error>(Bytes::from_static(c.as_bytes()))).collect();
        Some(StreamingBlob::wrap(stream::iter(chunks)))
    }

    async fn drain(body: Body) -> Vec<Result<Bytes, io::ErrorKind>> {
        body.map_err(|e| e.kind()).collect().await
    }

    #[tokio::test]
    async fn a_body_of_the_announced_length_passes() {
        let all = drain(incoming(blob(&["ab", "", "c"]), 3, None)).await;
        assert_eq!(all, [Ok(Bytes::from("ab")), Ok(Bytes::from("c"))]);
        assert_eq!(drain(incoming(None, 0, None)).await, []);
    }

    #[tokio::test]
    async fn a_short_body_ends_in_an_error() {
        assert_eq!(drain(incoming(blob(&["ab"]), 3, None)).await.pop(), Some(Err(io::ErrorKind::UnexpectedEof)));
    }

    #[tokio::test]
    async fn the_last_bytes_of_a_long_body_are_never_handed_on() {
        let all = drain(incoming(blob(&["ab", "c", "d"]), 3, None)).await;
        assert_eq!(all, [Ok(Bytes::from("ab")), Err(io::ErrorKind::InvalidInput)]);
    }
}
