//! The re-read list: keys whose rows the log could not tell in full between P0 and P1.
//!
//! It must survive a crash together with the checkpoint that moved past those changes, so it is stored in the ledger, as a
//! batch of deletes in the change log's own codec, one layout a table.

use std::sync::Arc;

use bytes::Bytes;
use godwit_model::{ChangeBatch, Entry, Error, Group, LayoutId, Result, RowBatch, Source, TableMapping, TableWrite, WriteKind, codes};
use godwit_store::{Record, decode, encode};
use hashbrown::HashSet;

use crate::coalesce::{KeyBytes, Reread, key_bytes};
use crate::facts::Facts;
use crate::load::Route;

/// Keys asked for in one statement.
const KEYS_AT_ONCE: usize = 1_000;

/// The fact; none for an empty list. A layout's number stands for the table's name, sorted.
pub(crate) fn entry(list: &[Reread]) -> Option<Entry> {
    if list.is_empty() {
        return None;
    }
    let mut batch = ChangeBatch::default();
    for again in list {
        let name = again.mapping.source.to_string();
        let named = [godwit_model::Value::text(name)].into_iter().chain(again.key.iter().cloned());
        batch.push_delete(LayoutId(0), named, false);
    }
    let mut bytes = Vec::new();
    encode(&Record::Changes(batch), &mut bytes);
    Some(Entry { key: "reread".to_owned(), value: Bytes::from(bytes) })
}

pub(crate) fn from_facts(facts: &Facts, routes: &[Route]) -> Result<Vec<Reread>> {
    let Some(bytes) = facts.reread() else { return Ok(Vec::new()) };
    let lost = || Error::new(&codes::STATE_LOST, "the re-read list cannot be read").at("the task's ledger in the target");
    let Record::Changes(batch) = decode(bytes)? else { return Err(lost()) };
    let mut list = Vec::with_capacity(batch.len());
    for change in &batch.changes {
        let Some([godwit_model::Value::Text(name), key @ ..]) = batch.images(change).old else { return Err(lost()) };
        let route = routes.iter().find(|route| route.table.name.to_string().as_bytes() == &name[..]).ok_or_else(lost)?;
        list.push(Reread { mapping: route.mapping.clone(), key: key.to_vec() });
    }
    Ok(list)
}

/// Reads the rows as they are now; those that are gone are deleted.
pub(crate) async fn group(source: &dyn Source, list: &[Reread], origin: &str) -> Result<Group> {
    let mut group = Group { writes: Vec::new(), origin: origin.to_owned() };
    let mut tables: Vec<(Arc<TableMapping>, RowBatch)> = Vec::new();
    for again in list {
        let found = tables.iter().position(|(mapping, keys)| Arc::ptr_eq(mapping, &again.mapping) && keys.len() < KEYS_AT_ONCE);
        let index = found.unwrap_or_else(|| {
            tables.push((again.mapping.clone(), RowBatch::new(again.key.len())));
            tables.len() - 1
        });
        let keys = &mut tables[index].1;
        if !keys.rows().any(|there| there == again.key) {
            keys.push(again.key.iter().cloned());
        }
    }
    for (mapping, keys) in tables {
        let rows = source.rows(&mapping, &keys).await?;
        let gone = absent(&mapping, &keys, &rows);
        if !gone.is_empty() {
            group.writes.push(TableWrite {
                mapping: mapping.clone(),
                kind: WriteKind::Delete,
                columns: Vec::new(),
                rows: gone,
                strict: false,
            });
        }
        if !rows.is_empty() {
            let columns = (0..mapping.columns.len()).collect();
            group.writes.push(TableWrite { mapping, kind: WriteKind::Upsert, columns, rows, strict: false });
        }
    }
    Ok(group)
}

/// Keys that were asked for and have no row.
fn absent(mapping: &TableMapping, keys: &RowBatch, rows: &RowBatch) -> RowBatch {
    let there: HashSet<KeyBytes> =
        rows.rows().map(|row| key_bytes(&mapping.key.iter().map(|index| row[*index].clone()).collect::<Vec<_>>())).collect();
    let mut gone = RowBatch::new(keys.stride());
    keys.rows().filter(|key| !there.contains(&key_bytes(key))).for_each(|key| gone.push(key.iter().cloned()));
    gone
}
