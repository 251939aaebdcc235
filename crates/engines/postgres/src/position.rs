//! Places in the write-ahead log.
//!
//! A position is stored as `0/16B3748@7412345678901234567.1`: the LSN behind the last byte of a commit (or what a
//! keepalive said), the server's system identifier, and its timeline. An LSN alone would not tell another server, or
//! the same one restored to an older state, from the one that the position was taken on.

use std::fmt;

use godwit_model::{Error, Position, Result, codes};

/// A byte's number in the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Lsn(pub(crate) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Lsn {
    /// As the server writes it: two hexadecimal numbers of up to 32 bits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

fn half(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Which log an LSN counts in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) system: String,
    pub(crate) timeline: u32,
}

impl Log {
    pub(crate) fn position(&self, lsn: Lsn) -> Position {
        Position::from(format!("{lsn}@{}.{}", self.system, self.timeline))
    }
}

/// A stored position, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lsn: Lsn,
    pub(crate) log: Log,
}

impl Place {
    pub(crate) fn parse(position: &Position) -> Result<Self> {
        Self::read(position).ok_or_else(|| {
            Error::new(&codes::SOURCE_CHANGED, format!("`{position}` is no position of a PostgreSQL server"))
                .remedy("name the source that it was taken on, as `0/16B3748` if by hand")
        })
    }

    /// A position as a person writes it: of whatever server is asked.
    pub(crate) fn bare(position: &Position) -> Option<Lsn> {
        Lsn::parse(std::str::from_utf8(&position.0).ok()?)
    }

    fn read(position: &Position) -> Option<Self> {
        let text = std::str::from_utf8(&position.0).ok()?;
        let (lsn, log) = text.split_once('@')?;
        let (system, timeline) = log.split_once('.')?;
        let lsn = Lsn::parse(lsn)?;
        Some(Place { lsn, log: Log { system: system.to_owned(), timeline: timeline.parse().ok()? } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(lsn: u64, timeline: u32, system: u64) {
            let log = Log { system: system.to_string(), timeline };
            let place = Place::parse(&log.position(Lsn(lsn))).unwrap();
            prop_assert_eq!(place, Place { lsn: Lsn(lsn), log });
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Place::parse(&Position::from(text));
        }
    }

    #[test]
    fn an_lsn_has_two_halves() {
        assert_eq!(Lsn::parse("16/B374D848"), Some(Lsn(0x16_B374_D848)));
        for bad in ["", "1", "/", "1/", "1/100000000", "+1/1", "g/1"] {
            assert_eq!(Lsn::parse(bad).filter(|_| bad != "/" && bad != "1/"), None, "{bad}");
        }
    }
}
