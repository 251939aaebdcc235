//! Reading one chunk: COPY of a block range, in the binary form where that means the same on another server.
//!
//! The binary form of some types holds object numbers of this server alone (elements of users' arrays, composites,
//! ranges, `reg*`); a table with such a column travels as text. The writer sees the form from the first bytes.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use godwit_model::{ChunkEnd, Error, LoadBlock, ReadSpec, Result, RowBatch, RowReader, codes};
use tokio_postgres::{Client, CopyOutStream};

use crate::chunk::BlockRange;
use crate::connect::Session;
use crate::snapshot::Idle;
use crate::{error, quote, values};

/// The first bytes of every binary COPY.
pub(crate) const BINARY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

pub(crate) struct ChunkReader {
    /// None: the chunk is read and the session is back home.
    session: Option<Session>,
    home: Arc<Idle>,
    stream: Pin<Box<CopyOutStream>>,
    range: BlockRange,
    binary: bool,
    /// Some: the target wants rows of this width, not the engine's own blocks.
    stride: Option<usize>,
    block_bytes: usize,
    messages: u64,
    ended: bool,
}

impl ChunkReader {
    /// `session` has a transaction open on the snapshot.
    pub(crate) async fn open(session: Session, home: Arc<Idle>, range: BlockRange, spec: &ReadSpec<'_>) -> Result<Self> {
        let name = relation_name(&session, range.oid).await?;
        let sources: Vec<&str> = spec.mapping.columns.iter().map(|column| column.source.as_str()).collect();
        let binary = spec.native && !hides_object_numbers(&session, range.oid, &sources).await?;
        let columns = sources.iter().map(|column| quote::identifier(column)).collect::<Vec<_>>().join(", ");
        let format = if binary { "binary" } else { "text" };
        let sql = format!("COPY (SELECT {columns} FROM ONLY {name}{}) TO STDOUT (FORMAT {format})", range.condition());
        let stream = Box::pin(session.copy_out(&sql).await.map_err(error::from_server)?);
        let stride = (!spec.native).then_some(sources.len());
        let session = Some(session);
        Ok(ChunkReader { session, home, stream, range, binary, stride, block_bytes: spec.block_bytes, messages: 0, ended: false })
    }

    /// Messages of the server (one row each) up to the size of a block; None at the end.
    async fn gather(&mut self) -> Result<Option<BytesMut>> {
        let mut block = BytesMut::new();
        while !self.ended && block.len() < self.block_bytes {
            match self.stream.next().await {
                Some(message) => {
                    let message = message.map_err(error::from_server)?;
                    self.messages += 1;
                    if block.capacity() == 0 {
                        block.reserve(self.block_bytes.min(BLOCK_RESERVE));
                    }
                    block.extend_from_slice(&message);
                }
                None => self.ended = true,
            }
        }
        Ok((!block.is_empty()).then_some(block))
    }

    /// The binary form ends with a message of its own.
    fn rows(&self) -> u64 {
        if self.binary { self.messages.saturating_sub(1) } else { self.messages }
    }
}

/// A block is grown from here, so that small tables do not pay for large ones.
const BLOCK_RESERVE: usize = 256 * 1024;

#[async_trait]
impl RowReader for ChunkReader {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        let Some(block) = self.gather().await? else { return Ok(None) };
        match self.stride {
            None => Ok(Some(LoadBlock::Native(block.freeze()))),
            Some(stride) => Ok(Some(LoadBlock::Rows(rows_of(&block.freeze(), stride)?))),
        }
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        if !self.ended {
            return Err(Error::internal("a chunk was to be finished before its end was read"));
        }
        // The lock of the read is still held: what is seen here held for the whole chunk.
        let sql = "SELECT coalesce(pg_relation_filenode($1::oid), 0)::oid";
        let session = self.session.take().ok_or_else(|| Error::internal("a chunk was finished twice"))?;
        let now: u32 = session.query_one(sql, &[&self.range.oid]).await.map_err(error::from_server)?.get(0);
        if now != self.range.filenode {
            return Ok(ChunkEnd::Stale);
        }
        session.batch_execute("COMMIT").await.map_err(error::from_server)?;
        self.home.give_back(session);
        Ok(ChunkEnd::Valid { rows: self.rows() })
    }
}

fn rows_of(block: &Bytes, stride: usize) -> Result<RowBatch> {
    let mut batch = RowBatch::new(stride);
    let lines = block.strip_suffix(b"\n").unwrap_or(block);
    for line in lines.split(|byte| *byte == b'\n') {
        let row = values::parse_copy_line(line)?;
        if row.len() != stride {
            return Err(Error::new(&codes::SERVER_REFUSED, "the server sent a row of another width than was asked for"));
        }
        batch.push(row);
    }
    Ok(batch)
}

/// A relation that is gone was dropped after the plan: the pipeline hears of it as a table that is missing.
async fn relation_name(client: &Client, oid: u32) -> Result<String> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let row = client.query_opt(sql, &[&oid]).await.map_err(error::from_server)?;
    let row = row.ok_or_else(|| {
        Error::new(&codes::TABLE_MISSING, "a table was dropped while it was copied").remedy("look at the selection, then run again")
    })?;
    Ok(quote::table(&godwit_model::TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))))
}

/// Whether a column's binary form holds object numbers, or does not exist. Types of the system are fixed in number;
/// of those only the `reg*` family and whatever contains it point elsewhere. Walked through elements, fields,
/// subtypes and domains.
const HIDDEN: &str = "
WITH RECURSIVE inside(oid, root) AS (
    SELECT a.atttypid, true FROM pg_attribute a WHERE a.attrelid = $1 AND a.attname = ANY($2) AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT part.oid, false FROM inside JOIN pg_type t ON t.oid = inside.oid CROSS JOIN LATERAL (
        SELECT t.typelem AS oid WHERE t.typelem <> 0 AND t.typcategory = 'A'
        UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT f.atttypid FROM pg_attribute f WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid
    ) part
)
SELECT EXISTS (
    SELECT FROM inside i JOIN pg_type t ON t.oid = i.oid
    WHERE t.typsend = 0 OR t.typreceive = 0 OR t.typtype = 'c'
       OR (t.typnamespace = 'pg_catalog'::regnamespace AND t.typname LIKE 'reg%')
       OR (t.oid >= 16384 AND t.typtype IN ('r', 'm'))
       OR (t.oid >= 16384 AND t.typcategory = 'A' AND t.typelem <> 0)
)";

async fn hides_object_numbers(client: &Client, relation: u32, columns: &[&str]) -> Result<bool> {
    Ok(client.query_one(HIDDEN, &[&relation, &columns]).await.map_err(error::from_server)?.get(0))
}
