//! What a `Position` of this engine holds: `0-1-57,1-2-3@5f0c2e9a11d04b7c`.
//!
//! Before the `@` the last transaction of each domain; behind it the store's own mark, which Godwit wrote into
//! `godwit.marker` when it first came to the store. MariaDB has no id of a store: `server_id` is a setting, 1 as a rule, and two
//! servers that never met both have a `0-1-57`. The mark is in the log, so that replicas have it, and a promoted one is
//! known to be the same store. Without it (a source that may not be written to, a position that a person wrote) any
//! server that has the transactions will do. An empty log is `none`.
//!
//! MySQL's sets begin with a uuid and so can be told from these.

use std::fmt;

use godwit_model::{Error, Position, Result, codes};

use crate::gtid::GtidPosition;

const EMPTY: &str = "none";

/// A stored position, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) gtids: GtidPosition,
    pub(crate) store: Option<StoreMark>,
}

/// What a store is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreMark(String);

impl StoreMark {
    pub(crate) fn random() -> Self {
        StoreMark(format!("{:016x}", fastrand::u64(..)))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| StoreMark(text.to_owned()))
    }
}

impl fmt::Display for StoreMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Place {
    pub(crate) fn parse(position: &Position) -> Result<Self> {
        Self::read(position).ok_or_else(|| {
            Error::new(&codes::SOURCE_CHANGED, format!("`{position}` is no position of a MariaDB server"))
                .remedy("name the source that it was taken on, as `0-1-57` if by hand")
        })
    }

    fn read(position: &Position) -> Option<Self> {
        let text = std::str::from_utf8(&position.0).ok()?;
        let (gtids, store) = match text.split_once('@') {
            Some((gtids, store)) => (gtids, Some(StoreMark::parse(store)?)),
            None => (text, None),
        };
        let gtids = if gtids == EMPTY { GtidPosition::default() } else { GtidPosition::parse(gtids).filter(|_| !gtids.is_empty())? };
        Some(Place { gtids, store })
    }

    pub(crate) fn position(&self) -> Position {
        Position::from(self.to_string())
    }

    /// Whether a transaction that ended at `commit` shows here.
    pub(crate) fn shows(&self, commit: &Place) -> bool {
        commit.gtids.ahead_of(&self.gtids).is_none()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gtids == GtidPosition::default() {
            true => f.write_str(EMPTY)?,
            false => write!(f, "{}", self.gtids)?,
        }
        self.store.as_ref().map_or(Ok(()), |store| write!(f, "@{store}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["0-1-57,1-2-3@5f0c2e9a11d04b7c", "0-1-57", "none@5f0c2e9a11d04b7c", "none"] {
            let position = Position::from(text.to_owned());
            assert_eq!(Place::parse(&position).unwrap().position(), position);
        }
        for bad in ["", "@5f0c2e9a11d04b7c", "0-1-57@", "0-1-57@xyz", "0/16B3748", "bin.000001:4"] {
            assert!(Place::parse(&Position::from(bad.to_owned())).unwrap_err().is(&codes::SOURCE_CHANGED), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Place::parse(&Position::from(text));
        }
    }
}
