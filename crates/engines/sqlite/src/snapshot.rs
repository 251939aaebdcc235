//! A view of the file at one moment, and its tables cut into chunks.
//!
//! A read transaction of SQLite belongs to one connection: chunks are read from it one after the other, a block at a
//! time, each block going on behind the last key of the one before. What a long view keeps is the file's WAL, no lock.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use godwit_model::{Chunk, ChunkEnd, LoadBlock, ReadSpec, Result, Row, RowBatch, RowReader, Snapshot, Table, Value};
use rusqlite::Connection;
use tokio::sync::OnceCell;

use crate::connect::{Location, Purpose};
use crate::error::Told;
use crate::keyrange::KeyRange;
use crate::schema::{Estimates, Frame, KeyPart, RowName};
use crate::session::Session;
use crate::tokens::quoted;
use crate::values::{self, bound};

/// Rows whose size is looked at to guess how many make a chunk.
const SAMPLE: usize = 200;
/// No chunk has fewer rows: below this the bookkeeping of a chunk costs more than its rows.
const FEWEST_ROWS: u64 = 500;

pub(crate) struct SqliteSnapshot {
    session: Arc<Session>,
    exact: bool,
    taken: Instant,
    /// Of the first table that is planned on: the view does not change.
    estimates: OnceCell<Arc<Estimates>>,
}

impl SqliteSnapshot {
    /// Opens a view, and asks something of it in its first moment.
    pub(crate) async fn open<T: Send + 'static>(
        location: &Location,
        exact: bool,
        first: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        let place = location.clone();
        let session = Session::open("snapshot", move || place.open(Purpose::Read)).await?;
        let taken = Instant::now();
        let answer = session
            .run(move |connection| {
                connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").told()?;
                first(connection)
            })
            .await?;
        Ok((SqliteSnapshot { session: Arc::new(session), exact, taken, estimates: OnceCell::new() }, answer))
    }
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    fn is_exact(&self) -> bool {
        self.exact
    }

    fn taken_at(&self) -> Instant {
        self.taken
    }

    async fn plan(&self, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>> {
        let name = table.name.name.clone();
        let read = || self.session.run(|connection| Ok(Arc::new(Estimates::read(connection)?)));
        let estimates = self.estimates.get_or_try_init(read).await?.clone();
        self.session.run(move |connection| plan(connection, &estimates, &name, chunk_bytes)).await
    }

    async fn read(&self, spec: &ReadSpec<'_>) -> Result<Box<dyn RowReader>> {
        let range = KeyRange::parse(&spec.chunk.spec)?;
        let name = spec.mapping.source.name.clone();
        let columns = spec.mapping.columns.iter().map(|column| quoted(&column.source)).collect();
        let paging = self.session.run(move |connection| Ok(Paging::new(&Frame::of(connection, &name)?))).await?;
        Ok(Box::new(ChunkReader {
            session: self.session.clone(),
            query: Arc::new(Query { paging, columns, block_bytes: spec.block_bytes }),
            range,
            rows: 0,
            ended: false,
        }))
    }
}

/// By what a table's rows are put in order: its key, or without one its rowid.
struct Paging {
    table: String,
    /// With the collation of the key's own index.
    order: Vec<String>,
}

impl Paging {
    fn new(shape: &Frame) -> Self {
        let order = match (&shape.key, &shape.row) {
            (Some(key), _) => {
                let part = |part: &KeyPart| shape.quoted_column(part.column) + &shape.collate(part.column, &part.collation);
                key.iter().map(part).collect()
            }
            (None, RowName::Rowid(name)) => vec![name.clone()],
            (None, _) => Vec::new(),
        };
        Paging { table: shape.quoted(), order }
    }

    /// `SELECT key, columns FROM table WHERE above AND up to ORDER BY key`, and its parameters.
    fn select<'a>(&self, columns: &[String], range: &'a KeyRange) -> (String, Vec<&'a Value>) {
        let width = self.order.len();
        let order = self.order.join(", ");
        let mut conditions = Vec::new();
        let mut parameters = Vec::new();
        for (bound, comparison) in [(&range.above, ">"), (&range.up_to, "<=")] {
            let Some(bound) = bound else { continue };
            let places = (0..width).map(|at| format!("?{}", parameters.len() + at + 1)).collect::<Vec<_>>().join(", ");
            conditions.push(format!("({order}) {comparison} ({places})"));
            parameters.extend(bound.iter());
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let selected = self.order.iter().chain(columns).cloned().collect::<Vec<_>>().join(", ");
        let sort = if order.is_empty() { String::new() } else { format!(" ORDER BY {order}") };
        (format!("SELECT {selected} FROM {}{filter}{sort}", self.table), parameters)
    }
}

struct Query {
    paging: Paging,
    columns: Vec<String>,
    block_bytes: usize,
}

struct ChunkReader {
    session: Arc<Session>,
    query: Arc<Query>,
    /// What is still to be read.
    range: KeyRange,
    rows: u64,
    ended: bool,
}

/// One block, and the key of its last row if more may follow.
struct Block {
    rows: RowBatch,
    last: Option<Row>,
}

