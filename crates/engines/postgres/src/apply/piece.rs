//! Rows of a write as the parameters of statements, or as lines of COPY.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use godwit_model::{Result, TableWrite, Value, WriteKind};

use crate::values::{TextParameter, array_literal, push_copy_line};

/// Rows of one execution: the server works on them while the next are encoded. Arrays are no cheaper for being longer.
const MOST_ROWS: usize = 4096;
/// A statement's parameters may not exceed 1 GB; far below that, memory is what counts.
const MOST_BYTES: usize = 1 << 20;
/// Lines of COPY that travel together.
const BLOCK_BYTES: usize = 128 << 10;

/// The executions of a write's statement, by their parameters: one row each for tables without a key, else by size.
pub(crate) fn cut(write: &TableWrite) -> Box<dyn Iterator<Item = Result<Vec<TextParameter>>> + Send + '_> {
    match write.kind {
        WriteKind::Truncate => Box::new(std::iter::once(Ok(Vec::new()))),
        WriteKind::DeleteWhole | WriteKind::UpdateWhole => Box::new(write.rows.rows().map(single)),
        _ => {
            let mut first = 0;
            Box::new(std::iter::from_fn(move || {
                let rows = first..end(write, first);
                first = rows.end;
                (!rows.is_empty()).then(|| set(write, rows))
            }))
        }
    }
}

/// Parameters for no row at all.
pub(crate) fn nothing(write: &TableWrite) -> Vec<TextParameter> {
    (0..write.rows.stride()).map(|_| TextParameter(Some(BytesMut::from(&b"{}"[..])))).collect()
}

/// All rows as lines of COPY, block by block.
pub(crate) fn lines(write: &TableWrite) -> impl Iterator<Item = Result<Bytes>> + Send {
    let mut rows = write.rows.rows().peekable();
    std::iter::from_fn(move || {
        rows.peek()?;
        let mut block = BytesMut::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 8);
        while block.len() < BLOCK_BYTES {
            let Some(row) = rows.next() else { break };
            if let Err(error) = push_copy_line(&mut block, row) {
                return Some(Err(error));
            }
        }
        Some(Ok(block.freeze()))
    })
}

/// The end of the rows that travel with this first one.
fn end(write: &TableWrite, first: usize) -> usize {
    let mut bytes = 0;
    let most = write.rows.len().min(first + MOST_ROWS);
    let full = (first..most).find(|place| {
        bytes += write.rows.row(*place).iter().map(Value::weight).sum::<usize>();
        bytes >= MOST_BYTES
    });
    full.map_or(most, |place| place + 1)
}

/// Every value is an array of one.
fn single(row: &[Value]) -> Result<Vec<TextParameter>> {
    row.iter().map(|value| Ok(TextParameter(Some(array_literal(std::iter::once(value))?)))).collect()
}

fn set(write: &TableWrite, rows: Range<usize>) -> Result<Vec<TextParameter>> {
    let column = |column: usize| {
        let values = rows.clone().map(|row| &write.rows.row(row)[column]);
        Ok(TextParameter(Some(array_literal(values)?)))
    };
    (0..write.rows.stride()).map(column).collect()
}
