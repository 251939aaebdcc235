//! Checked reading of a message's bytes.

use bytes::{Buf, Bytes};
use godwit_model::{Error, Result, codes};

use crate::position::Lsn;

pub(super) struct Reader {
    rest: Bytes,
}

pub(super) fn undecodable(what: &str) -> Error {
    Error::new(&codes::LOG_UNDECODABLE, format!("the source's log holds {what}"))
        .remedy("report this with the server's version; nothing behind the last durable position was taken over")
}

impl Reader {
    pub(super) fn new(message: Bytes) -> Self {
        Reader { rest: message }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<Bytes> {
        if length > self.rest.len() {
            return Err(undecodable("a message that ends too early"));
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = *self.rest.first_chunk::<N>().ok_or_else(|| undecodable("a message that ends too early"))?;
        self.rest.advance(N);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        let end = memchr::memchr(0, &self.rest).ok_or_else(|| undecodable("a name that does not end"))?;
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        String::from_utf8(text.into()).map_err(|_| undecodable("a name that is not UTF-8"))
    }

    /// How many items of at least `size` bytes may still follow; bounds what a false count can make us reserve.
    pub(super) fn at_most(&self, size: usize) -> usize {
        self.rest.len() / size
    }

    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(undecodable("a message that is longer than its kind")) }
    }
}
