//! Turns changes in source order into few set-based writes with the same outcome. Pure.
//!
//! Changes of one key are merged; then, in a section, all deletes run first, updates next, inserts last, so that a key
//! that moved or came back finds its place free. What cannot be merged without knowing the row at the target (a changed
//! key with an incomplete image, truncate, an inexact key, updates and deletes where there is no key) closes the section
//! and keeps its place in the order.
//!
//! In the convergent window (between P0 and P1, when chunks may already hold later rows) nothing is assumed about what is
//! there: rows are put or removed whole, and a key whose row the log cannot tell in full goes on the re-read list.
//!
//! Where the list was read at the first marker and P1 moved behind that moment, only rows that were read are of a later
//! moment, and each has the values that the log does not send until P1: an update with unsent values is written as far as
//! it is known. Else users who never rest would list rows faster than the list is read, and P1 would never come.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use godwit_model::{
    Change, ChangeBatch, ChangeOperation, Error, OldImage, Result, Row, RowBatch, TableMapping, TableWrite, Value, WriteKind,
};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

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

/// What is known of the target's rows while a group is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footing {
    /// They are the source's at this place of its log.
    Strict,
    /// Any of them may be of another moment.
    Convergent,
    /// Those that were read again behind the first marker may be of a later moment, but of none behind P1; those on the
    /// re-read list may be anything; all others are exact.
    Closing,
}

/// Collects changes of one group, which it only refers to. Tables are told apart by the address of their mapping.
pub(crate) struct Coalescer<'a> {
    convergent: bool,
    closing: bool,
    section: Section<'a>,
    done: Coalesced,
}

/// A key's bytes: equal exactly where the values are the same.
pub(crate) type KeyBytes = Box<[u8]>;

#[derive(Default)]
struct Section<'a> {
    /// In the order in which tables were first met.
    tables: Vec<(Arc<TableMapping>, Keys<'a>)>,
    /// Where each mapping stands in `tables`, by its address.
    places: HashMap<usize, usize>,
    /// Rows for tables without a key; whatever else happens to such a table closes the section.
    loose: Vec<(Arc<TableMapping>, RowBatch)>,
}

/// The keys of one table in the order in which they were first met: rows that were written side by side at the source
/// lie side by side at the target, which spares it most of the work on its indexes.
#[derive(Default)]
struct Keys<'a> {
    hashing: DefaultHashBuilder,
    /// Indices into `met`, by the key's hash.
    places: HashTable<usize>,
    met: Vec<Met<'a>>,
}

struct Met<'a> {
    hash: u64,
    key: Key<'a>,
    what: Pending<'a>,
}

/// A key, as it stands in an image.
#[derive(Clone, Copy)]
struct Key<'a> {
    projection: &'a Projection,
    image: &'a [Value],
}

/// The mapped columns of a row.
enum Image<'a> {
    /// As one change tells it.
    Told { projection: &'a Projection, image: &'a [Value] },
    /// Put together of several.
    Merged(Row),
}

