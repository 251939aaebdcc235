//! A transaction under way: what it did so far, what it locks, what it sees.
//!
//! It sees what is committed plus its own effects (as READ COMMITTED does) and holds the key of every row it touched, so
//! that its effects still fit when it commits. Whoever wants a key that another holds is refused at once, never kept waiting.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{ChangeOperation, Error, Result, Row, TableName, TransactionId, Value, codes};

use super::heap::{Heap, Slot, encode};
use super::log::{RowChange, What};
use super::state::{Effect, State};
use super::store::Core;

/// A table, which of its indexes (none: the slot itself), and what is locked there.
pub(super) type LockKey = (TableName, Option<usize>, Vec<u8>);

/// Who holds what, and which slots are spoken for.
#[derive(Default, Debug)]
pub(super) struct Locks {
    held: HashMap<LockKey, TransactionId>,
    reserved: HashMap<(TableName, Slot), TransactionId>,
}

impl Locks {
    pub fn release(&mut self, transaction: TransactionId) {
        self.held.retain(|_, holder| *holder != transaction);
        self.reserved.retain(|_, holder| *holder != transaction);
    }

    pub fn clear(&mut self) {
        self.held.clear();
        self.reserved.clear();
    }

    pub fn touches(&self, table: &TableName) -> bool {
        self.held.keys().any(|(locked, _, _)| locked == table)
    }

    fn take(&mut self, key: LockKey, transaction: TransactionId) -> Result<()> {
        let holder = *self.held.entry(key.clone()).or_insert(transaction);
        if holder == transaction {
            return Ok(());
        }
        Err(Error::new(&codes::RETRYABLE, "another transaction holds this row").at(format!("table {}", key.0)))
    }
}

#[derive(Debug)]
pub(super) struct Open {
    pub transaction: TransactionId,
    pub generation: u64,
    pub effects: Vec<Effect>,
    /// What is committed as of `base`, plus `effects`.
    pub state: State,
    base: u64,
    savepoints: Vec<Savepoint>,
    /// Users meet read-only tables, Godwit does not.
    pub user: bool,
}

#[derive(Debug)]
struct Savepoint {
    part: TransactionId,
    /// Parts of savepoints that were released inside this one: they share its fate.
    released: Vec<TransactionId>,
    effects: usize,
}

impl Open {
    fn part(&self) -> TransactionId {
        self.savepoints.last().map_or(self.transaction, |savepoint| savepoint.part)
    }

    pub fn has_savepoint(&self) -> bool {
        !self.savepoints.is_empty()
    }
}

impl Core {
    pub fn begin(&mut self, user: bool) -> Open {
        let transaction = self.next_transaction();
        self.open.insert(transaction.0);
        Open {
            transaction,
            generation: self.generation,
            effects: Vec::new(),
            state: self.committed.clone(),
            base: self.version,
            savepoints: Vec::new(),
            user,
        }
    }

    /// Brings what the transaction sees up to date.
    pub fn refresh(&mut self, open: &mut Open) -> Result<()> {
        self.alive(open.generation)?;
        if open.base != self.version {
            open.state = self.committed.clone();
            for effect in &open.effects {
                open.state.apply(effect)?;
            }
            open.base = self.version;
        }
        Ok(())
    }

    pub fn insert(&mut self, open: &mut Open, table: &TableName, row: Row) -> Result<()> {
        self.writable(open, table)?;
        let heap = open.state.heap(table)?;
        heap.check(&row, None)?;
        self.lock_row(open.transaction, heap, &row, None)?;
        let slot = self.free_slot(open.transaction, table, heap);
        self.log_change(open, table, ChangeOperation::Insert, None, Some(&row))?;
        self.perform(open, Effect::Put { table: table.clone(), slot, row: Arc::new(row) })
    }

    /// The row moves to another slot.
    pub fn replace(&mut self, open: &mut Open, table: &TableName, old: Slot, row: Row) -> Result<()> {
        self.writable(open, table)?;
        let heap = open.state.heap(table)?;
        let before = heap.rows.get(&old).cloned().ok_or_else(|| Error::internal("no row in this slot"))?;
        self.lock_row(open.transaction, heap, &before, Some(old))?;
        heap.check(&row, Some(old))?;
        self.lock_row(open.transaction, heap, &row, None)?;
        let slot = self.free_slot(open.transaction, table, heap);
        self.log_change(open, table, ChangeOperation::Update, Some(&before), Some(&row))?;
        self.perform(open, Effect::Remove { table: table.clone(), slot: old })?;
        self.perform(open, Effect::Put { table: table.clone(), slot, row: Arc::new(row) })
    }

    pub fn remove(&mut self, open: &mut Open, table: &TableName, slot: Slot) -> Result<()> {
        self.writable(open, table)?;
        let heap = open.state.heap(table)?;
        let before = heap.rows.get(&slot).cloned().ok_or_else(|| Error::internal("no row in this slot"))?;
        self.lock_row(open.transaction, heap, &before, Some(slot))?;
        self.log_change(open, table, ChangeOperation::Delete, Some(&before), None)?;
        self.perform(open, Effect::Remove { table: table.clone(), slot })
    }

    /// Refused while another transaction has touched the table.
    pub fn truncate(&mut self, open: &mut Open, table: &TableName) -> Result<()> {
        self.writable(open, table)?;
        let heap = open.state.heap(table)?;
        let slots: Vec<(Slot, Arc<Row>)> = heap.rows.iter().map(|(slot, row)| (*slot, row.clone())).collect();
        for (slot, row) in &slots {
            self.lock_row(open.transaction, heap, row, Some(*slot))?;
        }
        self.log_change(open, table, ChangeOperation::Truncate, None, None)?;
        for (slot, _) in slots {
            self.perform(open, Effect::Remove { table: table.clone(), slot })?;
        }
        Ok(())
    }