#[async_trait]
impl RowReader for ChunkReader {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        if self.ended {
            return Ok(None);
        }
        let (query, range) = (self.query.clone(), self.range.clone());
        let block = self.session.run(move |connection| read_block(connection, &query, &range)).await?;
        self.rows += block.rows.len() as u64;
        match block.last {
            Some(last) => self.range.above = Some(last),
            None => self.ended = true,
        }
        Ok((!block.rows.is_empty()).then_some(LoadBlock::Rows(block.rows)))
    }

    /// Ranges of keys outlive every rebuilding of a table; what was read counts.
    async fn finish(&mut self) -> Result<ChunkEnd> {
        Ok(ChunkEnd::Valid { rows: self.rows })
    }
}

fn read_block(connection: &mut Connection, query: &Query, range: &KeyRange) -> Result<Block> {
    let (sql, parameters) = query.paging.select(&query.columns, range);
    let keys = query.paging.order.len();
    let mut statement = connection.prepare_cached(&sql).told()?;
    let mut found = statement.query(rusqlite::params_from_iter(parameters.into_iter().map(values::Bound))).told()?;
    let mut rows = RowBatch::new(query.columns.len().max(1));
    let mut weight = 0;
    while let Some(row) = found.next().told()? {
        let values = values::read_row(row, keys, query.columns.len()).told()?;
        weight += values.iter().map(Value::weight).sum::<usize>();
        rows.push(values);
        if weight >= query.block_bytes && keys > 0 {
            let last = values::read_row(row, 0, keys).told()?;
            return Ok(Block { rows, last: Some(last) });
        }
    }
    Ok(Block { rows, last: None })
}

fn plan(connection: &mut Connection, estimates: &Estimates, name: &str, chunk_bytes: u64) -> Result<Vec<Chunk>> {
    let shape = Frame::of(connection, name)?;
    let estimated = estimates.of(connection, &shape)?;
    if shape.key.is_none() {
        return Ok(vec![Chunk { spec: KeyRange::default().text(), estimated_rows: estimated }]);
    }
    let step = (chunk_bytes / row_weight(connection, &shape)?).max(FEWEST_ROWS);
    let mut chunks = Vec::new();
    let mut range = KeyRange::default();
    while let Some(bound) = bound_behind(connection, &shape, &range, step)? {
        range.up_to = Some(bound.clone());
        chunks.push(Chunk { spec: range.text(), estimated_rows: step });
        range = KeyRange { above: Some(bound), up_to: None };
    }
    let left = if chunks.is_empty() { estimated.min(step) } else { step / 2 };
    chunks.push(Chunk { spec: range.text(), estimated_rows: left });
    Ok(chunks)
}

/// The key so many rows further on; None: there are not so many.
fn bound_behind(connection: &Connection, shape: &Frame, range: &KeyRange, step: u64) -> Result<Option<Row>> {
    let paging = Paging::new(shape);
    let (sql, parameters) = paging.select(&[], range);
    let sql = format!("{sql} LIMIT 1 OFFSET {}", step - 1);
    let mut statement = connection.prepare_cached(&sql).told()?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters.into_iter().map(values::Bound))).told()?;
    match rows.next().told()? {
        Some(row) => Ok(Some(values::read_row(row, 0, paging.order.len()).told()?)),
        None => Ok(None),
    }
}

fn row_weight(connection: &Connection, shape: &Frame) -> Result<u64> {
    let sql = format!("SELECT * FROM {} LIMIT {SAMPLE}", shape.quoted());
    let mut statement = connection.prepare(&sql).told()?;
    let width = statement.column_count();
    let mut rows = statement.query([]).told()?;
    let (mut count, mut weight) = (0, 0);
    while let Some(row) = rows.next().told()? {
        weight += values::read_row(row, 0, width).told()?.iter().map(Value::weight).sum::<usize>();
        count += 1;
    }
    Ok((weight / count.max(1)).max(1) as u64)
}

/// The rows of these keys as they are now.
pub(crate) fn rows_of(connection: &Connection, name: &str, key: &[String], columns: &[String], keys: &RowBatch) -> Result<RowBatch> {
    let shape = Frame::of(connection, name)?;
    let conditions = key
        .iter()
        .enumerate()
        .map(|(at, column)| format!("{} = ?{}", key_column(&shape, column), at + 1))
        .collect::<Vec<_>>()
        .join(" AND ");
    let columns_sql = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    let mut statement = connection.prepare_cached(&format!("SELECT {columns_sql} FROM {} WHERE {conditions}", shape.quoted())).told()?;
    let mut found = RowBatch::new(columns.len().max(1));
    for key in keys.rows() {
        let mut rows = statement.query(rusqlite::params_from_iter(bound(key))).told()?;
        while let Some(row) = rows.next().told()? {
            found.push(values::read_row(row, 0, columns.len()).told()?);
        }
    }
    Ok(found)
}

/// A key's column as its own index compares it.
pub(crate) fn key_column(shape: &Frame, column: &str) -> String {
    let index = shape.column(column);
    let part = shape.key.iter().flatten().find(|part| Some(part.column) == index);
    quoted(column) + &part.map(|part| shape.collate(part.column, &part.collation)).unwrap_or_default()
}
