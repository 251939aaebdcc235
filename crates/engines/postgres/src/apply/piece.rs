//! Rows of a write as the parameters of statements.

use godwit_model::{Result, TableWrite, Value, WriteKind};

use crate::values::{TextParameter, array_literal};

/// One execution of a write's statement.
pub(crate) struct Piece {
    /// Index into the group's writes.
    pub(crate) write: usize,
    pub(crate) parameters: Vec<TextParameter>,
}

/// A statement's parameters may not exceed 1 GB; far below that, memory is what counts.
const MOST_BYTES: usize = 8 << 20;

/// Cuts a write into pieces: one row each for tables without a key, else by size.
pub(crate) fn cut(index: usize, write: &TableWrite) -> Result<Vec<Piece>> {
    match write.kind {
        WriteKind::Truncate => Ok(vec![Piece { write: index, parameters: Vec::new() }]),
        WriteKind::DeleteWhole | WriteKind::UpdateWhole => write.rows.rows().map(|row| single(index, row)).collect(),
        _ => sets(index, write),
    }
}

/// Every value is an array of one.
fn single(index: usize, row: &[Value]) -> Result<Piece> {
    let parameters = row.iter().map(|value| Ok(TextParameter(Some(array_literal(std::iter::once(value))?)))).collect::<Result<_>>()?;
    Ok(Piece { write: index, parameters })
}

fn sets(index: usize, write: &TableWrite) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for place in 0..write.rows.len() {
        bytes += write.rows.row(place).iter().map(Value::weight).sum::<usize>();
        if bytes >= MOST_BYTES || place + 1 == write.rows.len() {
            pieces.push(set(index, write, first..place + 1)?);
            (first, bytes) = (place + 1, 0);
        }
    }
    Ok(pieces)
}

fn set(index: usize, write: &TableWrite, rows: std::ops::Range<usize>) -> Result<Piece> {
    let columns = 0..write.rows.stride();
    let column = |column: usize| {
        let values = rows.clone().map(|row| &write.rows.row(row)[column]);
        Ok(TextParameter(Some(array_literal(values)?)))
    };
    Ok(Piece { write: index, parameters: columns.map(column).collect::<Result<_>>()? })
}