/// What becomes of one key at the end of the section.
enum Pending<'a> {
    /// The row was not there before the section and is not there after it.
    Nothing,
    Insert(Image<'a>),
    /// Known columns of the new image; `Unsent` ones keep their value.
    Update(Image<'a>),
    Delete,
    /// There before, gone in between, there again.
    Replace(Image<'a>),
    /// Convergent: the row in full, whatever was there.
    Put(Image<'a>),
    /// Convergent: gone, whatever was there.
    Remove,
}

impl<'a> Coalescer<'a> {
    pub fn new(footing: Footing) -> Self {
        let (convergent, closing) = (footing != Footing::Strict, footing == Footing::Closing);
        Coalescer { convergent, closing, section: Section::default(), done: Coalesced::default() }
    }

    pub fn push(&mut self, projection: &'a Projection, batch: &'a ChangeBatch, change: &'a Change) -> Result<()> {
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
        let old_key = images.old.map(|image| Key { projection, image });
        let new_key = (change.operation != ChangeOperation::Delete).then_some(Key { projection, image: images.new });
        let key = old_key.or(new_key).ok_or_else(|| Error::internal("a change without any key"))?;
        check_key(mapping, key)?;
        if let Some(new_key) = new_key {
            check_key(mapping, new_key)?;
        }
        let moved = matches!((old_key, new_key), (Some(old), Some(new)) if !old.same(new));
        let new = Image::Told { projection, image: images.new };
        match (&change.operation, new_key) {
            (ChangeOperation::Delete, _) => self.delete(mapping, key),
            (ChangeOperation::Insert, Some(_)) => self.insert(mapping, key, new),
            (_, Some(new_key)) if moved => self.move_key(mapping, key, new_key, new),
            (_, Some(_)) => self.update(mapping, key, new),
            (_, None) => Err(Error::internal("an insert or update without a new image")),
        }
    }

    pub fn finish(mut self) -> Coalesced {
        self.close_section();
        self.done
    }

    fn delete(&mut self, mapping: &Arc<TableMapping>, key: Key<'a>) -> Result<()> {
        if !self.convergent && !mapping.key_is_exact {
            return self.ordered(mapping, WriteKind::Delete, vec![], key.row());
        }
        let convergent = self.convergent;
        self.section.table(mapping).follow(key, |before| match before {
            _ if convergent => Ok(Pending::Remove),
            None | Some(Pending::Update(_) | Pending::Replace(_)) => Ok(Pending::Delete),
            Some(Pending::Insert(_)) => Ok(Pending::Nothing),
            Some(other) => Err(impossible(mapping, "delete", &other)),
        })
    }

    fn insert(&mut self, mapping: &Arc<TableMapping>, key: Key<'a>, new: Image<'a>) -> Result<()> {
        if !self.convergent && !mapping.key_is_exact {
            let columns = new.known_columns().collect();
            return self.ordered(mapping, WriteKind::Insert, columns, new.known_values());
        }
        if self.convergent && !new.is_complete() {
            // captured before the table had all of its columns
            self.done.reread.push(Reread { mapping: mapping.clone(), key: key.row() });
            return Ok(());
        }
        let convergent = self.convergent;
        self.section.table(mapping).follow(key, |before| match before {
            _ if convergent => Ok(Pending::Put(new)),
            None | Some(Pending::Nothing) => Ok(Pending::Insert(new)),
            Some(Pending::Delete) => Ok(Pending::Replace(new)),
            Some(other) => Err(impossible(mapping, "insert", &other)),
        })
    }

    fn update(&mut self, mapping: &Arc<TableMapping>, key: Key<'a>, new: Image<'a>) -> Result<()> {
        if self.convergent {
            return self.update_convergent(mapping, key, new);
        }
        if !mapping.key_is_exact {
            return self.ordered_update(mapping, key, &new);
        }
        self.section.table(mapping).follow(key, |before| match before {
            None => Ok(Pending::Update(new)),
            Some(Pending::Insert(base)) => Ok(Pending::Insert(base.merge(new))),
            Some(Pending::Update(base)) => Ok(Pending::Update(base.merge(new))),
            Some(Pending::Replace(base)) => Ok(Pending::Replace(base.merge(new))),
            Some(other) => Err(impossible(mapping, "update", &other)),
        })
    }

    fn update_convergent(&mut self, mapping: &Arc<TableMapping>, key: Key<'a>, new: Image<'a>) -> Result<()> {
        let closing = self.closing && !new.has_absent();
        let pending = self.section.table(mapping);
        if new.is_complete() {
            return pending.follow(key, |_| Ok(Pending::Put(new)));
        }
        match pending.get_mut(key) {
            Some(what @ (Pending::Put(_) | Pending::Update(_))) if closing || matches!(what, Pending::Put(_)) => {
                *what = match std::mem::replace(what, Pending::Nothing) {
                    Pending::Put(base) => Pending::Put(base.merge(new)),
                    Pending::Update(base) => Pending::Update(base.merge(new)),
                    other => other,
                };
            }
            None if closing => pending.follow(key, |_| Ok(Pending::Update(new)))?,
            _ => self.done.reread.push(Reread { mapping: mapping.clone(), key: key.row() }),
        }
        Ok(())
    }

    fn move_key(&mut self, mapping: &Arc<TableMapping>, key: Key<'a>, new_key: Key<'a>, new: Image<'a>) -> Result<()> {
        if self.convergent {
            self.delete(mapping, key)?;
            if new.is_complete() {
                return self.insert(mapping, new_key, new);
            }
            self.done.reread.push(Reread { mapping: mapping.clone(), key: new_key.row() });
            return self.delete(mapping, new_key);
        }
        if !mapping.key_is_exact {
            return self.ordered_update(mapping, key, &new);
        }
        let full = match self.section.table(mapping).get_mut(key) {
            Some(Pending::Insert(base) | Pending::Replace(base) | Pending::Update(base)) => base.merge(new),
            _ => new,
        };
        if !full.is_complete() {
            self.close_section();
            return self.ordered_update(mapping, key, &full);
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

    fn ordered_update(&mut self, mapping: &Arc<TableMapping>, key: Key<'a>, new: &Image<'a>) -> Result<()> {
        let row = key.values().cloned().chain(new.known_values()).collect();
        self.ordered(mapping, WriteKind::Update, new.known_columns().collect(), row)
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

impl<'a> Section<'a> {
    fn table(&mut self, mapping: &Arc<TableMapping>) -> &mut Keys<'a> {
        let tables = &mut self.tables;
        let place = *self.places.entry(Arc::as_ptr(mapping) as usize).or_insert_with(|| {
            tables.push((mapping.clone(), Keys::default()));
            tables.len() - 1
        });
        &mut self.tables[place].1
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
            let rows = keys.met.len();
            for met in keys.met {
                shelves.put(&mapping, met, rows);
            }
        }
        for (mapping, rows) in self.loose {
            let columns = (0..mapping.columns.len()).collect();
            shelves.shelves.push(Shelf { mapping, kind: WriteKind::Insert, columns, rows });
        }
        for Shelf { mapping, kind, columns, rows } in shelves.in_order() {
            writes.push(TableWrite { mapping, kind, columns, rows, strict });
        }
    }
}

impl<'a> Keys<'a> {
    fn get_mut(&mut self, key: Key<'_>) -> Option<&mut Pending<'a>> {
        let place = self.find(self.hash(key), key)?;
        Some(&mut self.met[place].what)
    }

    /// What follows from what was pending for this key.
    fn follow(&mut self, key: Key<'a>, next: impl FnOnce(Option<Pending<'a>>) -> Result<Pending<'a>>) -> Result<()> {
        let hash = self.hash(key);
        match self.find(hash, key) {
            Some(place) => {
                let slot = &mut self.met[place].what;
                *slot = next(Some(std::mem::replace(slot, Pending::Nothing)))?;
            }
            None => {
                self.met.push(Met { hash, key, what: next(None)? });
                let met = &self.met;
                self.places.insert_unique(hash, met.len() - 1, |place| met[*place].hash);
            }
        }
        Ok(())
    }

    fn find(&self, hash: u64, key: Key<'_>) -> Option<usize> {
        self.places.find(hash, |place| self.met[*place].hash == hash && self.met[*place].key.same(key)).copied()
    }

    /// Only keys that are the same must have the same one: kinds of values need not count.
    fn hash(&self, key: Key<'_>) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        for value in key.values() {
            match value {
                Value::Null | Value::Absent | Value::Unsent => hasher.write_u8(0),
                Value::Int(number) => hasher.write_i64(*number),
                Value::Float(number) => hasher.write_u64(number.to_bits()),
                Value::Text(data) | Value::Bytes(data) | Value::Native(data) => {
                    hasher.write_usize(data.len());
                    hasher.write(data);
                }
            }
        }
        hasher.finish()
    }
}

impl<'a> Key<'a> {
    fn values(self) -> impl Iterator<Item = &'a Value> {
        self.projection.key(self.image)
    }

    fn row(self) -> Row {
        self.values().cloned().collect()
    }

    fn same(self, other: Key<'_>) -> bool {
        self.values().zip(other.values()).all(|(left, right)| left.same(right))
    }
}

impl Image<'_> {
    fn width(&self) -> usize {
        match self {
            Image::Told { projection, .. } => projection.mapping.columns.len(),
            Image::Merged(row) => row.len(),
        }
    }

    fn value(&self, column: usize) -> &Value {
        match self {
            Image::Told { projection, image } => projection.value(image, column),
            Image::Merged(row) => &row[column],
        }
    }

    fn is_complete(&self) -> bool {
        (0..self.width()).all(|column| self.value(column).is_known())
    }

    /// Whether the change was captured with fewer columns than the table has.
    fn has_absent(&self) -> bool {
        (0..self.width()).any(|column| matches!(self.value(column), Value::Absent))
    }

    fn known_columns(&self) -> impl Iterator<Item = usize> {
        (0..self.width()).filter(|column| self.value(*column).is_known())
    }

    fn known_values(&self) -> Row {
        self.known_columns().map(|column| self.value(column).clone()).collect()
    }

    /// A later image onto this one: what the later does not know keeps the earlier's value.
    fn merge<'b>(&self, later: Image<'b>) -> Image<'b> {
        if later.is_complete() {
            return later;
        }
        let newest = |column| if later.value(column).is_known() { later.value(column) } else { self.value(column) };
        Image::Merged((0..self.width()).map(|column| newest(column).clone()).collect())
    }
}

