//! Frames of the server's protocol: a tag, a length, a body.
//!
//! Bodies are slices of the read buffer, never copied. Reading is safe to drop while pending: what has arrived stays in
//! the buffer.

use bytes::{Buf, Bytes, BytesMut};
use godwit_model::{Error, Result, codes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::Stream;
use crate::error;

/// One buffer: large enough for throughput, small beside any memory limit. Values that travel on keep it alive.
const BUFFER_BYTES: usize = 256 << 10;
/// A new buffer is begun when less than this is free, so that small messages share one.
const LEAST_FREE: usize = 16 << 10;
/// The server's own limit for one message is 1 GiB; a longer one is no PostgreSQL.
const LONGEST_FRAME: usize = (1 << 30) + (1 << 20);
/// Tag and length.
const HEADER: usize = 5;
/// Of a frame over the limit so much is read: enough for a table's number and, most often, its key.
const HEAD_BYTES: usize = 8 << 10;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// A frame over the limit: the beginning of its body, and the length of all of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Oversize {
    pub(crate) head: Bytes,
    pub(crate) length: usize,
    pub(crate) limit: usize,
}

impl Oversize {
    pub(crate) fn refused(&self) -> Error {
        let what = format!("the source's log holds a row of {} bytes; {} fit", self.length, self.limit);
        Error::new(&codes::VALUE_TOO_LARGE, what).remedy("raise `limits: {memory}` to at least four times the size of the row")
    }
}

enum Taken {
    Frame(Frame),
    Oversize(Oversize),
    Nothing,
}

pub(crate) struct Wire {
    stream: Stream,
    inbox: BytesMut,
    /// Bytes that a frame may have.
    longest: usize,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Wire { stream, inbox: BytesMut::new(), longest: LONGEST_FRAME }
    }

    /// A row that does not fit the memory limit is refused before it is held.
    pub(crate) fn limit_frames(&mut self, bytes: usize) {
        self.longest = bytes.min(LONGEST_FRAME);
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.bytes.write_all(bytes).await.map_err(error::lost)?;
        self.stream.bytes.flush().await.map_err(error::lost)
    }

    /// The next frame that is complete already.
    pub(crate) fn take(&mut self) -> Result<Option<Frame>> {
        match take_frame(&mut self.inbox, self.longest)? {
            Taken::Frame(frame) => Ok(Some(frame)),
            Taken::Oversize(oversize) => Err(oversize.refused()),
            Taken::Nothing => Ok(None),
        }
    }

    /// As `take`, for a reader who can say what a frame over the limit is about.
    pub(crate) fn take_or_refuse(&mut self) -> Result<Option<Result<Frame, Oversize>>> {
        Ok(match take_frame(&mut self.inbox, self.longest)? {
            Taken::Frame(frame) => Some(Ok(frame)),
            Taken::Oversize(oversize) => Some(Err(oversize)),
            Taken::Nothing => None,
        })
    }

    /// Lets messages gather until the next read.
    pub(crate) fn let_gather(&mut self) {
        self.stream.bytes.let_gather();
    }

    /// Reads what there is, waiting for at least one byte.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        let missing = missing(&self.inbox, self.longest);
        if self.inbox.capacity() - self.inbox.len() < LEAST_FREE.max(missing) {
            self.inbox.reserve(BUFFER_BYTES.max(missing));
        }
        match self.stream.bytes.read_buf(&mut self.inbox).await.map_err(error::lost)? {
            0 => Err(Error::new(&codes::CONNECTION_LOST, "the server closed the connection")),
            _ => Ok(()),
        }
    }

    /// The next frame.
    pub(crate) async fn read(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }
}

fn take_frame(inbox: &mut BytesMut, longest: usize) -> Result<Taken> {
    let Some(length) = body_length(inbox) else { return Ok(Taken::Nothing) };
    let length = length.map_err(|()| Error::new(&codes::CONNECTION_LOST, "the server sent something that is not its protocol"))?;
    if length > longest {
        let head = HEADER + length.min(HEAD_BYTES);
        return Ok(match inbox.get(HEADER..head) {
            Some(head) => Taken::Oversize(Oversize { head: Bytes::copy_from_slice(head), length, limit: longest }),
            None => Taken::Nothing,
        });
    }
    if inbox.len() < HEADER + length {
        return Ok(Taken::Nothing);
    }
    let mut frame = inbox.split_to(HEADER + length);
    let tag = frame[0];
    frame.advance(HEADER);
    Ok(Taken::Frame(Frame { tag, body: frame.freeze() }))
}

/// Of the body of the frame at the buffer's start, if its header is there.
fn body_length(inbox: &[u8]) -> Option<Result<usize, ()>> {
    let length = inbox.get(1..HEADER)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    Some(length.checked_sub(HEADER - 1).ok_or(()))
}

/// Bytes still to come of the frame at the buffer's start, so that a large one is read into one allocation.
fn missing(inbox: &[u8], longest: usize) -> usize {
    match body_length(inbox) {
        Some(Ok(length)) if length > longest => HEAD_BYTES,
        Some(Ok(length)) => (HEADER + length).saturating_sub(inbox.len()).min(LONGEST_FRAME),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(inbox: &mut BytesMut, longest: usize) -> Option<Frame> {
        match take_frame(inbox, longest).unwrap() {
            Taken::Frame(frame) => Some(frame),
            Taken::Oversize(_) | Taken::Nothing => None,
        }
    }

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut inbox = BytesMut::from(&b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I\x45\0\0"[..]);
        assert_eq!(frame(&mut inbox, 100), Some(Frame { tag: b'R', body: Bytes::from_static(b"\0\0\0\0") }));
        assert_eq!(frame(&mut inbox, 100), Some(Frame { tag: b'Z', body: Bytes::from_static(b"I") }));
        assert_eq!(frame(&mut inbox, 100), None);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_arrives() {
        let mut inbox = BytesMut::from(&b"d\0\x01\0\0"[..]);
        assert!(matches!(take_frame(&mut inbox, 1000), Ok(Taken::Nothing)), "what it is about is still to come");
        assert_eq!(missing(&inbox, 1000), HEAD_BYTES);
        inbox.resize(HEADER + HEAD_BYTES, b'x');
        let Ok(Taken::Oversize(oversize)) = take_frame(&mut inbox, 1000) else { panic!("it is longer than 1000 bytes") };
        assert_eq!((oversize.head.len(), oversize.length), (HEAD_BYTES, (1 << 16) - 4));
        assert!(oversize.refused().is(&codes::VALUE_TOO_LARGE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut inbox = BytesMut::from(&bytes[..]);
            while let Ok(Taken::Frame(_)) = take_frame(&mut inbox, 1000) {}
        }
    }
}
