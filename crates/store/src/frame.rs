//! The frame around every record on disk: length, checksum, sequence, payload.
//!
//! The checksum covers sequence and payload; a wrong length makes it wrong. A payload has at least one byte, so that a
//! hole of zeros is never a frame. Knows nothing of what payloads mean, except the durability mark: the first frame of
//! each block says which sequence was durable when the block was begun. It proves, when a frame before it is broken,
//! that this was not a write torn by a crash.

use std::ops::Range;

use bytes::Bytes;
use godwit_model::{Error, Result, codes};

use crate::encode::put_varint;

pub(crate) const FRAME_HEADER: usize = 16;

/// One record on disk: the largest value a source can send (1 GiB), and its row.
const FRAME_LIMIT: usize = (1 << 30) + (256 << 20);

const MARK: u8 = 0xF0;

/// Appends a frame whose payload `fill` writes; leaves `out` as it was on error.
pub(crate) fn put_frame(out: &mut Vec<u8>, sequence: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    fill(out);
    let length = out.len() - start - FRAME_HEADER;
    if length > FRAME_LIMIT {
        out.truncate(start);
        return Err(Error::new(&codes::VALUE_TOO_LARGE, format!("a record of {length} bytes exceeds what the change log takes"))
            .remedy("leave the column out that holds such values"));
    }
    let frame = &mut out[start..];
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32fast::hash(&frame[8..]);
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// Appends the mark that `durable` and all before it survive; `next` is the sequence of the record that follows.
pub(crate) fn put_mark(out: &mut Vec<u8>, next: u64, durable: u64) {
    let mark = |out: &mut Vec<u8>| {
        out.push(MARK);
        put_varint(durable, out);
    };
    put_frame(out, next, mark).expect("a mark is small");
}

pub(crate) fn is_mark(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    Frame {
        sequence: u64,
        payload: Range<usize>,
    },
    /// So many bytes are needed from the frame's start to go on.
    Short(usize),
    Bad,
}

/// Reads the frame that begins at `at`.
pub(crate) fn parse(bytes: &[u8], at: usize) -> Parsed {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(header) = rest.first_chunk::<FRAME_HEADER>() else { return Parsed::Short(FRAME_HEADER) };
    let length = number32(header, 0) as usize;
    if length == 0 || length > FRAME_LIMIT {
        return Parsed::Bad;
    }
    let end = FRAME_HEADER + length;
    if rest.len() < end {
        return Parsed::Short(end);
    }
    if crc32fast::hash(&rest[8..end]) != number32(header, 4) {
        return Parsed::Bad;
    }
    Parsed::Frame { sequence: number64(header, 8), payload: at + FRAME_HEADER..at + end }
}

/// Whether behind a broken frame, whose sequence would have been `sequence`, something proves that it once was durable.
pub(crate) fn proves_durable(rest: &[u8], sequence: u64) -> bool {
    let highest = sequence.saturating_add(rest.len() as u64);
    (0..rest.len().saturating_sub(FRAME_HEADER)).any(|at| {
        // the cheap look first: nearly all places fail it
        let claimed = number64(&rest[at..], 8);
        claimed > sequence && claimed <= highest && claims(rest, at, sequence)
    })
}

fn claims(rest: &[u8], at: usize, sequence: u64) -> bool {
    match parse(rest, at) {
        Parsed::Frame { payload, .. } => marked(&rest[payload]).is_some_and(|durable| durable >= sequence),
        _ => false,
    }
}

fn marked(payload: &[u8]) -> Option<u64> {
    let (tag, digits) = payload.split_first()?;
    (*tag == MARK).then(|| digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f)))
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Frames that lie one after another in one buffer, which is part of a file.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) bytes: Bytes,
    /// Where the next frame begins in `bytes`.
    pub(crate) at: usize,
    /// Where `bytes` begins in its file.
    pub(crate) base: u64,
}

pub(crate) enum Step {
    Frame { sequence: u64, payload: Bytes },
    Short(usize),
    Bad,
}

impl Frames {
    /// The place of the next frame in the file.
    pub(crate) fn place(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(crate) fn next(&mut self) -> Step {
        match parse(&self.bytes, self.at) {
            Parsed::Frame { sequence, payload } => {
                self.at = payload.end;
                Step::Frame { sequence, payload: self.bytes.slice(payload) }
            }
            Parsed::Short(need) => Step::Short(need),
            Parsed::Bad => Step::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(parse(&[0; 64], 0), Parsed::Bad);
    }

    #[test]
    fn a_mark_behind_a_broken_frame_proves_damage_only_if_it_covers_it() {
        let mut bytes = vec![7; 33];
        put_mark(&mut bytes, 12, 9);
        assert!(!proves_durable(&bytes, 10));
        assert!(proves_durable(&bytes, 9));
        let mut bytes = vec![7; 33];
        put_mark(&mut bytes, 12_000_000, 11_999_999);
        assert!(!proves_durable(&bytes, 10), "a sequence that cannot stand there is not looked at");
    }
}