    pub fn savepoint(&mut self, open: &mut Open) {
        let part = self.next_transaction();
        open.savepoints.push(Savepoint { part, released: Vec::new(), effects: open.effects.len() });
    }

    /// Undoes what was done since the last savepoint, and drops it.
    pub fn roll_back_to_savepoint(&mut self, open: &mut Open) -> Result<()> {
        let savepoint = open.savepoints.pop().ok_or_else(|| Error::internal("no savepoint to roll back to"))?;
        if open.effects.len() > savepoint.effects {
            for part in savepoint.released.into_iter().chain([savepoint.part]) {
                self.log.append(open.transaction, part, What::Abort);
            }
        }
        open.effects.truncate(savepoint.effects);
        open.base = u64::MAX; // what it sees is made anew
        self.refresh(open)
    }

    /// Drops the last savepoint and keeps what was done since.
    pub fn release_savepoint(&mut self, open: &mut Open) -> Result<()> {
        let savepoint = open.savepoints.pop().ok_or_else(|| Error::internal("no savepoint to release"))?;
        if let Some(parent) = open.savepoints.last_mut() {
            parent.released.extend(savepoint.released);
            parent.released.push(savepoint.part);
        }
        Ok(())
    }

    pub fn abort(&mut self, open: &mut Open) {
        if open.generation == self.generation && self.open.remove(&open.transaction.0) {
            if !open.effects.is_empty() {
                self.log.append(open.transaction, open.transaction, What::Abort);
            }
            self.locks.release(open.transaction);
            self.log.trim();
        }
    }

    fn perform(&mut self, open: &mut Open, effect: Effect) -> Result<()> {
        open.state.apply(&effect)?;
        open.effects.push(effect);
        Ok(())
    }

    fn writable(&mut self, open: &mut Open, table: &TableName) -> Result<()> {
        self.refresh(open)?;
        if open.user && self.read_only.contains(table) {
            return Err(Error::new(&codes::SERVER_REFUSED, format!("table {table} is read-only")));
        }
        Ok(())
    }

    /// Takes the row's key, unique values and (for a row that is there) its slot.
    fn lock_row(&mut self, transaction: TransactionId, heap: &Heap, row: &Row, slot: Option<Slot>) -> Result<()> {
        let table = &heap.spec.name;
        for (index, key) in heap.keys_of(row) {
            self.locks.take((table.clone(), Some(index), key), transaction)?;
        }
        match slot {
            Some(slot) => self.locks.take((table.clone(), None, slot.to_be_bytes().to_vec()), transaction),
            None => Ok(()),
        }
    }

    /// A slot where no row is: mostly one that a dead row left, sometimes a new one at the end.
    fn free_slot(&mut self, transaction: TransactionId, table: &TableName, heap: &Heap) -> Slot {
        /// Tries before a new slot at the end is taken; keeps the heap about half full.
        const TRIES: u32 = 4;
        let committed = self.committed.tables.get(table).map_or(0, |heap| heap.end());
        let end = committed.max(heap.end());
        let taken = |core: &Core, slot: Slot| {
            let before = core.committed.tables.get(table).is_some_and(|heap| heap.rows.contains_key(&slot));
            before || heap.rows.contains_key(&slot) || core.locks.reserved.contains_key(&(table.clone(), slot))
        };
        let mut slot = end;
        for _ in 0..TRIES {
            let tried = self.random.u64(0..end + 2);
            if !taken(self, tried) {
                slot = tried;
                break;
            }
        }
        while taken(self, slot) {
            slot += 1;
        }
        self.locks.reserved.insert((table.clone(), slot), transaction);
        slot
    }

    fn log_change(
        &mut self,
        open: &Open,
        table: &TableName,
        operation: ChangeOperation,
        old: Option<&Row>,
        new: Option<&Row>,
    ) -> Result<()> {
        let heap = open.state.heap(table)?;
        let layout = self.log.layout(&heap.spec);
        let images = images(heap, old, new);
        let change = RowChange { layout, operation, old: images.0, new: images.1 };
        self.log.append(open.transaction, open.part(), What::Change(change));
        Ok(())
    }
}

/// What the log says of a row before and after: old keys only where they are needed, unchanged large values not at all.
fn images(heap: &Heap, old: Option<&Row>, new: Option<&Row>) -> (Option<Row>, Option<Row>) {
    let spec = &heap.spec;
    let same_key = |old: &Row, new: &Row| {
        let key = |row: &Row| encode(spec.key.iter().map(|index| &row[*index]), false);
        key(old) == key(new)
    };
    let old_image = old.and_then(|old| {
        if spec.has_full_images() {
            return Some(old.clone());
        }
        if new.is_some_and(|new| same_key(old, new)) {
            return None;
        }
        let only_key = |(index, value): (usize, &Value)| if spec.key.contains(&index) { value.clone() } else { Value::Absent };
        Some(old.iter().enumerate().map(only_key).collect())
    });
    let new_image = new.map(|new| {
        let mut image = new.clone();
        for (index, column) in spec.columns.iter().enumerate() {
            let unchanged = old.is_some_and(|old| old[index].same(&new[index])) && new[index] != Value::Null;
            if unchanged && spec.large.contains(&column.name) && !spec.key.contains(&index) {
                image[index] = Value::Unsent;
            }
        }
        image
    });
    (old_image, new_image)
}
