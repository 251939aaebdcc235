//! A copy of neutral tables that replays what a stream told, strictly: a missing or surplus row is a failed promise.

use std::collections::HashMap;

use godwit_model::{ChangeOperation, Table, Value};

use super::collect::{Seen, SeenChange};
use super::harness::Bench;
use crate::neutral::{Neutral, NeutralRow, NeutralTable};

pub(super) struct Copy<'a> {
    bench: &'a dyn Bench,
    tables: Vec<NeutralTable>,
    rows: HashMap<String, Vec<NeutralRow>>,
}

impl<'a> Copy<'a> {
    pub fn new(bench: &'a dyn Bench, tables: &[NeutralTable]) -> Self {
        let rows = tables.iter().map(|table| (table.name.clone(), Vec::new())).collect();
        Copy { bench, tables: tables.to_vec(), rows }
    }

    /// A row read from a snapshot.
    pub fn load(&mut self, table: &str, row: NeutralRow) {
        self.insert(table, row);
    }

    pub fn replay(&mut self, seen: &[Seen]) {
        for change in seen.iter().flat_map(Seen::changes) {
            self.apply(change);
        }
    }

    /// Sorted.
    pub fn rows(&self, table: &str) -> Vec<NeutralRow> {
        let mut rows = self.rows[table].clone();
        rows.sort();
        rows
    }

    fn apply(&mut self, change: &SeenChange) {
        let table = self.tables.iter().find(|table| self.bench.table(&table.name) == change.layout.table);
        let table = table.expect("only selected tables are told").clone();
        let names: Vec<&str> = change.layout.columns.iter().map(|column| column.name.as_str()).collect();
        let expected: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, expected, "the layout names the table's columns");
        match change.operation {
            ChangeOperation::Insert => {
                let row = self.read(&table, &change.new);
                let row = row.into_iter().map(|value| value.expect("an insert says every value")).collect();
                self.insert(&table.name, row);
            }
            ChangeOperation::Update => {
                let index = self.find(&table, change);
                let mut row = self.rows[&table.name][index].clone();
                for (held, new) in row.iter_mut().zip(self.read(&table, &change.new)) {
                    *held = new.unwrap_or_else(|| held.clone());
                }
                self.of(&table.name).remove(index);
                self.insert(&table.name, row);
            }
            ChangeOperation::Delete => {
                let index = self.find(&table, change);
                self.of(&table.name).remove(index);
            }
            ChangeOperation::Truncate => self.of(&table.name).clear(),
        }
    }

    fn insert(&mut self, name: &str, row: NeutralRow) {
        let table = self.tables.iter().find(|table| table.name == name).expect("a known table").clone();
        let key = table.key_of(&row);
        let double = table.has_key() && self.rows[name].iter().any(|held| table.key_of(held) == key);
        assert!(!double, "a row of {name} came twice");
        self.of(name).push(row);
    }

    /// Where the row that the change speaks of lies.
    fn find(&self, table: &NeutralTable, change: &SeenChange) -> usize {
        let image = self.read(table, change.old.as_ref().unwrap_or(&change.new));
        let matches = |row: &NeutralRow| match table.has_key() {
            true => table.key.iter().all(|index| image[*index].as_ref() == Some(&row[*index])),
            false => image.iter().zip(row).all(|(said, held)| said.as_ref().is_none_or(|said| said == held)),
        };
        assert!(table.has_key() || change.full, "without a key old images are full");
        let found = self.rows[&table.name].iter().position(matches);
        found.unwrap_or_else(|| panic!("a change of {} speaks of a row that is not there", table.name))
    }

    /// None: the image does not say.
    fn read(&self, table: &NeutralTable, row: &[Value]) -> Vec<Option<Neutral>> {
        let read =
            |(value, column): (&Value, &crate::neutral::NeutralColumn)| value.is_known().then(|| self.bench.read(column.kind, value));
        row.iter().zip(&table.columns).map(read).collect()
    }

    fn of(&mut self, table: &str) -> &mut Vec<NeutralRow> {
        self.rows.get_mut(table).expect("a known table")
    }
}

/// The engine's tables of the task, in the order of `names`.
pub(super) fn pick(tables: &[Table], bench: &dyn Bench, names: &[&str]) -> Vec<std::sync::Arc<Table>> {
    let find = |name: &&str| tables.iter().find(|table| table.name == bench.table(name)).expect("the table is described");
    names.iter().map(|name| find(name).clone().into()).collect()
}
