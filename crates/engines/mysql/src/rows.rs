//! Rows read again by their keys, as they are now.
//!
//! A key is found by the table's own equality: where that ignores case, a row whose key changed its case since is still the
//! one that is asked for, as it is at a target.
//!
//! Conditions are written out, `(a = 1 AND b = 'x') OR ...`, which the index finds like a list: MariaDB 10.11 answers
//! `(a, b) IN ((1, 'x'))` without the row where `b` is latin1 and the text holds more than ASCII.

use godwit_model::{Error, Result, RowBatch, TableMapping, Value};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::read::decoded;
use crate::values::Codec;
use crate::{error, quote};

/// Keys in one question: no more than the server weighs one by one.
const MOST_KEYS: usize = 500;
/// And their bytes: far below any server's packet.
const MOST_BYTES: usize = 256 << 10;

pub(crate) async fn by_key(conn: &mut Conn, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
    let codecs = mapping.columns.iter().map(|column| Codec::of(&column.type_name)).collect::<Result<Vec<_>>>()?;
    let columns = mapping.columns.iter().zip(&codecs).map(|(column, codec)| codec.selected(&quote::identifier(&column.source)));
    let start = format!("SELECT {} FROM {} WHERE ", quote::list(columns), quote::table(&mapping.source));
    let name = |index: usize| quote::identifier(&mapping.columns[index].source);
    let key: Vec<(String, &Codec)> = mapping.key.iter().map(|index| (name(*index), &codecs[*index])).collect();
    let mut found = RowBatch::new(mapping.columns.len().max(1));
    for sql in questions(&start, &key, keys)? {
        let mut answer = conn.query_iter(sql).await.map_err(error::from_server)?;
        while let Some(row) = answer.next().await.map_err(error::from_server)? {
            found.push(decoded(&codecs, row)?);
        }
    }
    Ok(found)
}

fn questions(start: &str, key: &[(String, &Codec)], keys: &RowBatch) -> Result<Vec<Vec<u8>>> {
    if !keys.is_empty() && (key.is_empty() || keys.stride() != key.len()) {
        return Err(Error::internal("keys have another width than their table's key"));
    }
    let mut questions: Vec<Vec<u8>> = Vec::new();
    let mut room = 0;
    for row in keys.rows() {
        match questions.last_mut().filter(|question| room > 0 && question.len() < MOST_BYTES) {
            Some(question) => question.extend_from_slice(b" OR "),
            None => {
                questions.push(start.as_bytes().to_vec());
                room = MOST_KEYS;
            }
        }
        room -= 1;
        if let Some(question) = questions.last_mut() {
            same_key(key, row, question)?;
        }
    }
    Ok(questions)
}

/// `(a = 1 AND b = 'x')`, by the columns' own comparison.
pub(crate) fn same_key(key: &[(String, &Codec)], row: &[Value], out: &mut Vec<u8>) -> Result<()> {
    out.push(b'(');
    for (place, ((column, codec), value)) in key.iter().zip(row).enumerate() {
        out.extend_from_slice(if place > 0 { b" AND " } else { b"" });
        out.extend_from_slice(column.as_bytes());
        out.extend_from_slice(b" = ");
        codec.literal(value, out)?;
    }
    out.push(b')');
    Ok(())
}
