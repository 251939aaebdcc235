//! Everything a store holds at one moment, cheap to copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_model::{Error, Result, Row, SequenceValue, TableName, TaskName, Value, codes};

use super::godwit::Godwit;
use super::heap::{Heap, Slot};

/// Heaps are shared until one side writes to them: a copy is a snapshot.
#[derive(Clone, Default, Debug)]
pub(super) struct State {
    pub tables: BTreeMap<TableName, Arc<Heap>>,
    pub sequences: BTreeMap<TableName, SequenceValue>,
    /// Pairs (from, to) of foreign keys; described, not enforced.
    pub references: Vec<(TableName, TableName)>,
    /// None until `install`.
    pub godwit: Option<Godwit>,
}

impl State {
    pub fn heap(&self, table: &TableName) -> Result<&Heap> {
        self.tables.get(table).map(Arc::as_ref).ok_or_else(|| missing(table))
    }

    pub fn heap_mut(&mut self, table: &TableName) -> Result<&mut Heap> {
        self.tables.get_mut(table).map(Arc::make_mut).ok_or_else(|| missing(table))
    }

    pub fn apply(&mut self, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Put { table, slot, row } => self.heap_mut(table)?.put(*slot, row.clone()),
            Effect::Remove { table, slot } => {
                self.heap_mut(table)?.remove(*slot);
            }
        }
        Ok(())
    }
}

/// What one transaction does to one slot.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Put { table: TableName, slot: Slot, row: Arc<Row> },
    Remove { table: TableName, slot: Slot },
}

fn missing(table: &TableName) -> Error {
    Error::new(&codes::TABLE_MISSING, format!("table {table} is not there"))
}

/// What a reader sees: one committed state.
#[derive(Clone)]
pub struct View(pub(super) State);

impl View {
    /// All rows of a table, in the order of their slots; empty if there is no such table.
    pub fn rows(&self, table: &TableName) -> Vec<Row> {
        self.0.tables.get(table).map(|heap| heap.rows.values().map(|row| (**row).clone()).collect()).unwrap_or_default()
    }

    /// All rows, sorted by their values: for comparing two stores.
    pub fn sorted_rows(&self, table: &TableName) -> Vec<Row> {
        let mut rows = self.rows(table);
        rows.sort_by_cached_key(|row| super::heap::encode(row.iter(), false));
        rows
    }

    /// Names of a table's columns; none if there is no such table.
    pub fn columns(&self, table: &TableName) -> Vec<String> {
        self.0.tables.get(table).map(|heap| heap.spec.columns.iter().map(|column| column.name.clone()).collect()).unwrap_or_default()
    }

    /// Names of the key's columns, of indexes and of unique constraints, sorted.
    pub fn structure(&self, table: &TableName) -> Option<Vec<String>> {
        let spec = &self.0.tables.get(table)?.spec;
        let key = spec.key.iter().map(|index| format!("key {}", spec.columns[*index].name));
        let uniques = spec.uniques.iter().map(|unique| format!("unique {}", unique.name));
        let indexes = spec.indexes.iter().map(|index| format!("index {index}"));
        let mut all: Vec<String> = key.chain(uniques).chain(indexes).collect();
        all.sort_unstable();
        Some(all)
    }

    pub fn has_table(&self, table: &TableName) -> bool {
        self.0.tables.contains_key(table)
    }

    pub fn count(&self, table: &TableName) -> u64 {
        self.0.tables.get(table).map_or(0, |heap| heap.rows.len() as u64)
    }

    pub fn get(&self, table: &TableName, key: &[Value]) -> Option<Row> {
        let heap = self.0.tables.get(table)?;
        heap.by_key(key).map(|slot| (*heap.rows[&slot]).clone())
    }

    pub fn sequence(&self, name: &TableName) -> Option<SequenceValue> {
        self.0.sequences.get(name).cloned()
    }

    /// The task's checkpoint, as it stood together with these rows.
    pub fn checkpoint(&self, task: &TaskName) -> Option<godwit_model::Checkpoint> {
        self.0.godwit.as_ref()?.leases.get(task)?.checkpoint.clone()
    }

    /// The task's ledger entry, as it stood together with these rows.
    pub fn entry(&self, task: &TaskName, key: &str) -> Option<bytes::Bytes> {
        self.0.godwit.as_ref()?.ledger.get(task)?.get(key).cloned()
    }
}
