//! A large version out, in pieces: the peer says which it holds, the others go side by side, each durable there by
//! itself; so a cut costs at most the pieces that were under way. Decides nothing; called by `push.rs`.
use super::{Pushed, Route, failed, said};
use crate::peer::client::{Connection, Error};
use crate::peer::{Ack, Outgoing, Portion};
use crate::store::{Body, Cut, Pieces};
use crc_fast::{CrcAlgorithm, Digest};
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use storage_engine::version::Version;

/// Of a piece: what is sent twice at most for each stream that was cut, and what one holds in memory.
const PIECE_BYTES: u64 = 8 << 20;
/// Smaller versions go whole: what a cut costs them is little, and they need no answer before their bytes.
const WHOLE_BYTES_MAX: u64 = 2 * PIECE_BYTES;
/// Pieces asked for side by side; the connection lets fewer go at once where several versions do.
const AT_ONCE: usize = 4;

/// What sends one version in pieces.
pub(super) struct InPieces<'a> {
    route: &'a Route,
    line: &'a Connection,
    pieces: &'a dyn Pieces,
    cut: Cut,
}

impl Route {
    /// How to send it in pieces; `None` where it goes whole.
    pub(super) fn in_pieces<'a>(&'a self, line: &'a Connection, version: &Version) -> Option<InPieces<'a>> {
        let size = version.birth.as_ref()?.size_bytes;
        let pieces = self.store.pieces().filter(|_| line.takes_pieces())?;
        if size <= WHOLE_BYTES_MAX || version.id.is_null() {
            return None;
        }
        let cut = Cut::about(size, PIECE_BYTES)?;
        Some(InPieces { route: self, line, pieces, cut })
    }
}

impl InPieces<'_> {
    /// Asks which pieces are there, sends the others, and asks again.
    pub(super) async fn push(&self, version: &Version, traceparent: Option<String>, relayed: bool) -> Pushed {
        let _flight = self.route.toll.take_off().await;
        let piece_bytes = self.cut.piece_bytes();
        let assemble = || Outgoing {
            portion: Portion::Assemble { piece_bytes },
            traceparent: traceparent.clone(),
            ..self.route.outgoing(version.clone(), relayed)
        };
        self.route.toll.pass(super::HEAD_BYTES).await;
        let held: BTreeSet<u32> = match self.line.push(assemble()).await {
            Ok(Ack::NeedsPieces { held }) => held.into_iter().collect(),
            other => return other.map_or_else(failed, said),
        };
        let missing = (0..self.cut.count()).filter(|number| !held.contains(number));
        let mut sent =
            stream::iter(missing).map(|number| self.push_piece(version, number, relayed)).buffer_unordered(AT_ONCE);
        while let Some(piece) = sent.next().await {
            match piece {
                Ok(Ack::Applied) => {}
                other => return other.map_or_else(|failed| failed, said),
            }
        }
        self.line.push(assemble()).await.map_or_else(failed, said)
    }

    async fn push_piece(&self, version: &Version, number: u32, relayed: bool) -> Result<Ack, Pushed> {
        let _turn = self.line.piece_turn().await.map_err(failed)?;
        let (body, crc64nvme) = self.read(version, number).await.map_err(|e| failed(Error::Body(e)))?;
        let mut slim = version.clone();
        // The layout of its parts comes with the whole.
        slim.birth.iter_mut().for_each(|birth| birth.parts.clear());
        let portion = Portion::Piece { piece_bytes: self.cut.piece_bytes(), number, crc64nvme };
        let body = Some(self.route.toll.pace(body));
        self.line.push(Outgoing { body, portion, ..self.route.outgoing(slim, relayed) }).await.map_err(failed)
    }

    /// A piece and its checksum, which goes before it. What was read for that is kept and sent; a piece above
    /// [`PIECE_BYTES`], of a version of more than 78 GiB, is read again instead.
    async fn read(&self, version: &Version, number: u32) -> Result<(Body, u64), io::Error> {
        let range = self.cut.range(number).expect("the number is one of the cut");
        let (size, mut read) = (range.end - range.start, 0);
        let (mut kept, mut crc) = (Vec::new(), Digest::new(CrcAlgorithm::Crc64Nvme));
        let mut bytes = self.range(version, range.clone()).await?;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            crc.update(&chunk);
            read += chunk.len() as u64;
            if size <= PIECE_BYTES {
                kept.push(Ok(chunk));
            }
        }
        if read != size {
            return Err(io::Error::other(format!("piece {number} has {read} bytes of {size}")));
        }
        let body = if kept.is_empty() { self.range(version, range).await? } else { stream::iter(kept).boxed() };
        Ok((body, crc.finalize()))
    }

    async fn range(&self, version: &Version, range: Range<u64>) -> Result<Body, io::Error> {
        let body = self.pieces.read_range(&self.route.bucket, &version.key, version.id, range).await;
        body.map_err(io::Error::other)
    }
}