struct Shelf {
    mapping: Arc<TableMapping>,
    kind: WriteKind,
    columns: Vec<usize>,
    rows: RowBatch,
}

/// Rows of the same table, kind and set of columns, side by side.
#[derive(Default)]
struct Shelves {
    shelves: Vec<Shelf>,
    places: HashMap<(usize, u8, Vec<usize>), usize>,
    /// By kind, the shelf that took the last row: most often the next one's too.
    last: [Option<usize>; KINDS],
}

/// Of what a section can hold, as numbers.
const KINDS: usize = 4;

fn number(kind: WriteKind) -> usize {
    match kind {
        WriteKind::Delete => 0,
        WriteKind::Update => 1,
        WriteKind::Upsert => 2,
        _ => 3,
    }
}

impl Shelves {
    /// `most`: rows that a shelf of this table may come to hold.
    fn put(&mut self, mapping: &Arc<TableMapping>, met: Met<'_>, most: usize) {
        let mut row = |kind, key, new| self.row(mapping, kind, key, new, most);
        match &met.what {
            Pending::Nothing => {}
            Pending::Insert(new) => row(WriteKind::Insert, None, Some(new)),
            Pending::Put(new) => row(WriteKind::Upsert, None, Some(new)),
            Pending::Update(new) => row(WriteKind::Update, Some(met.key), Some(new)),
            Pending::Delete | Pending::Remove => row(WriteKind::Delete, Some(met.key), None),
            Pending::Replace(new) => {
                row(WriteKind::Delete, Some(met.key), None);
                row(WriteKind::Insert, None, Some(new));
            }
        }
    }

