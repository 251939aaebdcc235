//! What a `Position` of this engine holds: `0-1-57,1-2-3@5f0c2e9a11d04b7c#0-1-56:1763790000:8a3f12cd:51c20a77`.
//!
//! Before the `@` the last transaction of each domain; behind it the store's own mark, which Godwit wrote into
//! `godwit.marker` when it first came to the store. MariaDB has no id of a store: `server_id` is a setting, 1 as a rule, and two
//! servers that never met both have a `0-1-57`. The mark is in the log, so that replicas have it, and a promoted one is
//! known to be the same store. Without it (a source that may not be written to, a position that a person wrote) any
//! server that has the transactions will do. An empty log is `none`.
//!
//! Numbers and mark do not tell whether it is still the same log: after RESET MASTER, after a backup was restored and after a
//! crash that cost the log its end a server gives its numbers again, to other transactions. So behind the `#` stands what the
//! last transaction is known again by. The first position of a task and one that a person wrote have nothing there.
//!
//! MySQL's sets begin with a uuid and so can be told from these.

use std::fmt;

use godwit_model::{Error, Position, Result, codes};

use crate::gtid::{Gtid, GtidPosition};

const EMPTY: &str = "none";

/// A stored position, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) gtids: GtidPosition,
    pub(crate) store: Option<StoreMark>,
    pub(crate) last: Option<Last>,
}

/// The last transaction of a position, in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// The one before it in its domain; of sequence 0: it was the domain's first.
    pub(crate) before: Gtid,
    pub(crate) beginning: Beginning,
    /// The server whose log it was read in.
    pub(crate) seen: ServerSum,
}

/// A transaction's first events, up to the first that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// Of that event, in seconds since 1970. Replicas log the same time.
    pub(crate) time: u32,
    /// Of all their bytes. In a replica's log they are others.
    pub(crate) sum: u32,
}

/// Of what a server says of itself (host, port, data folder).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerSum(pub(crate) u32);

impl Last {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let before = Gtid::parse(parts.next()?)?;
        let time = parts.next()?.parse().ok()?;
        let (sum, seen) = (hexadecimal(parts.next()?)?, ServerSum(hexadecimal(parts.next()?)?));
        parts.next().is_none().then_some(Last { before, beginning: Beginning { time, sum }, seen })
    }

    /// Whether what the log of `server` has under the same number may be this transaction.
    pub(crate) fn is(&self, found: Beginning, server: ServerSum) -> bool {
        if server == self.seen { found == self.beginning } else { found.time == self.beginning.time }
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:08x}:{:08x}", self.before, self.beginning.time, self.beginning.sum, self.seen.0)
    }
}

fn hexadecimal(text: &str) -> Option<u32> {
    let fits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
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
        let (text, last) = match text.split_once('#') {
            Some((text, last)) => (text, Some(Last::parse(last)?)),
            None => (text, None),
        };
        let (gtids, store) = match text.split_once('@') {
            Some((gtids, store)) => (gtids, Some(StoreMark::parse(store)?)),
            None => (text, None),
        };
        let gtids = if gtids == EMPTY { GtidPosition::default() } else { GtidPosition::parse(gtids).filter(|_| !gtids.is_empty())? };
        let is_of_it = |last: &Last| gtids.last(last.before.domain).is_some();
        last.as_ref().is_none_or(is_of_it).then_some(Place { gtids, store, last })
    }

    pub(crate) fn position(&self) -> Position {
        Position::from(self.to_string())
    }

    /// The place behind one more transaction.
    pub(crate) fn pass(&mut self, gtid: Gtid, beginning: Beginning, seen: ServerSum) {
        let none = Gtid { domain: gtid.domain, server: 0, sequence: 0 };
        let before = self.gtids.last(gtid.domain).copied().unwrap_or(none);
        self.last = Some(Last { before, beginning, seen });
        self.gtids.add(gtid);
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
        self.store.as_ref().map_or(Ok(()), |store| write!(f, "@{store}"))?;
        self.last.as_ref().map_or(Ok(()), |last| write!(f, "#{last}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "0-1-57,1-2-3@5f0c2e9a11d04b7c",
            "0-1-57",
            "none@5f0c2e9a11d04b7c",
            "none",
            "0-1-57,1-2-3@5f0c2e9a11d04b7c#1-2-2:1763790000:0a3f12cd:51c20a77",
            "7-1-1#7-0-0:0:00000000:ffffffff",
        ] {
            let position = Position::from(text.to_owned());
            assert_eq!(Place::parse(&position).unwrap().position(), position);
        }
        for bad in [
            "",
            "@5f0c2e9a11d04b7c",
            "0-1-57@",
            "0-1-57@xyz",
            "0/16B3748",
            "bin.000001:4",
            "0-1-57#",
            "0-1-57#0-1-56:1:2:3",
            "0-1-57#1-1-56:1:0a3f12cd:51c20a77",
            "0-1-57#0-1-56:1:0a3f12cd:51c20a77:1",
        ] {
            assert!(Place::parse(&Position::from(bad.to_owned())).unwrap_err().is(&codes::SOURCE_CHANGED), "{bad}");
        }
    }

    #[test]
    fn a_transaction_is_known_again() {
        let mut place = Place::parse(&Position::from("0-1-57".to_owned())).unwrap();
        let (beginning, here) = (Beginning { time: 7, sum: 8 }, ServerSum(9));
        place.pass(Gtid { domain: 0, server: 2, sequence: 58 }, beginning, here);
        assert_eq!(place.to_string(), "0-2-58#0-1-57:7:00000008:00000009");
        let last = place.last.unwrap();
        let other = Beginning { sum: 1, ..beginning };
        assert!(last.is(beginning, here) && !last.is(other, here));
        assert!(last.is(other, ServerSum(1)), "another server's log has other bytes");
        assert!(!last.is(Beginning { time: 8, ..beginning }, ServerSum(1)));
        place.pass(Gtid { domain: 1, server: 2, sequence: 1 }, beginning, here);
        assert_eq!(place.to_string(), "0-2-58,1-2-1#1-0-0:7:00000008:00000009");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Place::parse(&Position::from(text));
        }
    }
}
