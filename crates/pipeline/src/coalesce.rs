//! Turns changes in source order into few set-based writes with the same outcome. Pure.
//!
//! Changes of one key are merged; then, in a section, all deletes run first, updates next, inserts last, so that a key
//! that moved or came back finds its place free. What cannot be merged without knowing the row at the target (a changed
//! key with an incomplete image, truncate, an inexact key, updates and deletes where there is no key) closes the section
//! and keeps its place in the order.
//!
//! In the convergent window (between P0 and P1, when chunks may already hold later rows) nothing is assumed about what is
//! there: rows are put or removed whole, and a key whose row the log cannot tell in full goes on the re-read list.

use std::sync::Arc;

use godwit_model::{
    Change, ChangeBatch, ChangeOperation, Error, OldImage, Result, Row, RowBatch, TableMapping, TableWrite, Value, WriteKind,
};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::project::Projection;

/// A key on the re-read list: its table and the key's values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reread {
    pub mapping: Arc<TableMapping>,
    pub key: Row,
}

/// What a run of changes becomes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coalesced {
    pub writes: Vec<TableWrite>,
    pub reread: Vec<Reread>,
}

/// Collects changes of one group. Tables are told apart by the address of their mapping.
pub(crate) struct Coalescer {
    convergent: bool,
    section: Section,
    done: Coalesced,
}

/// A key's bytes: equal exactly where the values are the same.
pub(crate) type KeyBytes = Box<[u8]>;

#[derive(Default)]
struct Section {
    /// In the order in which tables were first met.
    tables: Vec<(Arc<TableMapping>, Keys)>,
    /// Rows for tables without a key; whatever else happens to such a table closes the section.
    loose: Vec<(Arc<TableMapping>, RowBatch)>,
}

/// The keys of one table in the order in which they were first met: rows that were written side by side at the source
/// lie side by side at the target, which spares it most of the work on its indexes.
#[derive(Default)]
struct Keys {
    places: HashMap<KeyBytes, usize>,
    pending: Vec<Pending>,
}

/// What becomes of one key at the end of the section.
#[derive(Debug)]
enum Pending {
    /// The row was not there before the section and is not there after it.
    Nothing,
    Insert(Row),
    /// Known columns of the new image; `Unsent` ones keep their value.
    Update {
        key: Row,
        new: Row,
    },
    Delete {
        key: Row,
    },
    /// There before, gone in between, there again.
    Replace {
        key: Row,
        new: Row,
    },
    /// Convergent: the row in full, whatever was there.
    Put(Row),
    /// Convergent: gone, whatever was there.
    Remove {
        key: Row,
    },
}

impl Coalescer {
    pub fn new(convergent: bool) -> Self {
        Coalescer { convergent, section: Section::default(), done: Coalesced::default() }
    }

    pub fn push(&mut self, projection: &Projection, batch: &ChangeBatch, change: &Change) -> Result<()> {
        let images = batch.images(change);
        let mapping = &projection.mapping;
        if change.operation == ChangeOperation::Truncate {
            self.close_section();
            self.single(mapping, WriteKind::Truncate, vec![], RowBatch::new(1));
            return Ok(());
        }
        if !mapping.has_key() {
            return self.push_whole(projection, change, images.old, images.new);
        }
        let new: Option<Row> = (change.operation != ChangeOperation::Delete).then(|| projection.row(images.new).cloned().collect());
        let old_key: Option<Row> = images.old.map(|old| projection.key(old).cloned().collect());
        let new_key: Option<Row> = new.as_ref().map(|row| key_of(mapping, row));
        let key = old_key.clone().or_else(|| new_key.clone()).ok_or_else(|| Error::internal("a change without any key"))?;
        check_key(mapping, &key)?;
        let moved = matches!((&old_key, &new_key), (Some(old), Some(new)) if !same(old, new));
        if let Some(new_key) = &new_key {
            check_key(mapping, new_key)?;
        }
        match (&change.operation, new) {
            (ChangeOperation::Delete, _) => self.delete(mapping, key),
            (ChangeOperation::Insert, Some(new)) => self.insert(mapping, key, new),
            (_, Some(new)) if moved => self.move_key(mapping, key, new),
            (_, Some(new)) => self.update(mapping, key, new),
            (_, None) => Err(Error::internal("an insert or update without a new image")),
        }
    }

    pub fn finish(mut self) -> Coalesced {
        self.close_section();
        self.done
    }

