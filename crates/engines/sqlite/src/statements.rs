//! The SQL of one write, for one row.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{ChunkMode, Error, Result, TableMapping, TableName, WriteKind};
use rusqlite::Connection;

use crate::error::Told;
use crate::schema::{Frame, RowName};
use crate::snapshot::key_column;
use crate::tokens::quoted;

/// A target table, with its frame as it was when writing began: it gives the key's collations and the rowid's name.
pub(crate) struct Writer {
    pub(crate) mapping: TableMapping,
    shape: Frame,
}

impl Writer {
    pub(crate) fn new(connection: &Connection, mapping: &TableMapping) -> Result<Self> {
        Ok(Writer { mapping: mapping.clone(), shape: Frame::of(connection, &mapping.target.name)? })
    }

    /// Parameters in the order of the write's rows.
    pub(crate) fn sql(&self, kind: WriteKind, columns: &[usize]) -> Result<String> {
        let table = self.shape.quoted();
        Ok(match kind {
            WriteKind::Insert => self.insert(columns),
            WriteKind::Upsert => self.upsert(columns),
            WriteKind::Update => {
                let key = self.mapping.key.len();
                format!("UPDATE {table} SET {} WHERE {}", self.assignments(columns, key), self.by_key())
            }
            WriteKind::Delete => format!("DELETE FROM {table} WHERE {}", self.by_key()),
            WriteKind::DeleteWhole => format!("DELETE FROM {table} WHERE {}", self.one_whole(columns)?),
            WriteKind::UpdateWhole => {
                let set = self.assignments(columns, columns.len());
                format!("UPDATE {table} SET {set} WHERE {}", self.one_whole(columns)?)
            }
            WriteKind::Truncate => format!("DELETE FROM {table}"),
        })
    }

    /// A chunk's rows hold all of the mapping's columns.
    pub(crate) fn chunk_sql(&self, mode: ChunkMode) -> String {
        let columns: Vec<usize> = (0..self.mapping.columns.len()).collect();
        match mode {
            ChunkMode::Insert => self.insert(&columns),
            ChunkMode::Upsert if self.mapping.has_key() => self.upsert(&columns),
            ChunkMode::Upsert => self.insert(&columns),
        }
    }

    fn column(&self, index: usize) -> String {
        quoted(&self.mapping.columns[index].target)
    }

    fn insert(&self, columns: &[usize]) -> String {
        let names = columns.iter().map(|index| self.column(*index)).collect::<Vec<_>>().join(", ");
        let places = (1..=columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        format!("INSERT INTO {} ({names}) VALUES ({places})", self.shape.quoted())
    }

    /// Key columns are written too where equal keys may differ in their bytes.
    fn upsert(&self, columns: &[usize]) -> String {
        let is_key = |index: &usize| self.mapping.key.contains(index);
        let plain: Vec<usize> = columns.iter().copied().filter(|index| !is_key(index)).collect();
        let set = if plain.is_empty() || !self.mapping.key_is_exact { columns } else { &plain };
        let set = set.iter().map(|index| format!("{0} = excluded.{0}", self.column(*index))).collect::<Vec<_>>().join(", ");
        let key = self.mapping.key.iter().map(|index| self.column(*index)).collect::<Vec<_>>().join(", ");
        format!("{} ON CONFLICT ({key}) DO UPDATE SET {set}", self.insert(columns))
    }

    /// `behind` parameters come before those of the columns. Without columns the row is touched and stays as it is.
    fn assignments(&self, columns: &[usize], behind: usize) -> String {
        if columns.is_empty() {
            return self.mapping.key.iter().map(|index| format!("{0} = {0}", self.column(*index))).collect::<Vec<_>>().join(", ");
        }
        let assign = |(at, index): (usize, &usize)| format!("{} = ?{}", self.column(*index), behind + at + 1);
        columns.iter().enumerate().map(assign).collect::<Vec<_>>().join(", ")
    }

    fn key_columns(&self) -> Vec<String> {
        self.mapping.key.iter().map(|index| key_column(&self.shape, &self.mapping.columns[*index].target)).collect()
    }

    fn by_key(&self) -> String {
        self.key_columns().iter().enumerate().map(|(at, column)| format!("{column} = ?{}", at + 1)).collect::<Vec<_>>().join(" AND ")
    }

    /// Exactly one of the rows that equal the old one in bytes and storage class.
    fn one_whole(&self, columns: &[usize]) -> Result<String> {
        let RowName::Rowid(rowid) = &self.shape.row else {
            return Err(Error::internal("a table without a key has no rowid to write by").at(format!("table {}", self.mapping.target)));
        };
        let equal = |(at, index): (usize, &usize)| {
            let column = self.column(*index);
            format!("{column} COLLATE BINARY IS ?{0} AND typeof({column}) = typeof(?{0})", at + 1)
        };
        let equal = columns.iter().enumerate().map(equal).collect::<Vec<_>>().join(" AND ");
        Ok(format!("{rowid} = (SELECT {rowid} FROM {} WHERE {equal} LIMIT 1)", self.shape.quoted()))
    }
}

/// By the target's table.
pub(crate) type Writers = HashMap<TableName, Writer>;

/// Checks that a mapping's target table is there before anything is written.
pub(crate) fn writers(connection: &Connection, mappings: &[Arc<TableMapping>]) -> Result<Writers> {
    mappings.iter().map(|mapping| Ok((mapping.target.clone(), Writer::new(connection, mapping)?))).collect()
}

/// Runs one statement for one row; the number of rows it touched.
pub(crate) fn run(connection: &Connection, sql: &str, row: &[godwit_model::Value]) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(crate::values::bound(row)))
}

/// For messages to a person's terminal: the key of a row that was refused.
pub(crate) fn key_text(mapping: &TableMapping, kind: WriteKind, columns: &[usize], row: &[godwit_model::Value]) -> String {
    let by_key = matches!(kind, WriteKind::Update | WriteKind::Delete);
    let place = |key: &usize| {
        if by_key { mapping.key.iter().position(|index| index == key) } else { columns.iter().position(|index| index == key) }
    };
    let value = |key: &usize| Some(format!("{} = {:?}", mapping.columns[*key].target, row.get(place(key)?)?));
    mapping.key.iter().filter_map(value).collect::<Vec<_>>().join(", ")
}

/// The transaction is gone if SQLite rolled it back by itself (a full disk): then nothing may go on from a savepoint.
pub(crate) fn still_open(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        return Err(Error::new(&godwit_model::codes::RETRYABLE, "SQLite rolled the transaction back").effect("nothing was written"));
    }
    Ok(())
}

pub(crate) fn batch(connection: &Connection, sql: &str) -> Result<()> {
    connection.execute_batch(sql).told()
}
