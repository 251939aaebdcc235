//! The re-read list: keys whose rows the log could not tell in full between P0 and P1.
//!
//! It must survive a crash together with the checkpoint that moved past those changes, so it is stored in the ledger, as a
//! batch of deletes in the change log's own codec.

use std::sync::Arc;

use bytes::Bytes;
use godwit_model::{
    ChangeBatch, Entry, Error, Group, LayoutId, Result, RowBatch, Source, TableMapping, TableWrite, Value, WriteKind, codes,
};
use godwit_store::{Record, decode, encode};
use hashbrown::{HashMap, HashSet};

use crate::coalesce::{KeyBytes, Reread, key_bytes};
use crate::facts::{self, Facts};
use crate::load::Route;

/// Keys asked for in one statement. Their rows are held at once, and it is large values that bring them here.
const KEYS_AT_ONCE: usize = 100;
/// A list this long is read before P1: it lies in memory, and in one entry of the ledger.
const LONG: usize = 10_000;
/// It cannot be read inside of a transaction. One that adds more keys than this is not followed key by key: the list is
/// given up, and a sweep over all tables finds what it would have named.
const MOST_ADDED: usize = 20_000;

/// Keys to read again, each once.
#[derive(Default)]
pub(crate) struct List {
    keys: Vec<Reread>,
    /// Table (by the address of its mapping) and key.
    listed: HashSet<(usize, KeyBytes)>,
    /// Keys that came and are not in the ledger. A transaction handed over in parts adds some long before its end is
    /// committed.
    unsaved: usize,
    /// The list was given up and the ledger does not say so yet.
    given_up: bool,
}

impl List {
    pub fn add(&mut self, keys: Vec<Reread>) {
        for again in keys {
            if self.listed.insert((Arc::as_ptr(&again.mapping) as usize, key_bytes(&again.key))) {
                // a few bytes of a block would keep all of it in memory
                let key = again.key.iter().map(Value::detached).collect();
                self.keys.push(Reread { key, ..again });
                self.unsaved += 1;
            }
        }
        if self.unsaved > MOST_ADDED {
            *self = List { given_up: true, ..List::default() };
        }
    }

    /// What the next commit must write to the ledger, if anything.
    pub fn unsaved(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if self.given_up {
            entries.extend([facts::done_entry("resync"), facts::removal("reread")]);
        }
        if self.unsaved > 0 {
            entries.extend(entry(&self.keys));
        }
        entries
    }

    /// The commit is done.
    pub fn saved(&mut self) {
        self.unsaved = 0;
        self.given_up = false;
    }