    fn delete(&mut self, mapping: &Arc<TableMapping>, key: Row) -> Result<()> {
        if !self.convergent && !mapping.key_is_exact {
            return self.ordered(mapping, WriteKind::Delete, vec![], key);
        }
        let convergent = self.convergent;
        self.section.table(mapping).follow(key_bytes(&key), |before| match before {
            _ if convergent => Ok(Pending::Remove { key }),
            None | Some(Pending::Update { .. } | Pending::Replace { .. }) => Ok(Pending::Delete { key }),
            Some(Pending::Insert(_)) => Ok(Pending::Nothing),
            Some(other) => Err(impossible(mapping, "delete", &other)),
        })
    }

    fn insert(&mut self, mapping: &Arc<TableMapping>, key: Row, new: Row) -> Result<()> {
        if !self.convergent && !mapping.key_is_exact {
            let columns = known_columns(&new);
            return self.ordered(mapping, WriteKind::Insert, columns, new.into_iter().filter(Value::is_known).collect());
        }
        if self.convergent && !is_complete(&new) {
            // captured before the table had all of its columns
            self.done.reread.push(Reread { mapping: mapping.clone(), key });
            return Ok(());
        }
        let convergent = self.convergent;
        self.section.table(mapping).follow(key_bytes(&key), |before| match before {
            _ if convergent => Ok(Pending::Put(new)),
            None | Some(Pending::Nothing) => Ok(Pending::Insert(new)),
            Some(Pending::Delete { key }) => Ok(Pending::Replace { key, new }),
            Some(other) => Err(impossible(mapping, "insert", &other)),
        })
    }

    fn update(&mut self, mapping: &Arc<TableMapping>, key: Row, new: Row) -> Result<()> {
        if self.convergent {
            return self.update_convergent(mapping, key, new);
        }
        if !mapping.key_is_exact {
            return self.ordered_update(mapping, key, new);
        }
        self.section.table(mapping).follow(key_bytes(&key), |before| match before {
            None => Ok(Pending::Update { key, new }),
            Some(Pending::Insert(base)) => Ok(Pending::Insert(merge(base, new))),
            Some(Pending::Update { key, new: base }) => Ok(Pending::Update { key, new: merge(base, new) }),
            Some(Pending::Replace { key, new: base }) => Ok(Pending::Replace { key, new: merge(base, new) }),
            Some(other) => Err(impossible(mapping, "update", &other)),
        })
    }

    fn update_convergent(&mut self, mapping: &Arc<TableMapping>, key: Row, new: Row) -> Result<()> {
        let pending = self.section.table(mapping);
        let place = key_bytes(&key);
        if is_complete(&new) {
            return pending.follow(place, |_| Ok(Pending::Put(new)));
        } else if let Some(Pending::Put(base)) = pending.get_mut(&place) {
            *base = merge(std::mem::take(base), new);
        } else {
            self.done.reread.push(Reread { mapping: mapping.clone(), key });
        }
        Ok(())
    }

    fn move_key(&mut self, mapping: &Arc<TableMapping>, key: Row, new: Row) -> Result<()> {
        let new_key = key_of(mapping, &new);
        if self.convergent {
            self.delete(mapping, key)?;
            if is_complete(&new) {
                return self.insert(mapping, new_key, new);
            }
            self.done.reread.push(Reread { mapping: mapping.clone(), key: new_key.clone() });
            return self.delete(mapping, new_key);
        }
        if !mapping.key_is_exact {
            return self.ordered_update(mapping, key, new);
        }
        let base = match self.section.table(mapping).get(&key_bytes(&key)) {
            Some(Pending::Insert(row) | Pending::Replace { new: row, .. } | Pending::Update { new: row, .. }) => Some(row.clone()),
            _ => None,
        };
        let full = match base {
            Some(base) => merge(base, new),
            None => new,
        };
        if !is_complete(&full) {
            self.close_section();
            return self.ordered_update(mapping, key, full);
        }
        self.delete(mapping, key)?;
        self.insert(mapping, new_key, full)
    }

    /// One write of its own, in its place.
    fn ordered(&mut self, mapping: &Arc<TableMapping>, kind: WriteKind, columns: Vec<usize>, row: Row) -> Result<()> {
        self.close_section();
        let mut rows = RowBatch::new(row.len());
        rows.push(row);
        self.single(mapping, kind, columns, rows);
        Ok(())
    }

    fn ordered_update(&mut self, mapping: &Arc<TableMapping>, key: Row, new: Row) -> Result<()> {
        let columns = known_columns(&new);
        let row = key.into_iter().chain(new.into_iter().filter(Value::is_known)).collect();
        self.ordered(mapping, WriteKind::Update, columns, row)
    }

