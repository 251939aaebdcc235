//! Places: in a source's log, in our change log, in both at once.

use std::fmt;

use bytes::Bytes;

/// A place in a source's log; opaque to all but its engine, which alone may compare two of them.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Position(pub Bytes);

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => write!(f, "Position({text})"),
            Err(_) => write!(f, "Position({} bytes)", self.0.len()),
        }
    }
}

/// Engines write positions as short readable text (`0/16B3748`), so that errors can show them.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl From<String> for Position {
    fn from(text: String) -> Self {
        Position(Bytes::from(text))
    }
}

/// The number of a record in our change log: 1, 2, 3 ... without gaps, never reused within one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// A change log's identity, random, made with the log. A sequence means nothing in another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub u128);

/// Up to where effects are durable in the target: the same place said twice, once in the source's log and once in ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The position of the last source transaction applied.
    pub position: Position,
    pub log: LogId,
    /// The sequence of that transaction's commit record; reading goes on behind it.
    pub sequence: Sequence,
}

/// The name of a tiny transaction that Godwit writes to a store to find that place again in its log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker(pub String);

/// Microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub i64);
