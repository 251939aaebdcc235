//! Replica identity: what the log says of a row that is updated or deleted.
//!
//! A table with a key must have an identity that holds the whole key; one without a key must have the full row. What
//! does not suffice is changed before the table is published, and recorded before it is changed.

use std::collections::HashSet;
use std::sync::Arc;

use godwit_model::{Error, Result, Table, TableName, codes};
use tokio_postgres::{Client, Row};

use super::locks::with_short_locks;
use super::publication::{Record, in_words};
use crate::{error, quote};

/// One leaf or plain table, with its present identity and, if there is one, an index that is exactly the key.
const IDENTITIES: &str = "
WITH wanted AS (
  SELECT w.place, coalesce(t.relid::oid, c.oid) AS oid
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(schema, name, place)
  JOIN pg_namespace n ON n.nspname = w.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
  LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(c.oid) WHERE c.relkind = 'p' AND isleaf) t ON true),
indexes AS MATERIALIZED (
  SELECT i.indrelid, i.indisprimary, i.indisreplident, x.relname AS name,
         i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid
           AND bool_and(a.attnotnull) AS fits,
         array_agg(a.attname::text) AS columns
  FROM pg_index i
  JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
  WHERE i.indrelid IN (SELECT oid FROM wanted)
  GROUP BY i.indexrelid, i.indrelid, i.indisprimary, i.indisreplident, x.relname, i.indisunique, i.indimmediate,
           i.indpred, i.indexprs, i.indisvalid)
SELECT w.place, n.nspname::text, c.relname::text, c.relreplident::text, present.name::text, present.columns, c.relkind = 'p',
       (SELECT array_agg(name::text || E'\\t' || array_to_string(columns, E'\\t') ORDER BY name) FROM indexes i WHERE i.indrelid = c.oid AND i.fits),
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)
FROM wanted w
JOIN pg_class c ON c.oid = w.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN indexes present ON present.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN present.indisprimary WHEN 'i' THEN present.indisreplident END
ORDER BY w.place, n.nspname, c.relname";

/// Tables that are told by whole rows, and have a column that is computed when it is read: such rows cannot be told, and
/// the server refuses users' updates of them once they are published.
const CLOSED: &str = "
SELECT string_agg(w.schema || '.' || w.name, ', ' ORDER BY w.schema, w.name)
FROM unnest($1::text[], $2::text[]) w(schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)";

/// Refuses what would make users' work fail, before anything is published.
pub(super) async fn none_is_closed(client: &Client, tables: &[Arc<Table>]) -> Result<()> {
    let without_key = || tables.iter().filter(|table| table.key.is_none());
    let schemas: Vec<&str> = without_key().map(|table| table.name.schema.as_str()).collect();
    let names: Vec<&str> = without_key().map(|table| table.name.name.as_str()).collect();
    let closed: Option<String> = client.query_one(CLOSED, &[&schemas, &names]).await.map_err(error::from_server)?.get(0);
    let Some(closed) = closed else { return Ok(()) };
    Err(Error::new(
        &codes::TASK_UNSUPPORTED,
        "the server would refuse users' updates: a table without a key has a virtual generated column",
    )
    .at(closed)
    .remedy("give it a primary key, or a unique index over columns that are NOT NULL; or leave it out (select.except)")
    .effect("nothing was changed"))
}

/// Sees that every table's identity suffices, and changes those that do not. What they were is recorded before the
/// first is changed; a table is locked for its own change alone.
pub(super) async fn prepare(client: &Client, publication: &str, tables: &[Arc<Table>]) -> Result<()> {
    let needing = needing(client, tables).await?;
    if needing.is_empty() {
        return Ok(());
    }
    let before = Record::read(client, publication).await?.unwrap_or_default();
    record(&before, &needing).write(client, publication).await?;
    for (place, (row, wanted)) in needing.iter().enumerate() {
        if let Err(error) = change(client, row, wanted).await {
            // what stays as it is needs nothing given back
            if !client.is_closed() {
                record(&before, &needing[..place]).write(client, publication).await?;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// What is known already stands: it is what was there before anything of ours.
fn record(before: &Record, changed: &[(Row, String)]) -> Record {
    let known: HashSet<&TableName> = before.0.iter().map(|(table, _)| table).collect();
    let fresh = changed.iter().map(|(row, _)| (table_of(row), in_words(row.get(3), row.get(4))));
    let fresh = fresh.filter(|(table, _)| !known.contains(table));
    Record(before.0.iter().cloned().chain(fresh).collect())
}

fn table_of(row: &Row) -> TableName {
    TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2))
}

/// Tables (leaves, where there are partitions) whose identity does not suffice, each with the statement that changes it.
pub(super) async fn unfit(client: &Client, tables: &[Arc<Table>]) -> Result<Vec<(TableName, String)>> {
    let statement = |(row, wanted): (Row, String)| {
        let table = table_of(&row);
        let alter = alter(&table, &wanted);
        (table, alter)
    };
    Ok(needing(client, tables).await?.into_iter().map(statement).collect())
}

async fn needing(client: &Client, tables: &[Arc<Table>]) -> Result<Vec<(Row, String)>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.name.as_str()).collect();
    let rows = client.query(IDENTITIES, &[&schemas, &names]).await.map_err(error::from_server)?;
    let needing = rows.into_iter().filter_map(|row| {
        let place = usize::try_from(row.get::<_, i64>(0) - 1).ok()?;
        let wanted = needed(&row, &tables.get(place)?.key_names())?;
        Some((row, wanted))
    });
    Ok(needing.collect())
}

fn alter(table: &TableName, wanted: &str) -> String {
    format!("ALTER TABLE ONLY {} REPLICA IDENTITY {wanted}", quote::table(table))
}

/// The identity this relation must be given; None: what it has suffices.
fn needed(row: &Row, key: &[&str]) -> Option<String> {
    let (present, is_empty_root): (&str, bool) = (row.get(3), row.get(6));
    // a whole row with a virtual column cannot be told
    let by_key_alone = row.get::<_, bool>(8) && !key.is_empty();
    if present == "f" && !by_key_alone || is_empty_root {
        return None;
    }
    if key.is_empty() {
        return Some("FULL".to_owned());
    }
    let columns: Option<Vec<&str>> = row.get(5);
    if columns.is_some_and(|columns| key.iter().all(|name| columns.contains(name))) {
        return None;
    }
    let indexes: Option<Vec<&str>> = row.get(7);
    let exact = indexes.into_iter().flatten().find_map(|index| {
        let mut fields = index.split('\t');
        let name = fields.next()?;
        let columns: Vec<&str> = fields.collect();
        (columns.len() == key.len() && key.iter().all(|column| columns.contains(column))).then_some(name)
    });
    Some(exact.map_or_else(|| "FULL".to_owned(), |index| format!("USING INDEX {}", quote::identifier(index))))
}

async fn change(client: &Client, row: &Row, wanted: &str) -> Result<()> {
    let table = table_of(row);
    let alter = alter(&table, wanted);
    with_short_locks(client, &alter, &format!("table {table}")).await.map_err(|error| {
        if !error.is(&codes::RIGHTS_MISSING) {
            return error;
        }
        Error::new(&codes::RIGHTS_MISSING, "the table's replica identity does not tell its rows apart, and the role may not change it")
            .at(format!("table {table}"))
            .remedy(format!("let the table's owner run: {alter}"))
    })
}
