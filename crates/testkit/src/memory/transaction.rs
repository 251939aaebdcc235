//! Users' transactions, by key.

use godwit_model::{Error, Result, Row, TableName, Value, codes};

use super::heap::Slot;
use super::open::Open;
use super::store::{CommitAs, Core, MemoryStore};

/// A users' transaction. Every method may fail (a violated key, a row another transaction holds, a lost connection); the
/// row then is as it was and the transaction goes on, except after a lost connection. Dropping it rolls it back.
pub struct Transaction {
    store: MemoryStore,
    open: Option<Open>,
    origin: Option<String>,
}

impl Transaction {
    pub(super) fn begin(store: MemoryStore) -> Result<Self> {
        let open = store.quiet(|core| core.connect().map(|_| core.begin(true)))?;
        Ok(Transaction { store, open: Some(open), origin: None })
    }

    /// Says who writes this, as another replicator would.
    pub fn set_origin(&mut self, origin: &str) {
        self.origin = Some(origin.to_owned());
    }

    /// The table's definition as this transaction sees it.
    pub fn spec(&mut self, table: &TableName) -> Result<super::TableSpec> {
        self.work(|core, open| {
            core.refresh(open)?;
            Ok((*open.state.heap(table)?.spec).clone())
        })
    }

    pub fn insert(&mut self, table: &TableName, row: Row) -> Result<()> {
        self.work(|core, open| core.insert(open, table, row))
    }

    /// Sets columns of the row with this key; key columns may be among them.
    pub fn update(&mut self, table: &TableName, key: &[Value], set: &[(&str, Value)]) -> Result<()> {
        self.work(|core, open| {
            let slot = find(core, open, table, key)?;
            let heap = open.state.heap(table)?;
            let mut row = (*heap.rows[&slot]).clone();
            for (name, value) in set {
                let index = heap.spec.index_of(name).ok_or_else(|| Error::new(&codes::COLUMN_UNKNOWN, format!("no column `{name}`")))?;
                row[index] = value.clone();
            }
            core.replace(open, table, slot, row)
        })
    }

    pub fn delete(&mut self, table: &TableName, key: &[Value]) -> Result<()> {
        self.work(|core, open| {
            let slot = find(core, open, table, key)?;
            core.remove(open, table, slot)
        })
    }

    /// For tables without a key: one row that equals `old` becomes `new`.
    pub fn update_whole(&mut self, table: &TableName, old: &[Value], new: Row) -> Result<()> {
        self.work(|core, open| {
            let slot = find_whole(core, open, table, old)?;
            core.replace(open, table, slot, new)
        })
    }

    /// For tables without a key: one row that equals `old` goes.
    pub fn delete_whole(&mut self, table: &TableName, old: &[Value]) -> Result<()> {
        self.work(|core, open| {
            let slot = find_whole(core, open, table, old)?;
            core.remove(open, table, slot)
        })
    }

    pub fn truncate(&mut self, table: &TableName) -> Result<()> {
        self.work(|core, open| core.truncate(open, table))
    }

    pub fn get(&mut self, table: &TableName, key: &[Value]) -> Result<Option<Row>> {
        self.work(|core, open| {
            core.refresh(open)?;
            let heap = open.state.heap(table)?;
            Ok(heap.by_key(key).map(|slot| (*heap.rows[&slot]).clone()))
        })
    }

    pub fn savepoint(&mut self) -> Result<()> {
        self.work(|core, open| {
            core.savepoint(open);
            Ok(())
        })
    }

    /// Undoes what was done since the last savepoint, and drops it.
    pub fn roll_back_to_savepoint(&mut self) -> Result<()> {
        self.work(|core, open| core.roll_back_to_savepoint(open))
    }

    /// Drops the last savepoint and keeps what was done since.
    pub fn release_savepoint(&mut self) -> Result<()> {
        self.work(|core, open| core.release_savepoint(open))
    }

    pub fn commit(mut self) -> Result<()> {
        let mut open = self.open.take().expect("a transaction ends once");
        let origin = self.origin.take();
        self.store.change(|core| core.commit(&mut open, CommitAs { origin, ..CommitAs::default() }))
    }

    pub fn roll_back(self) {}

    fn work<T>(&mut self, work: impl FnOnce(&mut Core, &mut Open) -> Result<T>) -> Result<T> {
        let open = self.open.as_mut().expect("a transaction ends once");
        self.store.change(|core| {
            core.alive(open.generation)?;
            work(core, open)
        })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            self.store.change(|core| core.abort(&mut open));
        }
    }
}

fn find(core: &mut Core, open: &mut Open, table: &TableName, key: &[Value]) -> Result<Slot> {
    core.refresh(open)?;
    open.state.heap(table)?.by_key(key).ok_or_else(|| absent(table))
}

fn find_whole(core: &mut Core, open: &mut Open, table: &TableName, row: &[Value]) -> Result<Slot> {
    core.refresh(open)?;
    open.state.heap(table)?.by_whole(row).ok_or_else(|| absent(table))
}

fn absent(table: &TableName) -> Error {
    Error::new(&codes::CONFLICT, "no such row").at(format!("table {table}"))
}
