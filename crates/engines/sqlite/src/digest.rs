//! Digests of a table's rows, computed here: SQLite runs in this process, so no row crosses a wire.
//!
//! Scheme `sqlite-1`: a row is written as a letter for each value's storage class and its bytes, and hashed with XXH64.
//! Int 1 and Float 1.0 differ, as do '' and NULL. Types at the target play no part.

use async_trait::async_trait;
use godwit_model::{BlockDigest, DigestPlan, Examiner, KeyedHash, KeyedHashes, Result, RowBatch};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::connect::Location;
use crate::error::Told;
use crate::pool::Pool;
use crate::schema::Frame;
use crate::session::Session;
use crate::snapshot::key_column;
use crate::tokens::quoted;
use crate::values::{bound, read};
use crate::xxh64::xxh64;

const ROW_SEED: u64 = 1;
const BLOCK_SEED: u64 = 2;

pub(crate) struct SqliteExaminer {
    location: Location,
    reading: Reading,
}

enum Reading {
    /// Each look has a read transaction of its own.
    Each(Arc<Pool>),
    /// A read transaction is open there, and its moment is looked at.
    At(Session),
}

impl SqliteExaminer {
    pub(crate) fn new(location: Location, readers: Arc<Pool>) -> Self {
        SqliteExaminer { location, reading: Reading::Each(readers) }
    }

    pub(crate) fn of(location: Location, reading: Session) -> Self {
        SqliteExaminer { location, reading: Reading::At(reading) }
    }

    async fn read<T: Send + 'static>(&self, job: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let answer = match &self.reading {
            Reading::At(session) => session.run(move |connection| job(connection)).await,
            Reading::Each(readers) => readers.run(move |connection| job(&*connection.transaction().told()?)).await,
        };
        answer.map_err(|error| error.at_least_at(|| self.location.label().to_owned()))
    }
}

#[async_trait]
impl Examiner for SqliteExaminer {
    fn scheme(&self) -> &'static str {
        "sqlite-1"
    }

    async fn digest(&self, plan: &DigestPlan) -> Result<Vec<BlockDigest>> {
        let plan = plan.clone();
        self.read(move |connection| {
            let mut blocks: BTreeMap<u32, BlockDigest> = BTreeMap::new();
            each_row(connection, &plan, |_, block, hash| {
                let digest = blocks.entry(block).or_insert(BlockDigest { block, rows: 0, sum: 0 });
                digest.rows += 1;
                digest.sum = digest.sum.wrapping_add(u128::from(hash));
                Ok(())
            })?;
            Ok(blocks.into_values().collect())
        })
        .await
    }

    async fn hashes(&self, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes> {
        let (plan, blocks) = (plan.clone(), blocks.iter().copied().collect::<HashSet<u32>>());
        self.read(move |connection| {
            let mut found = Vec::new();
            each_row(connection, &plan, |row, block, hash| {
                if blocks.contains(&block) {
                    let key = plan.key.iter().map(|index| row.get_ref(*index).map(read)).collect::<rusqlite::Result<_>>().told()?;
                    found.push(KeyedHash { key, hash });
                }
                Ok(())
            })?;
            Ok(found)
        })
        .await
    }

    async fn hashes_of(&self, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
        let (plan, keys) = (plan.clone(), keys.clone());
        self.read(move |connection| hashes_of(connection, &plan, &keys)).await
    }
}

/// Calls `take` with each row, its block and its hash.
fn each_row(connection: &Connection, plan: &DigestPlan, mut take: impl FnMut(&rusqlite::Row<'_>, u32, u64) -> Result<()>) -> Result<()> {
    let mut statement = connection.prepare(&select(connection, plan)?).told()?;
    let mut rows = statement.query([]).told()?;
    let all: Vec<usize> = (0..plan.columns.len()).collect();
    let by = if plan.key.is_empty() { &all } else { &plan.key };
    let mut buffer = Vec::new();
    while let Some(row) = rows.next().told()? {
        write(&mut buffer, row, &all)?;
        let hash = xxh64(&buffer, ROW_SEED);
        write(&mut buffer, row, by)?;
        let block = xxh64(&buffer, BLOCK_SEED) % u64::from(plan.blocks.max(1));
        take(row, u32::try_from(block).unwrap_or(0), hash)?;
    }
    Ok(())
}

fn select(connection: &Connection, plan: &DigestPlan) -> Result<String> {
    // Says TABLE_MISSING in our own words.
    let table = Frame::of(connection, &plan.table.name)?;
    let columns = plan.columns.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ");
    Ok(format!("SELECT {columns} FROM {}", table.quoted()))
}

fn hashes_of(connection: &Connection, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
    let table = Frame::of(connection, &plan.table.name)?;
    let condition = |(at, index): (usize, &usize)| format!("{} = ?{}", key_column(&table, &plan.columns[*index].0), at + 1);
    let conditions = plan.key.iter().enumerate().map(condition).collect::<Vec<_>>().join(" AND ");
    let mut statement = connection.prepare(&format!("{} WHERE {conditions}", select(connection, plan)?)).told()?;
    let all: Vec<usize> = (0..plan.columns.len()).collect();
    let mut buffer = Vec::new();
    let mut found = Vec::with_capacity(keys.len());
    for key in keys.rows() {
        let mut rows = statement.query(rusqlite::params_from_iter(bound(key))).told()?;
        found.push(match rows.next().told()? {
            Some(row) => {
                write(&mut buffer, row, &all)?;
                Some(xxh64(&buffer, ROW_SEED))
            }
            None => None,
        });
    }
    Ok(found)
}

/// The columns' values in a form that no two different rows share.
fn write(buffer: &mut Vec<u8>, row: &rusqlite::Row<'_>, columns: &[usize]) -> Result<()> {
    buffer.clear();
    for column in columns {
        match row.get_ref(*column).told()? {
            ValueRef::Null => buffer.push(b'n'),
            ValueRef::Integer(number) => tagged(buffer, b'i', &number.to_le_bytes()),
            ValueRef::Real(number) => tagged(buffer, b'f', &number.to_bits().to_le_bytes()),
            ValueRef::Text(text) => tagged_long(buffer, b't', text),
            ValueRef::Blob(bytes) => tagged_long(buffer, b'b', bytes),
        }
    }
    Ok(())
}

fn tagged(buffer: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    buffer.push(tag);
    buffer.extend_from_slice(bytes);
}

fn tagged_long(buffer: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    tagged(buffer, tag, &(bytes.len() as u64).to_le_bytes());
    buffer.extend_from_slice(bytes);
}
