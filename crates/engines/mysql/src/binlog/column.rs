//! What the log says of a column: its type's number, and its size. How many bytes a value has follows from them.

use godwit_model::Result;

use super::undecodable;

pub(crate) mod kind {
    //! Column types' numbers in the log.
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    /// MariaDB's `COMPRESSED` columns.
    pub(crate) const BLOB_COMPRESSED: u8 = 140;
    pub(crate) const VARCHAR_COMPRESSED: u8 = 141;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
}

/// What a table map says of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoggedType {
    pub(crate) kind: u8,
    /// The metadata bytes in their order, the first one lowest, 0 where the type has none: of a DECIMAL the precision, of a
    /// STRING the type that it really is, of a BIT the bits beside whole bytes; of a VARCHAR its length.
    pub(crate) meta: u16,
}

impl LoggedType {
    /// `metadata`: this column's bytes of the table map's metadata: none, one or two.
    pub(crate) fn new(kind: u8, metadata: &[u8]) -> Self {
        let byte = |index: usize| metadata.get(index).copied().unwrap_or(0);
        LoggedType { kind, meta: u16::from_le_bytes([byte(0), byte(1)]) }
    }

    /// The type and size that hide in the metadata of `STRING`, which char, binary, enum and set share: the first byte is
    /// the type, with the two bits of it that are always set turned over where the length needs two bits more.
    pub(crate) fn of_string(self) -> (u8, u16) {
        let [first, second] = self.meta.to_le_bytes();
        match (self.kind, first) {
            // old servers wrote the length alone
            (kind::STRING, 0) => (kind::STRING, u16::from(second)),
            (kind::STRING, _) => (first | 0x30, u16::from(second) | (u16::from((first & 0x30) ^ 0x30) << 4)),
            // some readers put the true type in the place of `STRING`
            _ => (self.kind, u16::from(second)),
        }
    }
}

/// How many bytes of metadata a column of this type has.
pub(super) fn metadata_length(kind: u8) -> Result<usize> {
    Ok(match kind {
        kind::FLOAT
        | kind::DOUBLE
        | kind::TIMESTAMP2
        | kind::DATETIME2
        | kind::TIME2
        | kind::BLOB_COMPRESSED
        | kind::VECTOR
        | kind::JSON
        | kind::TINY_BLOB..=kind::BLOB
        | kind::GEOMETRY => 1,
        kind::VARCHAR
        | kind::VARCHAR_COMPRESSED
        | kind::VAR_STRING
        | kind::BIT
        | kind::NEWDECIMAL
        | kind::ENUM
        | kind::SET
        | kind::STRING => 2,
        kind::TINY..=kind::LONG | kind::TIMESTAMP..=kind::NEWDATE => 0,
        other => return Err(undecodable(format!("the source's log holds a column of type {other}, which is not known to this version"))),
    })
}

pub(crate) fn is_number(logged: LoggedType) -> bool {
    matches!(
        logged.kind,
        kind::TINY | kind::SHORT | kind::INT24 | kind::LONG | kind::LONGLONG | kind::FLOAT | kind::DOUBLE | kind::NEWDECIMAL | kind::YEAR
    )
}

/// Bytes of the length that stands before a text of up to so many bytes.
pub(crate) fn length_width(longest: u16) -> usize {
    if longest < 256 { 1 } else { 2 }
}

/// Digits of a decimal that lie together.
pub(crate) const DECIMAL_DIGITS: usize = 9;

/// Bytes that so many digits of a decimal take: nine take four, and what is left over by its number.
pub(crate) fn decimal_length(digits: usize) -> usize {
    const LEFT_OVER: [usize; DECIMAL_DIGITS] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    digits / DECIMAL_DIGITS * 4 + LEFT_OVER[digits % DECIMAL_DIGITS]
}