    fn push_whole(&mut self, projection: &Projection, change: &Change, old: Option<&[Value]>, new: &[Value]) -> Result<()> {
        let mapping = &projection.mapping;
        let all: Vec<usize> = (0..mapping.columns.len()).collect();
        let new = projection.row(new).cloned();
        let full_old = || match (&change.old, old) {
            (OldImage::Full(_), Some(old)) => Ok(projection.row(old).cloned().collect::<Row>()),
            _ => Err(Error::internal(format!("table {} has no key and its log holds no full old rows", mapping.source))),
        };
        match change.operation {
            ChangeOperation::Insert => {
                self.section.loose(mapping).push(new);
                Ok(())
            }
            ChangeOperation::Delete => {
                let old = full_old()?;
                self.ordered(mapping, WriteKind::DeleteWhole, all, old)
            }
            ChangeOperation::Update => {
                let old = full_old()?;
                let new = merge(old.clone(), new.collect());
                self.ordered(mapping, WriteKind::UpdateWhole, all, old.into_iter().chain(new).collect())
            }
            ChangeOperation::Truncate => Err(Error::internal("a truncate has no row")),
        }
    }

    fn single(&mut self, mapping: &Arc<TableMapping>, kind: WriteKind, columns: Vec<usize>, rows: RowBatch) {
        // a table without a key is copied exactly and needs no convergence
        let strict = (!self.convergent || !mapping.has_key()) && kind != WriteKind::Truncate;
        self.done.writes.push(TableWrite { mapping: mapping.clone(), kind, columns, rows, strict });
    }

    fn close_section(&mut self) {
        let section = std::mem::take(&mut self.section);
        section.write(!self.convergent, &mut self.done.writes);
    }
}

impl Section {
    fn table(&mut self, mapping: &Arc<TableMapping>) -> &mut Keys {
        let found = self.tables.iter().position(|(there, _)| Arc::ptr_eq(there, mapping));
        let index = found.unwrap_or_else(|| {
            self.tables.push((mapping.clone(), Keys::default()));
            self.tables.len() - 1
        });
        &mut self.tables[index].1
    }

    fn loose(&mut self, mapping: &Arc<TableMapping>) -> &mut RowBatch {
        let found = self.loose.iter().position(|(there, _)| Arc::ptr_eq(there, mapping));
        let index = found.unwrap_or_else(|| {
            self.loose.push((mapping.clone(), RowBatch::new(mapping.columns.len())));
            self.loose.len() - 1
        });
        &mut self.loose[index].1
    }

    /// Deletes of all tables, then updates, then inserts.
    fn write(self, strict: bool, writes: &mut Vec<TableWrite>) {
        let mut shelves = Shelves::default();
        for (mapping, keys) in self.tables {
            for what in keys.pending {
                shelves.put(&mapping, what);
            }
        }
        for (mapping, rows) in self.loose {
            let all = (0..mapping.columns.len()).collect();
            shelves.shelves.push((mapping, WriteKind::Insert, all, rows));
        }
        for (mapping, kind, columns, rows) in shelves.in_order() {
            writes.push(TableWrite { mapping, kind, columns, rows, strict });
        }
    }
}

impl Keys {
    fn get(&self, key: &[u8]) -> Option<&Pending> {
        self.places.get(key).map(|place| &self.pending[*place])
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut Pending> {
        self.places.get(key).map(|place| &mut self.pending[*place])
    }

    /// What follows from what was pending for this key.
    fn follow(&mut self, key: KeyBytes, next: impl FnOnce(Option<Pending>) -> Result<Pending>) -> Result<()> {
        match self.places.entry(key) {
            Entry::Occupied(place) => {
                let slot = &mut self.pending[*place.get()];
                *slot = next(Some(std::mem::replace(slot, Pending::Nothing)))?;
            }
            Entry::Vacant(place) => {
                self.pending.push(next(None)?);
                place.insert(self.pending.len() - 1);
            }
        }
        Ok(())
    }
}

type Shelf = (Arc<TableMapping>, WriteKind, Vec<usize>, RowBatch);

/// Rows of the same table, kind and set of columns, side by side.
#[derive(Default)]
struct Shelves {
    shelves: Vec<Shelf>,
    places: HashMap<(usize, u8, Vec<usize>), usize>,
}

impl Shelves {
    fn put(&mut self, mapping: &Arc<TableMapping>, what: Pending) {
        match what {
            Pending::Nothing => {}
            Pending::Insert(new) => self.row(mapping, WriteKind::Insert, known_columns(&new), Vec::new(), new),
            Pending::Put(new) => self.row(mapping, WriteKind::Upsert, known_columns(&new), Vec::new(), new),
            Pending::Update { key, new } => self.row(mapping, WriteKind::Update, settable_columns(mapping, &new), key, new),
            Pending::Delete { key } | Pending::Remove { key } => self.row(mapping, WriteKind::Delete, Vec::new(), key, Vec::new()),
            Pending::Replace { key, new } => {
                self.row(mapping, WriteKind::Delete, Vec::new(), key, Vec::new());
                self.row(mapping, WriteKind::Insert, known_columns(&new), Vec::new(), new);
            }
        }
    }

