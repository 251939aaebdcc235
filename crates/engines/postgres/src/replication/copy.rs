//! What travels in the two-way copy: pieces of the log and keepalives from the server, status updates from here.

use bytes::{BufMut, Bytes, BytesMut};
use godwit_model::{Error, Result, codes};

use super::wire::Oversize;
use crate::position::Lsn;

/// What the server sends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogMessage {
    /// One message of the output plugin.
    Data(Bytes),
    /// Everything up to here was sent, or was of no interest.
    Keepalive { end: Lsn, reply: bool },
    /// A message that does not fit; nothing follows.
    Oversize(Oversize),
}

/// Before the plugin's bytes stand the kind, start, end and clock; the plugin says all of that better.
const DATA_HEADER: usize = 25;

impl LogMessage {
    /// Of the body of a CopyData frame.
    pub(crate) fn parse(body: Bytes) -> Result<Self> {
        match body.first() {
            Some(b'w') if body.len() >= DATA_HEADER => Ok(LogMessage::Data(body.slice(DATA_HEADER..))),
            Some(b'k') if body.len() >= 18 => {
                let end = body[1..9].first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                Ok(LogMessage::Keepalive { end: Lsn(end), reply: body[17] == 1 })
            }
            _ => Err(Error::new(&codes::LOG_UNDECODABLE, "the server sent a message of a kind that does not belong in its log")),
        }
    }
}

impl Oversize {
    /// Of a CopyData frame's head, the plugin's bytes.
    pub(super) fn of_data(self) -> LogMessage {
        let head = if self.head.len() >= DATA_HEADER { self.head.slice(DATA_HEADER..) } else { Bytes::new() };
        LogMessage::Oversize(Oversize { head, ..self })
    }
}

/// A CopyData frame that tells the server how far the log is durable here. One position is written, flushed and
/// applied at once: there is no other that a server may rely on. `ask` wants a keepalive for an answer.
pub(crate) fn status_update(durable: Lsn, ask: bool) -> BytesMut {
    let mut message = BytesMut::with_capacity(39);
    message.put_u8(b'd');
    message.put_u32(38);
    message.put_u8(b'r');
    for _ in 0..3 {
        message.put_u64(durable.0);
    }
    // The server does nothing with a client's clock.
    message.put_u64(0);
    message.put_u8(u8::from(ask));
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_status_update_has_the_length_it_says() {
        assert_eq!(status_update(Lsn(1), true).len(), 39);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = LogMessage::parse(Bytes::from(bytes));
        }
    }
}
