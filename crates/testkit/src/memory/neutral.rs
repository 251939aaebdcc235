//! Neutral tables and transactions in a memory store.

use godwit_model::{Error, Result, TableName, Value};

use super::spec::TableSpec;
use super::state::View;
use super::store::MemoryStore;
use super::transaction::Transaction;
use crate::bank::Holdings;
use crate::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction, Operation};

/// A store's neutral tables, all in one schema.
#[derive(Clone)]
pub struct NeutralTables {
    store: MemoryStore,
    schema: String,
    tables: Vec<NeutralTable>,
}

impl NeutralTables {
    /// Makes the tables.
    pub fn create(store: &MemoryStore, schema: &str, tables: &[NeutralTable]) -> Self {
        let known = Self::of(store, schema, tables);
        tables.iter().for_each(|table| store.create_table(known.spec(table)));
        known
    }

    /// Tables that are there, or will be.
    pub fn of(store: &MemoryStore, schema: &str, tables: &[NeutralTable]) -> Self {
        NeutralTables { store: store.clone(), schema: schema.to_owned(), tables: tables.to_vec() }
    }

    pub fn name(&self, table: &str) -> TableName {
        TableName::new(&self.schema, table)
    }

    /// How the memory engine defines such a table.
    pub fn spec(&self, table: &NeutralTable) -> TableSpec {
        let add = |spec: TableSpec, (name, kind): (&str, Kind)| match kind {
            Kind::Int => spec.column(name, "int"),
            Kind::Text => spec.column(name, "text"),
            Kind::LargeText => spec.large(name, "text"),
        };
        let columns = table.columns.iter().map(|column| (column.name.as_str(), column.kind));
        let names = |indices: &[usize]| indices.iter().map(|index| table.columns[*index].name.as_str()).collect::<Vec<_>>();
        let spec = columns.fold(TableSpec::new(&self.schema, &table.name), add).key(&names(&table.key));
        if table.unique.is_empty() { spec } else { spec.unique("second", &names(&table.unique)) }
    }

    /// Runs a users' transaction, to its commit or its rollback. An error: nothing happened, or the answer was lost.
    pub fn run(&self, transaction: &NeutralTransaction) -> Result<()> {
        let mut open = self.store.begin()?;
        transaction.operations.iter().try_for_each(|operation| self.operate(&mut open, operation))?;
        if transaction.commit { open.commit() } else { Ok(()) }
    }

    /// What is committed, sorted.
    pub fn rows(&self, table: &str) -> Vec<NeutralRow> {
        self.rows_of(&self.store.view(), table)
    }

    /// What a view shows, sorted; for hooks on commits.
    pub fn rows_of(&self, view: &View, table: &str) -> Vec<NeutralRow> {
        let Ok(known) = self.known(table) else { return Vec::new() };
        let kinds = || known.columns.iter().map(|column| column.kind);
        let read =
            |row: &Vec<Value>| row.iter().zip(kinds()).map(|(value, kind)| kind.read(value).expect("the store checks kinds")).collect();
        let mut rows: Vec<NeutralRow> = view.rows(&self.name(table)).iter().map(read).collect();
        rows.sort();
        rows
    }

    /// The bank's four tables as a view shows them.
    pub fn holdings(&self, view: &View) -> Holdings {
        let accounts = ["accounts_a", "accounts_b", "accounts_c"].map(|table| self.rows_of(view, table));
        Holdings { accounts, journal: self.rows_of(view, "journal") }
    }

    fn known(&self, table: &str) -> Result<&NeutralTable> {
        self.tables.iter().find(|known| known.name == table).ok_or_else(|| Error::internal(format!("no neutral table {table}")))
    }

    fn operate(&self, transaction: &mut Transaction, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Insert { table, row } => transaction.insert(&self.name(table), values(row)),
            Operation::Update { table, find, set } => self.update(transaction, table, find, set),
            Operation::Delete { table, find } if self.known(table)?.has_key() => transaction.delete(&self.name(table), &values(find)),
            Operation::Delete { table, find } => transaction.delete_whole(&self.name(table), &values(find)),
            Operation::Savepoint => transaction.savepoint(),
            Operation::RollBackToSavepoint => transaction.roll_back_to_savepoint(),
            Operation::ReleaseSavepoint => transaction.release_savepoint(),
        }
    }

    fn update(&self, transaction: &mut Transaction, table: &str, find: &[Neutral], set: &[(usize, Neutral)]) -> Result<()> {
        let known = self.known(table)?;
        if known.has_key() {
            let set: Vec<(&str, Value)> = set.iter().map(|(index, value)| (known.columns[*index].name.as_str(), value.value())).collect();
            return transaction.update(&self.name(table), &values(find), &set);
        }
        let mut new = find.to_vec();
        set.iter().for_each(|(index, value)| new[*index] = value.clone());
        transaction.update_whole(&self.name(table), &values(find), values(&new))
    }
}

fn values(row: &[Neutral]) -> Vec<Value> {
    row.iter().map(Neutral::value).collect()
}
