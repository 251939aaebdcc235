//! Writing one chunk: COPY, the mark and the proof of the lease in one durable transaction.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt as _;
use godwit_model::{
    ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, Error, Lease, LoadBlock, Result, RowBatch, RowReader, TableMapping, codes,
};
use tokio_postgres::{Client, CopyInSink};

use crate::read::BINARY_SIGNATURE;
use crate::{apply, error, lease, quote, values, writer};

/// A session whose transaction this leaves open on an error must not be used again.
pub(crate) async fn write_chunk(client: &Client, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
    let first = rows.next().await?;
    if matches!(&first, Some(LoadBlock::Native(bytes)) if bytes.starts_with(BINARY_SIGNATURE)) {
        refuse_other_types(client, write.mapping).await?;
    }
    client.batch_execute(&writer::begin(lease, "")).await.map_err(error::from_server)?;
    let written = match (write.mode, first) {
        (_, None) => 0,
        (ChunkMode::Insert, Some(first)) => copy(client, &quote::table(&write.mapping.target), write.mapping, first, rows).await?,
        (ChunkMode::Upsert, Some(first)) => upsert(client, write.mapping, first, rows).await?,
    };
    match rows.finish().await? {
        ChunkEnd::Stale => {
            client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
            return Ok(ChunkWritten::Stale);
        }
        ChunkEnd::Valid { rows } if rows != written => {
            return Err(Error::internal(format!("a chunk was read with {rows} rows and written with {written}"))
                .at(format!("table {}", write.mapping.target))
                .effect("the chunk was rolled back"));
        }
        ChunkEnd::Valid { .. } => {}
    }
    lease::commit_with(client, lease, std::slice::from_ref(write.done)).await?;
    Ok(ChunkWritten::Written { rows: written })
}

async fn upsert(client: &Client, mapping: &TableMapping, first: LoadBlock, rows: &mut dyn RowReader) -> Result<u64> {
    if !mapping.has_key() {
        return Err(Error::internal("a table without a key cannot be loaded over rows that may be there"));
    }
    let table = apply::read_table(client, mapping).await?;
    let columns = column_list(mapping);
    let sql =
        format!("CREATE TEMP TABLE godwit_chunk ON COMMIT DROP AS SELECT {columns} FROM {} WITH NO DATA", quote::table(&mapping.target));
    client.batch_execute(&sql).await.map_err(error::from_server)?;
    let copied = copy(client, "pg_temp.godwit_chunk", mapping, first, rows).await?;
    let all: Vec<usize> = (0..mapping.columns.len()).collect();
    let key = mapping.key_targets().into_iter().map(quote::identifier).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.godwit_chunk ON CONFLICT ({key}) DO UPDATE SET {}",
        quote::table(&mapping.target),
        apply::overwrite(&table, &all),
    );
    client.execute(&sql, &[]).await.map_err(|problem| refused(problem, mapping))?;
    Ok(copied)
}

/// Rows that COPY took.
async fn copy(client: &Client, into: &str, mapping: &TableMapping, first: LoadBlock, rows: &mut dyn RowReader) -> Result<u64> {
    let binary = matches!(&first, LoadBlock::Native(bytes) if bytes.starts_with(BINARY_SIGNATURE));
    let format = if binary { "binary" } else { "text" };
    // a table may have no columns at all, and an empty list of them is no SQL
    let columns = if mapping.columns.is_empty() { String::new() } else { format!("({}) ", column_list(mapping)) };
    let sql = format!("COPY {into} {columns}FROM STDIN (FORMAT {format})");
    let sink = client.copy_in::<_, Bytes>(&sql).await.map_err(error::from_server)?;
    let mut sink = Box::pin(sink);
    let mut block = Some(first);
    while let Some(next) = block {
        send(&mut sink, next, binary, mapping).await?;
        block = rows.next().await?;
    }
    sink.as_mut().finish().await.map_err(|problem| refused(problem, mapping))
}

async fn send(sink: &mut Pin<Box<CopyInSink<Bytes>>>, block: LoadBlock, binary: bool, mapping: &TableMapping) -> Result<()> {
    let bytes = match block {
        LoadBlock::Native(bytes) => bytes,
        LoadBlock::Rows(_) if binary => return Err(Error::internal("a chunk began in the binary form and went on as rows")),
        LoadBlock::Rows(batch) => lines(&batch)?,
    };
    sink.send(bytes).await.map_err(|problem| refused(problem, mapping))
}

fn lines(batch: &RowBatch) -> Result<Bytes> {
    let mut out = BytesMut::with_capacity(batch.weight());
    for row in batch.rows() {
        values::push_copy_line(&mut out, row)?;
    }
    Ok(out.freeze())
}

fn column_list(mapping: &TableMapping) -> String {
    mapping.columns.iter().map(|column| quote::identifier(&column.target)).collect::<Vec<_>>().join(", ")
}

fn refused(problem: tokio_postgres::Error, mapping: &TableMapping) -> Error {
    let existing = writer::is_unique_violation(&problem);
    let error = writer::refusal(problem);
    if !existing {
        return error;
    }
    let kept = error.detail_text().unwrap_or_default().to_owned();
    Error::new(&codes::KEY_EXISTS, "a row that is loaded meets a key that the target already holds")
        .at(format!("table {}", mapping.target))
        .detail(kept)
        .effect("the chunk was rolled back")
        .remedy("empty the target table, or let the task do so (target.existing: truncate)")
}

/// Binary values carry no type: a column of another type of the same width would take them for something else.
async fn refuse_other_types(client: &Client, mapping: &TableMapping) -> Result<()> {
    let names: Vec<&str> = mapping.columns.iter().map(|column| column.target.as_str()).collect();
    let types: Vec<&str> = mapping.columns.iter().map(|column| column.type_name.as_str()).collect();
    let sql = "
        SELECT w.name, w.type_name, format_type(a.atttypid, a.atttypmod)
        FROM unnest($2::text[], $3::text[]) AS w(name, type_name)
        LEFT JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attname = w.name AND NOT a.attisdropped
        WHERE a.atttypid IS DISTINCT FROM to_regtype(w.type_name)::oid LIMIT 1";
    let row = client.query_opt(sql, &[&quote::table(&mapping.target), &names, &types]).await.map_err(error::from_server)?;
    let Some(row) = row else { return Ok(()) };
    let (name, wanted, found): (&str, &str, Option<&str>) = (row.get(0), row.get(1), row.get(2));
    Err(Error::new(&codes::SCHEMA_MISMATCH, format!("column `{name}` should be of type {wanted} and is {}", found.unwrap_or("not there")))
        .at(format!("table {}", mapping.target))
        .remedy("give the target column the source column's type"))
}
