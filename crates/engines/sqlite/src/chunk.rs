//! Writes one chunk with its mark in one transaction.
//!
//! The connection is the chunk's own meanwhile: if the write is dropped half-way, it closes and SQLite rolls back. The first
//! block is read before the file's write lock is taken.

use godwit_model::{
    ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, Entry, Error, Lease, LoadBlock, Result, RowBatch, RowReader, WriteKind, codes,
};
use rusqlite::Connection;
use std::sync::Arc;

use crate::error::{from_sqlite, is_duplicate_row};
use crate::lease;
use crate::pool::Pool;
use crate::statements::{Writer, batch, key_text, run};
use crate::target::Turn;

pub(crate) async fn write(
    writers: &Pool,
    turn: &Turn,
    lease: &Lease,
    write: &ChunkWrite<'_>,
    rows: &mut dyn RowReader,
) -> Result<ChunkWritten> {
    let mut block = next(rows).await?;
    let _turn = turn.take().await?;
    let session = writers.take().await?;
    let (mapping, mode, under) = (write.mapping.clone(), write.mode, lease.clone());
    let plan = session.run(move |connection| begin(connection, &under, &mapping, mode)).await?;
    let plan = Arc::new(plan);
    let mut written = 0;
    while let Some(rows_of_block) = block {
        let plan = plan.clone();
        written += session.run(move |connection| insert(connection, &plan, &rows_of_block)).await?;
        block = next(rows).await?;
    }
    match rows.finish().await? {
        ChunkEnd::Stale => Ok(ChunkWritten::Stale),
        ChunkEnd::Valid { rows } if rows != written => {
            Err(Error::internal("a chunk was not written as it was read").at(format!("table {}", write.mapping.target)))
        }
        ChunkEnd::Valid { rows } => {
            let (lease, done) = (lease.clone(), write.done.clone());
            session.run(move |connection| commit(connection, &lease, &done)).await?;
            writers.give_back(session).await;
            Ok(ChunkWritten::Written { rows })
        }
    }
}

/// Same engine on both sides or another one: rows arrive as rows.
async fn next(rows: &mut dyn RowReader) -> Result<Option<RowBatch>> {
    match rows.next().await? {
        None => Ok(None),
        Some(LoadBlock::Rows(rows)) => Ok(Some(rows)),
        Some(LoadBlock::Native(_)) => Err(Error::internal("SQLite has no native load blocks")),
    }
}

struct Plan {
    writer: Writer,
    sql: String,
}

fn begin(connection: &mut Connection, lease: &Lease, mapping: &godwit_model::TableMapping, mode: ChunkMode) -> Result<Plan> {
    batch(connection, "BEGIN IMMEDIATE")?;
    lease::raise(connection, lease)?;
    let writer = Writer::new(connection, mapping)?;
    let sql = writer.chunk_sql(mode);
    Ok(Plan { writer, sql })
}

fn insert(connection: &Connection, plan: &Plan, rows: &RowBatch) -> Result<u64> {
    let mut written = 0;
    for row in rows.rows() {
        match run(connection, &plan.sql, row) {
            Ok(touched) => written += touched as u64,
            Err(error) => return Err(refused(error, plan, row)),
        }
    }
    Ok(written)
}

fn refused(error: rusqlite::Error, plan: &Plan, row: &[godwit_model::Value]) -> Error {
    let mapping = &plan.writer.mapping;
    let columns: Vec<usize> = (0..mapping.columns.len()).collect();
    let key = key_text(mapping, WriteKind::Insert, &columns, row);
    let place = format!("table {}", mapping.target);
    if is_duplicate_row(&error) {
        return Error::new(&codes::KEY_EXISTS, "a row with a unique value of a copied one is already in the target")
            .at(place)
            .detail(key)
            .effect("this chunk was not written")
            .remedy("empty the target's table, or use `existing: truncate`");
    }
    from_sqlite(error).at_least_at(|| place).detail(key)
}

fn commit(connection: &Connection, lease: &Lease, done: &Entry) -> Result<()> {
    lease::record_entries(connection, &lease.task, std::slice::from_ref(done))?;
    batch(connection, "COMMIT")
}
