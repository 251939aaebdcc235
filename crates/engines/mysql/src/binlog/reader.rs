//! Bytes of an event, taken from the front. Whatever is missing is an error, never a panic.

use godwit_model::Result;

use super::undecodable;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| undecodable("the source's log holds an event that is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<()> {
        self.bytes(count).map(|_| ())
    }

    /// A little-endian number of up to eight bytes.
    pub(super) fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(little_endian(self.bytes(bytes)?))
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A number in the protocol's form of one to nine bytes.
    pub(super) fn packed(&mut self) -> Result<usize> {
        let number = match self.u8()? {
            small @ 0..=250 => u64::from(small),
            252 => self.number(2)?,
            253 => self.number(3)?,
            254 => self.number(8)?,
            _ => return Err(undecodable("the source's log holds a number that cannot be read")),
        };
        usize::try_from(number).map_err(|_| undecodable("the source's log holds a length that does not fit"))
    }

    /// A length of one byte, the text, and a zero byte.
    pub(super) fn name(&mut self) -> Result<String> {
        let length = self.u8()?.into();
        let name = self.bytes(length)?.to_vec();
        self.skip(1)?;
        String::from_utf8(name).map_err(|_| undecodable("the source's log holds a name that is no text"))
    }
}

pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a bitmap, lowest bit first, has this one.
pub(super) fn has_bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

pub(super) fn count_bits(bitmap: &[u8], width: usize) -> usize {
    (0..width).filter(|index| has_bit(bitmap, *index)).count()
}
