//! Reading one chunk, row by row, from a seat of a snapshot.
//!
//! The table's lock that the read took is still held when the chunk is finished: what is asked of the table then held for
//! the whole chunk.

use async_trait::async_trait;
use godwit_model::{ChunkEnd, Error, LoadBlock, ReadSpec, Result, Row, RowBatch, RowReader, TableName, Value};
use mysql_async::Value as Cell;
use mysql_async::prelude::Queryable;

use crate::chunks::{self, KeyRange, Part};
use crate::seats::{GO_BACK, Seat};
use crate::values::Codec;
use crate::{error, quote};

/// `Table definition has changed`: the table was rebuilt or truncated since the view was opened.
const DEFINITION_CHANGED: u16 = 1412;

pub(crate) struct ChunkReader {
    /// None: the chunk is finished and the seat free.
    seat: Option<Seat>,
    table: TableName,
    /// What the table was when the plan was made, and the question by which it is compared.
    planned: String,
    identity: String,
    codecs: Vec<Codec>,
    block_bytes: usize,
    /// Read already, and too large for the last block.
    held: Option<Row>,
    rows: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    /// The server refuses this view of the table.
    Stale,
}

impl ChunkReader {
    /// `opened_at` is the server's time when the seat's view was opened.
    pub(crate) async fn open(mut seat: Seat, range: KeyRange, opened_at: &str, spec: &ReadSpec<'_>) -> Result<Self> {
        let mapping = spec.mapping;
        let codecs = mapping.columns.iter().map(|column| Codec::of(&column.type_name)).collect::<Result<Vec<_>>>()?;
        let key = mapping.key.iter().map(|index| &mapping.columns[*index]);
        let key = key.map(|column| Part::of(&column.source, &column.type_name)).collect::<Result<Vec<_>>>()?;
        let columns = mapping.columns.iter().zip(&codecs).map(|(column, codec)| codec.selected(&quote::identifier(&column.source)));
        let sql = format!("SELECT {} FROM {}{}", quote::list(columns), quote::table(&mapping.source), range.condition(&key)?);
        let asked = seat.conn()?.query_iter(sql).await.map(drop);
        let mut reader = ChunkReader {
            seat: Some(seat),
            table: mapping.source.clone(),
            planned: range.identity,
            identity: chunks::identity(&mapping.source, opened_at),
            codecs,
            block_bytes: spec.block_bytes,
            held: None,
            rows: 0,
            state: State::Reading,
        };
        if let Err(problem) = asked {
            reader.stop(problem)?;
        }
        Ok(reader)
    }

    fn place(&self) -> String {
        format!("table {}", self.table)
    }

    fn seat(&mut self) -> Result<&mut Seat> {
        self.seat.as_mut().ok_or_else(|| Error::internal("a chunk was read on after it was finished"))
    }

    /// A view that the server no longer gives is no error of the chunk's: the table is planned anew.
    fn stop(&mut self, problem: mysql_async::Error) -> Result<()> {
        match problem {
            mysql_async::Error::Server(said) if said.code == DEFINITION_CHANGED => {
                self.state = State::Stale;
                Ok(())
            }
            problem => Err(error::from_server(problem).at_least_at(|| self.place())),
        }
    }

    async fn row(&mut self) -> Result<Option<Row>> {
        if let Some(row) = self.held.take() {
            return Ok(Some(row));
        }
        if self.state != State::Reading {
            return Ok(None);
        }
        match self.seat()?.next().await {
            Ok(Some(row)) => decoded(&self.codecs, row).map(Some).map_err(|error| error.at_least_at(|| self.place())),
            Ok(None) => {
                self.state = State::Ended;
                Ok(None)
            }
            Err(problem) => self.stop(problem).map(|()| None),
        }
    }

    /// Rows up to the size of a block; one row that is larger is a block by itself.
    async fn gather(&mut self) -> Result<RowBatch> {
        let mut rows = RowBatch::new(self.codecs.len().max(1));
        let mut weight = 0;
        while let Some(row) = self.row().await? {
            weight += row.iter().map(Value::weight).sum::<usize>();
            if weight > self.block_bytes && !rows.is_empty() {
                self.held = Some(row);
                break;
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Whether the table is still what it was when the plan was made and the view opened.
    async fn is_same(&mut self) -> Result<bool> {
        let sql = self.identity.clone();
        let now: Option<(String, bool, u64, u64)> = self.seat()?.conn()?.query_first(sql).await.map_err(error::from_server)?;
        Ok(now.is_some_and(|(identity, since, ..)| identity == self.planned && !since))
    }
}

pub(crate) fn decoded(codecs: &[Codec], row: mysql_async::Row) -> Result<Row> {
    if row.len() != codecs.len() {
        return Err(Error::internal("the server sent a row of another width than was asked for"));
    }
    let value = |(codec, cell): (&Codec, Cell)| match cell {
        Cell::NULL => codec.from_select(None),
        Cell::Bytes(bytes) => codec.from_select(Some(&bytes)),
        _ => Err(Error::internal("the server's text protocol gave no text")),
    };
    codecs.iter().zip(row.unwrap()).map(value).collect()
}

#[async_trait]
impl RowReader for ChunkReader {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        let rows = self.gather().await?;
        self.rows += rows.len() as u64;
        Ok((!rows.is_empty()).then_some(LoadBlock::Rows(rows)))
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        if self.state == State::Reading || self.held.is_some() {
            return Err(Error::internal("a chunk was to be finished before its end was read"));
        }
        let valid = self.state == State::Ended && self.is_same().await?;
        let mut seat = self.seat.take().ok_or_else(|| Error::internal("a chunk was finished twice"))?;
        seat.conn()?.query_drop(GO_BACK).await.map_err(error::from_server)?;
        seat.leave();
        Ok(if valid { ChunkEnd::Valid { rows: self.rows } } else { ChunkEnd::Stale })
    }
}
