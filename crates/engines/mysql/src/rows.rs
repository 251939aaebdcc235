//! Rows read again by their keys, as they are now.
//!
//! A key is found by the table's own equality: where that ignores case, a row whose key changed its case since is still the
//! one that is asked for, as it is at a target.

use godwit_model::{Error, Result, RowBatch, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::read::decoded;
use crate::values::Codec;
use crate::{error, quote};

/// Keys in one question: MariaDB turns lists of a thousand and more into a subquery, whose columns compare otherwise.
const MOST_KEYS: usize = 500;
/// And their bytes: far below any server's packet.
const MOST_BYTES: usize = 256 << 10;

pub(crate) async fn by_key(conn: &mut Conn, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
    let codecs = mapping.columns.iter().map(|column| Codec::of(&column.type_name)).collect::<Result<Vec<_>>>()?;
    let columns = mapping.columns.iter().zip(&codecs).map(|(column, codec)| codec.selected(&quote::identifier(&column.source)));
    let key = quote::list(mapping.key_sources().into_iter().map(quote::identifier));
    let start = format!("SELECT {} FROM {} WHERE ({key}) IN (", quote::list(columns), quote::table(&mapping.source));
    let key: Vec<&Codec> = mapping.key.iter().map(|index| &codecs[*index]).collect();
    let mut found = RowBatch::new(mapping.columns.len().max(1));
    for sql in questions(&start, &key, keys)? {
        let mut answer = conn.query_iter(sql).await.map_err(error::from_server)?;
        while let Some(row) = answer.next().await.map_err(error::from_server)? {
            found.push(decoded(&codecs, row)?);
        }
    }
    Ok(found)
}

fn questions(start: &str, key: &[&Codec], keys: &RowBatch) -> Result<Vec<Vec<u8>>> {
    if !keys.is_empty() && (key.is_empty() || keys.stride() != key.len()) {
        return Err(Error::internal("keys have another width than their table's key"));
    }
    let mut questions: Vec<Vec<u8>> = Vec::new();
    let mut room = 0;
    for row in keys.rows() {
        match questions.last_mut().filter(|question| room > 0 && question.len() < MOST_BYTES) {
            Some(question) => question.extend_from_slice(b", "),
            None => {
                questions.push(start.as_bytes().to_vec());
                room = MOST_KEYS;
            }
        }
        room -= 1;
        if let Some(question) = questions.last_mut() {
            tuple(key, row, question)?;
        }
    }
    questions.iter_mut().for_each(|question| question.push(b')'));
    Ok(questions)
}

fn tuple(key: &[&Codec], row: &[godwit_model::Value], out: &mut Vec<u8>) -> Result<()> {
    out.push(b'(');
    for (place, (codec, value)) in key.iter().zip(row).enumerate() {
        if place > 0 {
            out.extend_from_slice(b", ");
        }
        codec.literal(value, out)?;
    }
    out.push(b')');
    Ok(())
}
