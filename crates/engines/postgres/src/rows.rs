//! Rows read again by their keys, as they are now.

use bytes::Bytes;
use godwit_model::{Result, RowBatch, TableMapping, Value};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{error, keyed, quote};

pub(crate) async fn by_key(client: &Client, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
    let mut rows = RowBatch::new(mapping.columns.len().max(1));
    if keys.is_empty() {
        return Ok(rows);
    }
    let columns = mapping.columns.iter().map(|column| format!("t.{}", quote::identifier(&column.source))).collect::<Vec<_>>().join(", ");
    let key: Vec<_> = mapping.key.iter().map(|index| &mapping.columns[*index]).map(|c| (c.source.clone(), c.type_name.clone())).collect();
    let sql = format!(
        "SELECT {columns} FROM {} AS t JOIN {} ON {}",
        relation(client, mapping).await?,
        keyed::as_table(keys)?,
        keyed::same_key(&key)
    );
    for message in client.simple_query(&sql).await.map_err(error::from_server)? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let value = |index: usize| row.get(index).map_or(Value::Null, |text| Value::Native(Bytes::copy_from_slice(text.as_bytes())));
        rows.push((0..mapping.columns.len()).map(value));
    }
    Ok(rows)
}

async fn relation(client: &Client, mapping: &TableMapping) -> Result<String> {
    let name = quote::table(&mapping.source);
    let sql = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'p')";
    let partitioned: bool = client.query_one(sql, &[&name]).await.map_err(error::from_server)?.get(0);
    Ok(if partitioned { name } else { format!("ONLY {name}") })
}