    pub fn keys(&self) -> &[Reread] {
        &self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn is_long(&self) -> bool {
        self.keys.len() >= LONG
    }

    pub fn clear(&mut self) {
        *self = List { given_up: self.given_up, ..List::default() };
    }
}

/// The fact; none for an empty list. Each key follows its table's name.
pub(crate) fn entry(list: &[Reread]) -> Option<Entry> {
    if list.is_empty() {
        return None;
    }
    let mut batch = ChangeBatch::default();
    for again in list {
        let name = facts::distinct(&again.mapping.source);
        let named = [godwit_model::Value::text(name)].into_iter().chain(again.key.iter().cloned());
        batch.push_delete(LayoutId(0), named, false);
    }
    let mut bytes = Vec::new();
    encode(&Record::Changes(batch), &mut bytes);
    Some(Entry { key: "reread".to_owned(), value: Bytes::from(bytes) })
}

/// The fact with these keys besides those that are listed already.
pub(crate) fn more(known: &Facts, routes: &[Route], keys: Vec<Reread>) -> Result<Option<Entry>> {
    let mut list = from_facts(known, routes)?.keys;
    list.extend(keys);
    Ok(entry(&list))
}

pub(crate) fn from_facts(known: &Facts, routes: &[Route]) -> Result<List> {
    let Some(bytes) = known.reread() else { return Ok(List::default()) };
    let lost = || Error::new(&codes::STATE_LOST, "the re-read list cannot be read").at("the task's ledger in the target");
    let Record::Changes(batch) = decode(bytes)? else { return Err(lost()) };
    let mut keys = Vec::with_capacity(batch.len());
    let by_name: HashMap<Vec<u8>, &Route> = routes.iter().map(|route| (facts::distinct(&route.table.name).into_bytes(), route)).collect();
    for change in &batch.changes {
        let Some([godwit_model::Value::Text(name), key @ ..]) = batch.images(change).old else { return Err(lost()) };
        let route = by_name.get(&name[..]).ok_or_else(lost)?;
        keys.push(Reread { mapping: route.mapping.clone(), key: key.to_vec() });
    }
    let mut list = List::default();
    for key in keys {
        list.add(vec![key]);
        list.saved();
    }
    Ok(list)
}

/// The keys table by table, few at a time.
pub(crate) fn batches(list: &[Reread]) -> Vec<(Arc<TableMapping>, RowBatch)> {
    let mut batches: Vec<(Arc<TableMapping>, RowBatch)> = Vec::new();
    // the last batch of each table, by the address of its mapping
    let mut last: HashMap<usize, usize> = HashMap::new();
    for again in list {
        let table = Arc::as_ptr(&again.mapping) as usize;
        let open = last.get(&table).copied().filter(|place| batches[*place].1.len() < KEYS_AT_ONCE);
        let place = open.unwrap_or_else(|| {
            batches.push((again.mapping.clone(), RowBatch::new(again.key.len())));
            batches.len() - 1
        });
        last.insert(table, place);
        batches[place].1.push(again.key.iter().cloned());
    }
    batches
}

/// Deletes the rows of these keys.
pub(crate) fn removal(mapping: Arc<TableMapping>, keys: RowBatch, origin: &str) -> Group {
    let delete = TableWrite { mapping, kind: WriteKind::Delete, columns: Vec::new(), rows: keys, strict: false };
    Group { writes: vec![delete], origin: origin.to_owned() }
}

/// Reads the rows as they are now; those that are gone are deleted.
pub(crate) async fn group(source: &dyn Source, mapping: Arc<TableMapping>, keys: RowBatch, origin: &str) -> Result<Group> {
    let rows = source.rows(&mapping, &keys).await?;
    let mut group = removal(mapping.clone(), absent(&mapping, &keys, &rows), origin);
    group.writes.retain(|write| !write.rows.is_empty());
    if !rows.is_empty() {
        let columns = (0..mapping.columns.len()).collect();
        group.writes.push(TableWrite { mapping, kind: WriteKind::Upsert, columns, rows, strict: false });
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

#[cfg(test)]
mod tests {
    use godwit_model::{ColumnMapping, TableName};

    use super::*;

    fn mapping() -> TableMapping {
        let name = TableName::new("s", "t");
        let column = ColumnMapping { source: "id".into(), target: "id".into(), type_name: "int".into() };
        TableMapping { source: name.clone(), target: name, columns: vec![column], key: vec![0], key_is_exact: true, has_uniques: false }
    }

    #[test]
    fn keys_of_a_part_without_an_end_are_saved_by_the_commit_that_follows() {
        let key = Reread { mapping: Arc::new(mapping()), key: vec![Value::Int(1)] };
        let mut list = List::default();
        list.add(vec![key.clone()]);
        // the last part of the transaction brings nothing new
        list.add(vec![]);
        list.add(vec![key]);
        assert_eq!(list.unsaved(), [entry(list.keys()).unwrap()]);
        list.saved();
        assert_eq!(list.unsaved(), []);
        assert_eq!(list.keys().len(), 1);
    }

    #[test]
    fn a_listed_key_keeps_no_block_in_memory() {
        let block = bytes::Bytes::from(vec![b'x'; 1 << 18]);
        let mapping = Arc::new(mapping());
        let mut list = List::default();
        list.add(vec![Reread { mapping, key: vec![Value::Native(block.slice(..8))] }]);
        assert!(block.is_unique(), "nothing else holds on to the block");
    }

    #[test]
    fn a_list_that_grows_too_long_inside_a_transaction_becomes_a_sweep() {
        let mapping = Arc::new(mapping());
        let key = |id| Reread { mapping: mapping.clone(), key: vec![Value::Int(id)] };
        let mut list = List::default();
        list.add((0..MOST_ADDED as i64 + 1).map(key).collect());
        list.add(vec![key(-1)]);
        assert_eq!(list.keys().len(), 1);
        let expected = [facts::done_entry("resync"), facts::removal("reread"), entry(list.keys()).unwrap()];
        assert_eq!(list.unsaved(), expected);
        list.saved();
        assert_eq!(list.unsaved(), []);
    }
}