    fn row(&mut self, mapping: &Arc<TableMapping>, kind: WriteKind, columns: Vec<usize>, key: Row, mut new: Row) {
        let values = columns.iter().map(|index| std::mem::take(&mut new[*index]));
        let width = key.len() + columns.len();
        let place = (Arc::as_ptr(mapping) as usize, kind as u8, columns.clone());
        let row: Row = key.into_iter().chain(values).collect();
        let index = *self.places.entry(place).or_insert_with(|| {
            self.shelves.push((mapping.clone(), kind, columns, RowBatch::new(width)));
            self.shelves.len() - 1
        });
        self.shelves[index].3.push(row);
    }

    fn in_order(mut self) -> Vec<Shelf> {
        self.shelves.sort_by_key(|(_, kind, _, _)| match kind {
            WriteKind::Delete => 0,
            WriteKind::Update => 1,
            _ => 2,
        });
        self.shelves
    }
}

fn key_of(mapping: &TableMapping, row: &[Value]) -> Row {
    mapping.key.iter().map(|index| row[*index].clone()).collect()
}

fn same(left: &[Value], right: &[Value]) -> bool {
    left.iter().zip(right).all(|(left, right)| left.same(right))
}

fn is_complete(row: &[Value]) -> bool {
    row.iter().all(Value::is_known)
}

fn known_columns(row: &[Value]) -> Vec<usize> {
    row.iter().enumerate().filter(|(_, value)| value.is_known()).map(|(index, _)| index).collect()
}

/// Known columns besides the key's; a table that is all key sets its key to itself, so that the row is still counted.
fn settable_columns(mapping: &TableMapping, row: &[Value]) -> Vec<usize> {
    let rest: Vec<usize> = known_columns(row).into_iter().filter(|index| !mapping.key.contains(index)).collect();
    if rest.is_empty() { mapping.key.clone() } else { rest }
}

/// A later image onto an earlier one: what the later does not know keeps the earlier's value.
fn merge(base: Row, later: Row) -> Row {
    base.into_iter().zip(later).map(|(base, later)| if later.is_known() { later } else { base }).collect()
}

fn check_key(mapping: &TableMapping, key: &[Value]) -> Result<()> {
    if key.iter().all(|value| value.is_known() && *value != Value::Null) {
        return Ok(());
    }
    Err(Error::internal(format!("the log of table {} holds a change whose key is not known", mapping.source)))
}

fn impossible(mapping: &TableMapping, operation: &str, pending: &Pending) -> Error {
    let state = match pending {
        Pending::Nothing | Pending::Delete { .. } => "a row that is gone",
        _ => "a row that is there",
    };
    Error::new(&godwit_model::codes::CONFLICT, format!("the source's log holds an {operation} that cannot follow {state}"))
        .at(format!("table {}", mapping.source))
        .remedy("the log contradicts itself, most likely because a key is not what it was taken for; start anew with `run --resync`")
}

/// Tag, length, bytes for each value, so that no two different keys share their bytes.
pub(crate) fn key_bytes(key: &[Value]) -> KeyBytes {
    let mut bytes = Vec::with_capacity(key.len() * 12);
    for value in key {
        let (tag, data): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::Absent => (1, &[]),
            Value::Unsent => (2, &[]),
            Value::Int(number) => {
                bytes.push(3);
                bytes.extend_from_slice(&number.to_le_bytes());
                continue;
            }
            Value::Float(number) => {
                bytes.push(4);
                bytes.extend_from_slice(&number.to_bits().to_le_bytes());
                continue;
            }
            Value::Text(data) => (5, data),
            Value::Bytes(data) => (6, data),
            Value::Native(data) => (7, data),
        };
        bytes.push(tag);
        bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
        bytes.extend_from_slice(data);
    }
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
