//! Runs one set-based write in a transaction under way.

use godwit_model::{Error, Result, Row, TableWrite, Value, WriteKind, codes};

use super::heap::{Heap, Slot};
use super::open::Open;
use super::snapshot::columns;
use super::store::Core;

/// How many rows it touched. After an error part of it may have been done: the caller rolls back.
pub(super) fn run(core: &mut Core, open: &mut Open, write: &TableWrite) -> Result<u64> {
    core.refresh(open)?;
    let plan = Plan::of(open.state.heap(&write.mapping.target)?, write)?;
    if write.kind == WriteKind::Truncate {
        core.truncate(open, &write.mapping.target)?;
        return Ok(0);
    }
    let mut touched = 0;
    for row in write.rows.rows() {
        touched += u64::from(plan.run(core, open, row)?);
    }
    Ok(touched)
}

struct Plan<'a> {
    write: &'a TableWrite,
    /// Where each of the write's columns lies in the target table.
    columns: Vec<usize>,
    /// Values before those of `columns` in each row.
    leading: usize,
    /// Places of the key's columns among the write's columns, in the key's order, where all are there.
    key: Option<Vec<usize>>,
}

impl<'a> Plan<'a> {
    fn of(heap: &Heap, write: &'a TableWrite) -> Result<Self> {
        let mapping = &write.mapping;
        let columns = columns(heap, write.columns.iter().map(|index| mapping.columns[*index].target.as_str()))?;
        let leading = match write.kind {
            WriteKind::Update | WriteKind::Delete => mapping.key.len(),
            WriteKind::UpdateWhole => columns.len(),
            WriteKind::Insert | WriteKind::Upsert | WriteKind::DeleteWhole | WriteKind::Truncate => 0,
        };
        let place = |key: &usize| write.columns.iter().position(|column| column == key);
        let key = mapping.key.iter().map(place).collect::<Option<Vec<_>>>();
        let needs_key = matches!(write.kind, WriteKind::Upsert | WriteKind::Update | WriteKind::Delete);
        if needs_key && (mapping.key.is_empty() || (write.kind == WriteKind::Upsert && key.is_none())) {
            return Err(Error::internal(format!("a write by key to table {} without its key", mapping.target)));
        }
        if needs_key && heap.spec.key.is_empty() {
            return Err(Error::new(&codes::SERVER_REFUSED, format!("table {} has no key to find rows by", mapping.target)));
        }
        if write.kind != WriteKind::Truncate && !write.rows.is_empty() && write.rows.stride() != leading + columns.len() {
            return Err(Error::internal(format!("a write to table {} has rows of the wrong width", mapping.target)));
        }
        Ok(Plan { write, columns, leading, key })
    }

    fn run(&self, core: &mut Core, open: &mut Open, row: &[Value]) -> Result<bool> {
        core.refresh(open)?;
        let table = &self.write.mapping.target;
        let (leading, values) = row.split_at(self.leading);
        let heap = open.state.heap(table)?;
        let found = self.find(heap, leading, values);
        match (self.write.kind, found) {
            (WriteKind::Insert, _) | (WriteKind::Upsert, None) => {
                let new = self.filled(vec![Value::Null; heap.spec.columns.len()], values);
                core.insert(open, table, new).map(|()| true)
            }
            (WriteKind::Upsert | WriteKind::Update | WriteKind::UpdateWhole, Some(slot)) => {
                let new = self.filled((*heap.rows[&slot]).clone(), values);
                core.replace(open, table, slot, new).map(|()| true)
            }
            (WriteKind::Delete | WriteKind::DeleteWhole, Some(slot)) => core.remove(open, table, slot).map(|()| true),
            (_, None) | (WriteKind::Truncate, _) => Ok(false),
        }
    }

    fn find(&self, heap: &Heap, leading: &[Value], values: &[Value]) -> Option<Slot> {
        match self.write.kind {
            WriteKind::Insert | WriteKind::Truncate => None,
            WriteKind::Upsert => {
                let key: Row = self.key.iter().flatten().map(|place| values[*place].clone()).collect();
                heap.by_key(&key)
            }
            WriteKind::Update | WriteKind::Delete => heap.by_key(leading),
            WriteKind::UpdateWhole => self.find_whole(heap, leading),
            WriteKind::DeleteWhole => self.find_whole(heap, values),
        }
    }

    fn find_whole(&self, heap: &Heap, old: &[Value]) -> Option<Slot> {
        let equal = |row: &Row| self.columns.iter().zip(old).all(|(index, value)| row[*index].same(value));
        heap.rows.iter().find(|(_, row)| equal(row)).map(|(slot, _)| *slot)
    }

    fn filled(&self, mut row: Row, values: &[Value]) -> Row {
        for (index, value) in self.columns.iter().zip(values) {
            row[*index] = value.clone();
        }
        row
    }
}