    fn row(&mut self, mapping: &Arc<TableMapping>, kind: WriteKind, key: Option<Key<'_>>, new: Option<&Image<'_>>, most: usize) {
        let place = self.shelf(mapping, kind, new, most);
        let Shelf { columns, rows, .. } = &mut self.shelves[place];
        let key = key.into_iter().flat_map(Key::values);
        let new = new.into_iter().flat_map(|new| columns.iter().map(|column| new.value(*column)));
        rows.push(key.chain(new).cloned());
    }

    fn shelf(&mut self, mapping: &Arc<TableMapping>, kind: WriteKind, new: Option<&Image<'_>>, most: usize) -> usize {
        let is_set = |column: &usize| kind != WriteKind::Update || !mapping.key.contains(column);
        let columns = || new.into_iter().flat_map(Image::known_columns).filter(is_set);
        let last = self.last[number(kind)].filter(|last| Arc::ptr_eq(&self.shelves[*last].mapping, mapping));
        if let Some(last) = last.filter(|last| columns().eq(self.shelves[*last].columns.iter().copied())) {
            return last;
        }
        let mut columns: Vec<usize> = columns().collect();
        if kind == WriteKind::Update && columns.is_empty() {
            // a table that is all key sets its key to itself, so that the row is still counted
            columns.clone_from(&mapping.key);
        }
        let shelves = &mut self.shelves;
        let place = *self.places.entry((Arc::as_ptr(mapping) as usize, kind as u8, columns.clone())).or_insert_with(|| {
            let leading = if matches!(kind, WriteKind::Update | WriteKind::Delete) { mapping.key.len() } else { 0 };
            let mut rows = RowBatch::new(leading + columns.len());
            if last.is_none() {
                rows.reserve(most);
            }
            shelves.push(Shelf { mapping: mapping.clone(), kind, columns, rows });
            shelves.len() - 1
        });
        self.last[number(kind)] = Some(place);
        place
    }

    fn in_order(mut self) -> Vec<Shelf> {
        self.shelves.sort_by_key(|shelf| match shelf.kind {
            WriteKind::Delete => 0,
            WriteKind::Update => 1,
            _ => 2,
        });
        self.shelves
    }
}

/// A later image onto an earlier one: what the later does not know keeps the earlier's value.
fn merge(base: Row, later: Row) -> Row {
    base.into_iter().zip(later).map(|(base, later)| if later.is_known() { later } else { base }).collect()
}

fn check_key(mapping: &TableMapping, key: Key<'_>) -> Result<()> {
    if key.values().all(|value| value.is_known() && *value != Value::Null) {
        return Ok(());
    }
    Err(Error::internal(format!("the log of table {} holds a change whose key is not known", mapping.source)))
}

fn impossible(mapping: &TableMapping, operation: &str, pending: &Pending<'_>) -> Error {
    let state = match pending {
        Pending::Nothing | Pending::Delete => "a row that is gone",
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
