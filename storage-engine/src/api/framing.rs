//! Messages in the body of a request or an answer: a length of 4 bytes, big-endian, and that many bytes;
//! what follows the last message, where something does, is raw bytes of an object.
//!
//! No input makes it ask for more than [`MESSAGE_BYTES_MAX`]. Both ends of the private API use it.
use super::message::{ERROR_TRAILER, error_from_bytes};
use super::{Body, Error};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as HttpBody;

/// Largest message: a version of 10,000 parts with all its checksums is below 4 MiB.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
const LENGTH_BYTES: usize = 4;

/// Bodies read by a [`Reader`] break with this.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// A message with its length before it.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + message.len());
    append(&mut out, message);
    out.freeze()
}

/// Appends a message with its length before it.
pub fn append(out: &mut BytesMut, message: &[u8]) {
    debug_assert!(message.len() <= MESSAGE_BYTES_MAX, "no reader takes it");
    out.put_u32(u32::try_from(message.len()).expect("messages are below 8 MiB"));
    out.extend_from_slice(message);
}

/// Reads messages off a body, then its raw rest.
pub struct Reader<B> {
    body: B,
    /// Arrived and not yet read.
    buffer: BytesMut,
}

impl<B> Reader<B>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Broken>,
{
    /// A reader at the beginning of `body`.
    pub fn new(body: B) -> Self {
        Reader { body, buffer: BytesMut::new() }
    }

    /// The next message; `None` where the body ended cleanly before one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a message above the limit, [`Error::Body`] when the body broke or ended
    /// within a message: nothing of it may be believed.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > MESSAGE_BYTES_MAX {
                    let limit = MESSAGE_BYTES_MAX;
                    return Err(Error::Invalid(format!("a message of {length} bytes, above the limit of {limit}")));
                }
                if self.buffer.len() >= LENGTH_BYTES + length {
                    self.buffer.advance(LENGTH_BYTES);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            match self.more().await.map_err(Error::Body)? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::Body(std::io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// The raw bytes behind the messages. An error the other end could still name is the source of the
    /// stream's error.
    pub fn rest(mut self) -> Body {
        let first = self.buffer.split().freeze();
        Box::pin(stream::unfold((Some(self), first), |(reader, first)| async move {
            let mut reader = reader?;
            if !first.is_empty() {
                return Some((Ok(first), (Some(reader), Bytes::new())));
            }
            match reader.more().await {
                Ok(Some(bytes)) => Some((Ok(bytes), (Some(reader), Bytes::new()))),
                Ok(None) => None,
                Err(err) => Some((Err(err), (None, Bytes::new()))),
            }
        }))
    }

    /// Bytes as they come; `None` at a clean end.
    async fn more(&mut self) -> std::io::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(std::io::Error::other)?;
            match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => {
                    if let Some(error) = frame.trailers_ref().and_then(from_trailers) {
                        return Err(std::io::Error::other(error));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// The error in the trailers of a body that was not given to its end.
fn from_trailers(trailers: &HeaderMap) -> Option<Error> {
    let value = trailers.get(ERROR_TRAILER)?;
    let bytes = STANDARD.decode(value.as_bytes());
    Some(bytes.map_or_else(|err| Error::Unavailable(format!("an unreadable error: {err}")), |b| error_from_bytes(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    fn body(chunks: &[&[u8]]) -> Reader<impl HttpBody<Data = Bytes, Error = std::io::Error> + Unpin + use<>> {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok(Frame::data(Bytes::copy_from_slice(c)))).collect();
        Reader::new(StreamBody::new(stream::iter(chunks)))
    }

    #[tokio::test]
    async fn messages_and_the_rest_arrive_however_the_bytes_are_cut() {
        let mut whole = framed(b"head").to_vec();
        whole.extend_from_slice(&framed(b""));
        whole.extend_from_slice(b"raw bytes");
        for cut in 0..whole.len() {
            let mut reader = body(&[&whole[..cut], &whole[cut..]]);
            assert_eq!(reader.message().await.unwrap().unwrap(), "head");
            assert_eq!(reader.message().await.unwrap().unwrap(), "");
            let rest: Vec<Bytes> = reader.rest().map(Result::unwrap).collect().await;
            assert_eq!(rest.concat(), b"raw bytes");
        }
        let mut all = body(&[&framed(b"one")]);
        assert_eq!(all.message().await.unwrap().unwrap(), "one");
        assert_eq!(all.message().await.unwrap(), None);
    }

    #[tokio::test]
    async fn cut_and_oversized_messages_are_refused() {
        let whole = framed(b"message");
        for cut in 1..whole.len() {
            assert!(matches!(body(&[&whole[..cut]]).message().await, Err(Error::Body(_))), "cut at {cut}");
        }
        assert!(matches!(body(&[&[0xff; 8]]).message().await, Err(Error::Invalid(_))));
    }
}
