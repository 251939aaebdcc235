//! The ledger: small named entries of a task, written with what they speak of.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_model::{Entry, Error, Result, TaskName, codes};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};

use crate::own_tables::{cell, is_absent};
use crate::{error, hex, quote};

/// The pipeline's entries; those of this engine's own (`OWN`) are not among them.
pub(crate) async fn read(conn: &mut Conn, task: &TaskName) -> Result<Vec<Entry>> {
    let entries = all(conn, task).await?;
    Ok(entries.into_iter().filter(|entry| !entry.key.starts_with(OWN)).collect())
}

/// What the keys of this engine's own entries begin with.
pub(crate) const OWN: &str = "mysql/";

pub(crate) async fn all(conn: &mut Conn, task: &TaskName) -> Result<Vec<Entry>> {
    let sql = format!("SELECT `key`, value FROM godwit.ledger WHERE task = {} ORDER BY `key`", quote::literal(task.as_str()));
    match conn.query::<Row, _>(sql).await {
        Ok(rows) => rows.iter().map(entry_of).collect(),
        Err(problem) if is_absent(&problem) => Ok(Vec::new()),
        Err(problem) => Err(error::from_server(problem)),
    }
}

fn entry_of(row: &Row) -> Result<Entry> {
    let damaged = || Error::new(&codes::TARGET_CHANGED, "an entry is not as Godwit writes it").at("table godwit.ledger");
    let key: Vec<u8> = cell(row, 0)?.ok_or_else(damaged)?;
    let value: Vec<u8> = cell(row, 1)?.ok_or_else(damaged)?;
    Ok(Entry { key: String::from_utf8(key).map_err(|_| damaged())?, value: Bytes::from(value) })
}

/// One entry of this engine's own.
pub(crate) async fn own(conn: &mut Conn, task: &TaskName, key: &str) -> Result<Option<Bytes>> {
    let sql = format!("SELECT value FROM godwit.ledger WHERE {}", is_at(&quote::literal(task.as_str()), key));
    let value: Option<Vec<u8>> = conn.query_first(sql).await.map_err(error::from_server)?;
    Ok(value.map(Bytes::from))
}

/// A key in hexadecimal: a person's statements may have given the session another character set or `sql_mode`.
fn is_at(task: &str, key: &str) -> String {
    format!("task = {task} AND `key` = {}", hex::literal(key.as_bytes()))
}

/// How long statements are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// About as long as several entries in one.
    pub(crate) wanted: usize,
    /// Never longer.
    pub(crate) most: usize,
}

/// What a statement holds besides the value, the longest key in hexadecimal among it.
const FRAME: usize = 8 << 10;

/// Statements that write these entries. Of two entries with one key the last counts.
pub(crate) fn statements(task: &TaskName, entries: &[Entry], lengths: Lengths) -> Vec<String> {
    let last: BTreeMap<&str, &[u8]> = entries.iter().map(|entry| (entry.key.as_str(), &entry.value[..])).collect();
    let task = quote::literal(task.as_str());
    let mut writing = Writing { statements: Vec::new(), is_open: false, lengths };
    for (key, value) in last.iter().filter(|(_, value)| !value.is_empty()) {
        writing.put(&task, key, value);
    }
    writing.close();
    let removed: Vec<&str> = last.into_iter().filter(|(_, value)| value.is_empty()).map(|(key, _)| key).collect();
    for some in removed.chunks(500) {
        let keys = quote::list(some.iter().map(|key| hex::literal(key.as_bytes())));
        writing.statements.push(format!("DELETE FROM godwit.ledger WHERE task = {task} AND `key` IN ({keys})"));
    }
    writing.statements
}

struct Writing {
    statements: Vec<String>,
    /// The last statement takes more rows.
    is_open: bool,
    lengths: Lengths,
}

impl Writing {
    /// Twice as long in hexadecimal, a value may be longer than the server takes at once: it comes in pieces, few of them,
    /// as each is written with all before it.
    fn put(&mut self, task: &str, key: &str, value: &[u8]) {
        let mut pieces = value.chunks((self.lengths.most.saturating_sub(FRAME) / 2).max(1));
        let first = pieces.next().unwrap_or_default();
        self.put_row(&format!("({task}, {}, {})", hex::literal(key.as_bytes()), hex::literal(first)));
        for piece in pieces {
            self.close();
            let more = hex::literal(piece);
            self.statements.push(format!("UPDATE godwit.ledger SET value = CONCAT(value, {more}) WHERE {}", is_at(task, key)));
        }
    }

    fn put_row(&mut self, row: &str) {
        let (is_open, size) = (self.is_open, self.lengths.wanted);
        match self.statements.last_mut().filter(|text| is_open && text.len() + row.len() < size) {
            Some(text) => {
                text.push_str(", ");
                text.push_str(row);
            }
            None => {
                self.close();
                self.statements.push(format!("INSERT INTO godwit.ledger (task, `key`, value) VALUES {row}"));
                self.is_open = true;
            }
        }
    }

    fn close(&mut self) {
        let is_open = std::mem::take(&mut self.is_open);
        if let Some(text) = self.statements.last_mut().filter(|_| is_open) {
            text.push_str(" ON DUPLICATE KEY UPDATE value = VALUES(value)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &'static [u8]) -> Entry {
        Entry { key: key.to_owned(), value: Bytes::from_static(value) }
    }

    fn of(wanted: usize) -> Lengths {
        Lengths { wanted, most: 1 << 20 }
    }

    #[test]
    fn entries_become_few_statements_of_a_bounded_size() {
        let task = TaskName::parse("shop").unwrap();
        let entries = [entry("a", b"1"), entry("b", b""), entry("c", b"2"), entry("a", b"3")];
        let whole = statements(&task, &entries, of(1000));
        assert_eq!(
            whole,
            [
                "INSERT INTO godwit.ledger (task, `key`, value) VALUES ('shop', x'61', x'33'), ('shop', x'63', x'32') ON DUPLICATE KEY UPDATE value = VALUES(value)",
                "DELETE FROM godwit.ledger WHERE task = 'shop' AND `key` IN (x'62')"
            ]
        );
        let cut = statements(&task, &entries, of(10));
        assert_eq!(cut.len(), 3);
        assert!(cut[..2].iter().all(|text| text.ends_with("VALUES(value)")));
        assert!(statements(&task, &[], of(10)).is_empty());
    }

    #[test]
    fn a_large_value_comes_in_pieces() {
        let task = TaskName::parse("shop").unwrap();
        let pieces = statements(&task, &[entry("a", b"12345"), entry("b", b"6")], Lengths { wanted: 4, most: FRAME + 4 });
        assert_eq!(
            pieces,
            [
                "INSERT INTO godwit.ledger (task, `key`, value) VALUES ('shop', x'61', x'3132') ON DUPLICATE KEY UPDATE value = VALUES(value)",
                "UPDATE godwit.ledger SET value = CONCAT(value, x'3334') WHERE task = 'shop' AND `key` = x'61'",
                "UPDATE godwit.ledger SET value = CONCAT(value, x'35') WHERE task = 'shop' AND `key` = x'61'",
                "INSERT INTO godwit.ledger (task, `key`, value) VALUES ('shop', x'62', x'36') ON DUPLICATE KEY UPDATE value = VALUES(value)",
            ]
        );
    }
}
