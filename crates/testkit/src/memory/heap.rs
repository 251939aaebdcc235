//! One table's rows, each in a numbered slot, with the indexes that refuse doubles.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use godwit_model::{Error, Result, Row, Value, codes};

use super::spec::TableSpec;

/// A row's physical place; updates give a row another one.
pub(super) type Slot = u64;

/// What a schema change did to rows, unseen by the log.
#[derive(Clone, Debug)]
pub(super) enum Shift {
    /// A column was added, with this value in every row.
    Added(String, Value),
    Dropped(String),
    /// Old and new name.
    Renamed(String, String),
    /// What may be in it changed, what is in it did not.
    Bounded,
    /// Rows were made anew.
    Computed,
}

#[derive(Clone, Debug)]
pub(super) struct Heap {
    pub spec: Arc<TableSpec>,
    /// Another number after each rewrite; slots mean nothing across it.
    pub file: u64,
    pub rows: BTreeMap<Slot, Arc<Row>>,
    /// Every schema change so far.
    pub history: Arc<Vec<Shift>>,
    /// The key, then each unique constraint: encoded values to slot.
    indexes: Vec<HashMap<Vec<u8>, Slot>>,
}

impl Heap {
    pub fn new(spec: TableSpec, file: u64) -> Self {
        let indexes = vec![HashMap::new(); spec.uniques.len() + 1];
        Heap { spec: Arc::new(spec), file, rows: BTreeMap::new(), history: Arc::default(), indexes }
    }

    /// The same rows under another definition, given row by row.
    pub fn reshaped(&self, spec: TableSpec, mut row: impl FnMut(&Row) -> Row) -> Result<Self> {
        let mut next = Heap { history: self.history.clone(), ..Heap::new(spec, self.file) };
        for (slot, old) in &self.rows {
            let new = row(old);
            next.check(&new, None)?;
            next.put(*slot, Arc::new(new));
        }
        Ok(next)
    }

    pub fn put(&mut self, slot: Slot, row: Arc<Row>) {
        for (index, key) in self.keys_of(&row) {
            self.indexes[index].insert(key, slot);
        }
        self.rows.insert(slot, row);
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Arc<Row>> {
        let row = self.rows.remove(&slot)?;
        for (index, key) in self.keys_of(&row) {
            if self.indexes[index].get(&key) == Some(&slot) {
                self.indexes[index].remove(&key);
            }
        }
        Some(row)
    }

    /// The slot of the row with these key values, in the key's order.
    pub fn by_key(&self, key: &[Value]) -> Option<Slot> {
        self.indexes[0].get(&encode(key.iter(), self.spec.folds_case)).copied()
    }

    /// Any row equal in all columns.
    pub fn by_whole(&self, row: &[Value]) -> Option<Slot> {
        let equal = |held: &Row| held.len() == row.len() && held.iter().zip(row).all(|(a, b)| a.same(b));
        self.rows.iter().find(|(_, held)| equal(held)).map(|(slot, _)| *slot)
    }

    /// What the row holds in the key and in each unique constraint (NULLs are never equal there), encoded.
    pub fn keys_of(&self, row: &Row) -> Vec<(usize, Vec<u8>)> {
        let mut keys = Vec::new();
        if !self.spec.key.is_empty() {
            keys.push((0, encode(self.spec.key.iter().map(|index| &row[*index]), self.spec.folds_case)));
        }
        for (number, unique) in self.spec.uniques.iter().enumerate() {
            let values = || unique.columns.iter().map(|index| &row[*index]);
            if !unique.columns.is_empty() && values().all(|value| *value != Value::Null) {
                keys.push((number + 1, encode(values(), false)));
            }
        }
        keys
    }

    /// Whether the table would take the row, `replacing` gone.
    pub fn check(&self, row: &Row, replacing: Option<Slot>) -> Result<()> {
        self.check_values(row)?;
        for (index, key) in self.keys_of(row) {
            match self.indexes[index].get(&key) {
                Some(slot) if Some(*slot) != replacing => return Err(self.exists(index)),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_values(&self, row: &Row) -> Result<()> {
        if row.len() != self.spec.columns.len() {
            return Err(Error::internal(format!("a row of {} values for {} columns", row.len(), self.spec.columns.len())));
        }
        for (column, value) in self.spec.columns.iter().zip(row) {
            if !value.is_known() {
                return Err(Error::internal(format!("a value that is not known was written to column `{}`", column.name)));
            }
            let fits = match (column.type_name.as_str(), value) {
                (_, Value::Null) => column.nullable,
                ("int", value) => matches!(value, Value::Int(_)),
                ("text", value) => matches!(value, Value::Text(_)),
                ("bytes", value) => matches!(value, Value::Bytes(_)),
                ("float", value) => matches!(value, Value::Float(_)),
                _ => true,
            };
            if !fits {
                return Err(Error::new(&codes::VALUE_REFUSED, format!("column `{}` does not take such a value", column.name))
                    .at(format!("table {}", self.spec.name)));
            }
        }
        Ok(())
    }

    fn exists(&self, index: usize) -> Error {
        let place = format!("table {}", self.spec.name);
        match index.checked_sub(1) {
            None => Error::new(&codes::KEY_EXISTS, "the key is there already").at(place),
            Some(unique) => {
                let name = &self.spec.uniques[unique].name;
                Error::new(&codes::KEY_EXISTS, format!("unique constraint `{name}` is violated")).at(place)
            }
        }
    }

    /// One past the last slot in use.
    pub fn end(&self) -> Slot {
        self.rows.last_key_value().map_or(0, |(slot, _)| slot + 1)
    }

    pub fn weight(&self) -> u64 {
        self.rows.values().map(|row| row_weight(row)).sum()
    }
}

pub(super) fn row_weight(row: &Row) -> u64 {
    row.iter().map(Value::weight).sum::<usize>() as u64
}

/// Bytes that are equal exactly if the values are; prefix-free, so that two values never look like others.
pub(super) fn encode<'a>(values: impl Iterator<Item = &'a Value>, fold: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sized = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    for value in values {
        match value {
            Value::Null => sized(0, &[]),
            Value::Absent => sized(1, &[]),
            Value::Unsent => sized(2, &[]),
            Value::Int(number) => sized(3, &number.to_be_bytes()),
            Value::Float(number) => sized(4, &number.to_bits().to_be_bytes()),
            Value::Text(text) if fold => sized(5, &text.to_ascii_lowercase()),
            Value::Text(text) => sized(5, text),
            Value::Bytes(bytes) => sized(6, bytes),
            Value::Native(bytes) => sized(7, bytes),
        }
    }
    out
}
