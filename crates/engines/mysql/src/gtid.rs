//! MariaDB's global transaction ids: `domain-server-sequence`.
//!
//! A position is the last id of each domain, as `@@gtid_binlog_pos` and `BINLOG_GTID_POS()` write it. Within one domain
//! sequences ascend in the order of the log (`gtid_strict_mode` sees to it; a stream refuses a log where they do not), so that
//! the domain and the sequence say which of two comes first. MySQL's sets of intervals are another type, beside this one.

use std::collections::BTreeMap;
use std::fmt;

/// One transaction's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gtid {
    pub(crate) domain: u32,
    /// The server that wrote it first.
    pub(crate) server: u32,
    pub(crate) sequence: u64,
}

impl Gtid {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let gtid = Gtid { domain: number(parts.next()?)?, server: number(parts.next()?)?, sequence: number(parts.next()?)? };
        parts.next().is_none().then_some(gtid)
    }
}

/// Digits alone: `parse` would take a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// The last id of each domain; empty before the first transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GtidPosition(BTreeMap<u32, Gtid>);

impl GtidPosition {
    /// `0-1-57,1-2-3`, in any order; the empty text is the beginning of the log. None: it is no such list, or names a domain
    /// twice.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut position = GtidPosition::default();
        if text.trim().is_empty() {
            return Some(position);
        }
        for part in text.split(',') {
            let gtid = Gtid::parse(part)?;
            if position.0.insert(gtid.domain, gtid).is_some() {
                return None;
            }
        }
        Some(position)
    }

    /// The position behind one more transaction.
    pub(crate) fn add(&mut self, gtid: Gtid) {
        self.0.insert(gtid.domain, gtid);
    }

    /// The position that was behind `before` in its domain. Of sequence 0 no transaction is: then nothing of the domain is.
    pub(crate) fn back_to(&self, before: Gtid) -> Self {
        let mut earlier = self.clone();
        match before.sequence {
            0 => drop(earlier.0.remove(&before.domain)),
            _ => earlier.add(before),
        }
        earlier
    }

    /// Whether that transaction lies at or before this position.
    pub(crate) fn covers(&self, gtid: &Gtid) -> bool {
        self.last(gtid.domain).is_some_and(|last| last.sequence >= gtid.sequence)
    }

    pub(crate) fn last(&self, domain: u32) -> Option<&Gtid> {
        self.0.get(&domain)
    }

    /// The first transaction of this position that lies behind `other`.
    pub(crate) fn ahead_of(&self, other: &GtidPosition) -> Option<&Gtid> {
        self.0.values().find(|gtid| !other.covers(gtid))
    }
}

impl fmt::Display for GtidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.0.values().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{gtid}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(text: &str) -> GtidPosition {
        GtidPosition::parse(text).unwrap()
    }

    #[test]
    fn positions_are_read_as_servers_write_them() {
        assert_eq!(position("1-2-3,0-1-57").to_string(), "0-1-57,1-2-3");
        assert_eq!(position("").to_string(), "");
        for bad in ["0-1", "0-1-2-3", "a-1-2", "0-1-2,", "0-1-2,0-2-3", "0-1--2", "+0-1-2", "4294967296-1-2"] {
            assert_eq!(GtidPosition::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_domain_counts_for_itself() {
        let mut at = position("0-1-5,1-2-3");
        assert!(at.covers(&Gtid { domain: 0, server: 9, sequence: 5 }) && !at.covers(&Gtid { domain: 0, server: 1, sequence: 6 }));
        assert!(!at.covers(&Gtid { domain: 7, server: 1, sequence: 1 }));
        at.add(Gtid { domain: 0, server: 7, sequence: 6 });
        assert_eq!(at.to_string(), "0-7-6,1-2-3");
        assert_eq!(at.ahead_of(&position("0-1-6,1-2-2")).unwrap().to_string(), "1-2-3");
        assert_eq!(at.ahead_of(&position("0-1-6,1-2-3")), None);
        assert_eq!(at.back_to(Gtid { domain: 0, server: 1, sequence: 5 }).to_string(), "0-1-5,1-2-3");
        assert_eq!(at.back_to(Gtid { domain: 1, server: 0, sequence: 0 }).to_string(), "0-7-6");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in proptest::collection::vec(any::<(u32, u32, u64)>(), 0..4)) {
            let mut at = GtidPosition::default();
            parts.into_iter().for_each(|(domain, server, sequence)| at.add(Gtid { domain, server, sequence }));
            prop_assert_eq!(GtidPosition::parse(&at.to_string()), Some(at));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = GtidPosition::parse(&text);
        }
    }
}
