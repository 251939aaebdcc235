//! Writing one chunk: its rows, its mark and the proof of the lease in one transaction.
//!
//! The next block is read while the server writes the one before. The first is read before the transaction begins.

use godwit_model::{
    ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, Entry, Error, Lease, LoadBlock, Result, RowBatch, RowReader, TableMapping, WriteKind,
    codes,
};

use crate::script::execute;
use crate::sending::Sending;
use crate::shape::Shape;
use crate::statements::Plan;
use crate::transaction::Begun;
use crate::writers::{Writer, Writers};
use crate::{lease, transaction};

/// A session whose transaction this leaves open on an error is dropped, and so rolled back.
pub(crate) async fn write(writers: &Writers, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
    let first = next(rows).await?;
    let mut writer = writers.take().await?;
    transaction::open(&mut writer).await?;
    let written = put_all(&mut writer, write, first, rows).await?;
    let answer = match rows.finish().await? {
        ChunkEnd::Stale => {
            execute(&mut writer, "ROLLBACK").await?;
            ChunkWritten::Stale
        }
        ChunkEnd::Valid { rows } if rows != written => {
            return Err(Error::internal(format!("a chunk was read with {rows} rows and written with {written}"))
                .effect("the chunk was rolled back"));
        }
        ChunkEnd::Valid { rows } => {
            end(&mut writer, lease, write.done).await?;
            ChunkWritten::Written { rows }
        }
    };
    writers.give_back(writer);
    Ok(answer)
}

/// With the chunk's mark, if the transaction is still the one that its rows are in.
pub(crate) async fn end(writer: &mut Writer, lease: &Lease, done: &Entry) -> Result<()> {
    lease::commit(writer, lease, Begun::Here, std::slice::from_ref(done)).await
}

fn place(mapping: &TableMapping) -> String {
    format!("table {}", mapping.target)
}

/// Same engine on both sides or another one: rows arrive as rows.
async fn next(rows: &mut dyn RowReader) -> Result<Option<RowBatch>> {
    match rows.next().await? {
        None => Ok(None),
        Some(LoadBlock::Rows(rows)) => Ok(Some(rows)),
        Some(LoadBlock::Native(_)) => Err(Error::internal("MySQL has no native load blocks")),
    }
}

async fn put_all(writer: &mut Writer, write: &ChunkWrite<'_>, first: Option<RowBatch>, rows: &mut dyn RowReader) -> Result<u64> {
    let Some(mut block) = first else { return Ok(0) };
    let shape = Shape::read(writer, write.mapping).await?;
    let kind = match write.mode {
        ChunkMode::Upsert if write.mapping.has_key() => WriteKind::Upsert,
        _ => WriteKind::Insert,
    };
    let mut written = 0;
    loop {
        let (put, following) = tokio::join!(put(writer, &shape, write.mapping, kind, &block), next(rows));
        written += put?;
        match following? {
            Some(following) => block = following,
            None => return Ok(written),
        }
    }
}

async fn put(writer: &mut Writer, shape: &Shape, mapping: &TableMapping, kind: WriteKind, rows: &RowBatch) -> Result<u64> {
    let columns: Vec<usize> = (0..mapping.columns.len()).collect();
    let mut sending = Sending::new(writer, 1);
    let sent = sending.write(0, Plan::of(shape, mapping, kind, &columns), rows).await;
    let counted = match sent {
        Ok(()) => sending.finish().await,
        Err(trouble) => Err(trouble),
    };
    let counted = counted.map_err(|trouble| refused(trouble.into_error(), mapping))?;
    Ok(counted.first().copied().unwrap_or(0))
}

fn refused(error: Error, mapping: &TableMapping) -> Error {
    if !error.is(&codes::CONFLICT) {
        return error.at_least_at(|| place(mapping));
    }
    Error::new(&codes::KEY_EXISTS, "a row that is loaded meets a key that the target already holds")
        .at(place(mapping))
        .detail(error.detail_text().unwrap_or_default())
        .effect("the chunk was rolled back")
        .remedy("empty the target table, or let the task do so (target.existing: truncate)")
}
