//! Memory stores for the contract suites, and for whoever wants to see how a harness is written.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{SequenceValue, Source, TableName, Target, Task, Value};

use super::neutral::NeutralTables;
use super::source::SourceOptions;
use super::store::MemoryStore;
use crate::contract::{Bench, Harness, Reshape};
use crate::neutral::{Kind, NeutralRow, NeutralTable, NeutralTransaction};
use crate::task;

/// Makes memory stores whose sources behave as `options` say.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryHarness {
    pub options: SourceOptions,
}

struct MemoryBench {
    store: MemoryStore,
    tables: NeutralTables,
    options: SourceOptions,
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn fresh(&self, tables: &[NeutralTable]) -> Box<dyn Bench> {
        let store = MemoryStore::new("bench", 7);
        let tables = NeutralTables::create(&store, "main", tables);
        Box::new(MemoryBench { store, tables, options: self.options })
    }
}

#[async_trait]
impl Bench for MemoryBench {
    fn task(&self) -> Task {
        task::task("bench")
    }

    fn source(&self) -> Arc<dyn Source> {
        super::source_with(&self.store, &task::name("bench"), self.options)
    }

    fn target(&self) -> Arc<dyn Target> {
        super::target(&self.store)
    }

    fn table(&self, name: &str) -> TableName {
        self.tables.name(name)
    }

    async fn run(&self, transaction: &NeutralTransaction) {
        self.tables.run(transaction).expect("users are not refused");
    }

    async fn rows(&self, table: &NeutralTable) -> Vec<NeutralRow> {
        self.tables.rows(&table.name)
    }

    async fn reshape(&self, table: &str, change: &Reshape) -> bool {
        let name = self.tables.name(table);
        let word = |kind: Kind| if kind == Kind::Int { "int" } else { "text" };
        let done = match change {
            Reshape::Add(column, kind, fill) => self.store.add_column(&name, column, word(*kind), &fill.value()),
            Reshape::Drop(column) => self.store.drop_column(&name, column),
            Reshape::Rename(old, new) => self.store.rename_column(&name, old, new),
            Reshape::Retype(column, kind) => {
                let mut spec = self.store.spec(&name);
                let index = spec.index_of(column).expect("a column of the table's own");
                word(*kind).clone_into(&mut spec.columns[index].type_name);
                self.store.alter_unseen(spec, |row| {
                    let mut row = row.clone();
                    row[index] = Value::Null;
                    row
                })
            }
        };
        done.expect("users are not refused");
        true
    }

    async fn sequence(&self) -> Option<TableName> {
        let name = self.tables.name("numbers");
        self.store.set_sequence(SequenceValue { name: name.clone(), last: Value::Int(1), called: false });
        Some(name)
    }

    async fn sequence_value(&self, name: &TableName) -> i64 {
        match self.store.view().sequence(name).expect("the sequence is there").last {
            Value::Int(last) => last,
            other => panic!("{other:?} is no number"),
        }
    }
}
