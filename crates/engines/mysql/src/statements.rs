//! One write as SQL statements, values in them as literals.
//!
//! Statements are cut by the bytes of their rows. Those that find many rows by key name a bounded number of keys: beyond
//! some hundreds a server stops looking keys up one by one in its plans and may read the whole table.

use std::ops::Range;

use godwit_model::{Result, TableMapping, TableWrite, Value, WriteKind};

use crate::shape::{Shape, Upsert};

/// MySQL and MariaDB estimate up to this many by looking them up (`eq_range_index_dive_limit`).
const KEYS: usize = 200;

/// What a statement's count of rows says of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Rows it touched.
    Rows,
    /// It did what it had to for so many rows, or it failed.
    Sure(u64),
    /// Nothing: it makes way for statements that count.
    Nothing,
    /// Whether the row of this place was there.
    Found(usize),
}

/// Which columns a write's rows hold, and how.
pub(crate) struct Plan<'a> {
    shape: &'a Shape,
    mapping: &'a TableMapping,
    kind: WriteKind,
    columns: &'a [usize],
    /// Values that find the row, before those of `columns`.
    leading: usize,
}

/// The statements of one write, one after another.
pub(crate) struct Statements<'a> {
    plan: Plan<'a>,
    rows: Rows<'a>,
    at: usize,
    /// Rows are deleted first, then inserted.
    clearing: bool,
    size: usize,
}

/// All rows of a write, or some of them.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    All(&'a godwit_model::RowBatch),
    Some(&'a godwit_model::RowBatch, &'a [usize]),
}

impl<'a> Rows<'a> {
    fn len(&self) -> usize {
        match self {
            Rows::All(batch) => batch.len(),
            Rows::Some(_, places) => places.len(),
        }
    }

    fn get(&self, index: usize) -> &'a [Value] {
        match self {
            Rows::All(batch) => batch.row(index),
            Rows::Some(batch, places) => batch.row(places[index]),
        }
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(shape: &'a Shape, write: &'a TableWrite) -> Self {
        Self::of(shape, &write.mapping, write.kind, &write.columns)
    }

    pub(crate) fn of(shape: &'a Shape, mapping: &'a TableMapping, kind: WriteKind, columns: &'a [usize]) -> Self {
        let leading = match kind {
            WriteKind::Update | WriteKind::Delete => mapping.key.len(),
            WriteKind::UpdateWhole => columns.len(),
            WriteKind::Insert | WriteKind::Upsert | WriteKind::DeleteWhole | WriteKind::Truncate => 0,
        };
        Plan { shape, mapping, kind, columns, leading }
    }

    /// Whether the server is given values that it could change.
    pub(crate) fn gives_values(&self) -> bool {
        !matches!(self.kind, WriteKind::Delete | WriteKind::DeleteWhole | WriteKind::Truncate)
    }

    pub(crate) fn searches(&self) -> bool {
        self.kind == WriteKind::Upsert && self.upsert() == Upsert::Search
    }

    /// Rows that are partly known keep what is not.
    fn upsert(&self) -> Upsert {
        match self.shape.upsert {
            Upsert::Replace if self.columns.len() < self.mapping.columns.len() => Upsert::Search,
            upsert => upsert,
        }
    }

    /// The statements, each of about `size` bytes. An upsert that searches is made of other plans.
    pub(crate) fn statements(self, rows: Rows<'a>, size: usize) -> Statements<'a> {
        let clearing = self.kind == WriteKind::Upsert && self.upsert() == Upsert::Replace && rows.len() > 0;
        Statements { plan: self, rows, at: 0, clearing, size }
    }

    fn name(&self, column: usize) -> &str {
        &self.shape.columns[column].name
    }

    fn insert(&self, out: &mut Vec<u8>) {
        let names: Vec<&str> = self.columns.iter().map(|column| self.name(*column)).collect();
        push(out, &["INSERT INTO ", &self.shape.table, " (", &names.join(", "), ") VALUES "]);
    }

    fn row(&self, row: &[Value], out: &mut Vec<u8>) -> Result<()> {
        out.push(b'(');
        for (place, (column, value)) in self.columns.iter().zip(row).enumerate() {
            separate(place, ", ", out);
            self.value(*column, value, out)?;
        }
        out.push(b')');
        Ok(())
    }

    fn value(&self, column: usize, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        self.shape.accepts(column, value)?;
        self.shape.columns[column].codec.literal(value, out)
    }

    /// Key columns are written too where equal keys may differ in their bytes.
    fn overwriting(&self, out: &mut Vec<u8>) {
        let is_key = |column: &usize| self.mapping.key.contains(column);
        let plain: Vec<usize> = self.columns.iter().copied().filter(|column| !is_key(column)).collect();
        let set = if plain.is_empty() || !self.mapping.key_is_exact { self.columns } else { &plain };
        push(out, &[" ON DUPLICATE KEY UPDATE "]);
        for (place, column) in set.iter().enumerate() {
            separate(place, ", ", out);
            push(out, &[self.name(*column), " = VALUES(", self.name(*column), ")"]);
        }
        self.keep_still(out);
    }

    /// What would change by itself stays as it is.
    fn keep_still(&self, out: &mut Vec<u8>) {
        for (column, written) in self.shape.columns.iter().enumerate() {
            if written.renews && !self.columns.contains(&column) {
                push(out, &[", ", &written.name, " = ", &written.name]);
            }
        }
    }

    /// Without columns the row is touched and stays as it is.
    fn update(&self, values: &[Value], out: &mut Vec<u8>) -> Result<()> {
        push(out, &["UPDATE ", &self.shape.table, " SET "]);
        if self.columns.is_empty() {
            let key = self.mapping.key.first().map_or("", |column| self.name(*column));
            push(out, &[key, " = ", key]);
        }
        for (place, (column, value)) in self.columns.iter().zip(values).enumerate() {
            separate(place, ", ", out);
            push(out, &[self.name(*column), " = "]);
            self.value(*column, value, out)?;
        }
        self.keep_still(out);
        Ok(())
    }

    fn by_key<'b>(&self, key: impl IntoIterator<Item = &'b Value>, out: &mut Vec<u8>) -> Result<()> {
        for (place, (column, value)) in self.mapping.key.iter().zip(key).enumerate() {
            separate(place, " AND ", out);
            push(out, &[self.name(*column), " = "]);
            self.shape.columns[*column].codec.literal(value, out)?;
        }
        Ok(())
    }

    /// One row that equals this one in all columns and bytes.
    fn one_whole(&self, old: &[Value], out: &mut Vec<u8>) -> Result<()> {
        push(out, &[" WHERE "]);
        for (place, (column, value)) in self.columns.iter().zip(old).enumerate() {
            separate(place, " AND ", out);
            self.shape.columns[*column].codec.equals(self.name(*column), value, out)?;
        }
        push(out, &[" LIMIT 1"]);
        Ok(())
    }

    /// Values of the key in a row of an upsert.
    fn key_of(&self, row: &'a [Value]) -> Vec<&'a Value> {
        let place = |key: &usize| self.columns.iter().position(|column| column == key);
        self.mapping.key.iter().filter_map(|key| row.get(place(key)?)).collect()
    }

    /// Updates one row of an upsert where it is.
    pub(crate) fn update_found(&self, row: &'a [Value], out: &mut Vec<u8>) -> Result<()> {
        self.update(row, out)?;
        push(out, &[" WHERE "]);
        self.by_key(self.key_of(row), out)
    }

    /// The same rows, where they are not there.
    pub(crate) fn inserting(&self) -> Plan<'a> {
        Plan { kind: WriteKind::Insert, ..*self }
    }
}

impl<'a> Statements<'a> {
    pub(crate) fn is_done(&self) -> bool {
        match self.plan.kind {
            WriteKind::Truncate => self.at > 0,
            _ => self.at >= self.rows.len() && !self.clearing,
        }
    }

    /// Writes the next statement to the end of `out`. Not called when done.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) -> Result<Count> {
        match self.plan.kind {
            WriteKind::Truncate => {
                self.at = 1;
                push(out, &["DELETE FROM ", &self.plan.shape.table]);
                Ok(Count::Nothing)
            }
            WriteKind::Delete => self.delete(out).map(|()| Count::Rows),
            WriteKind::Upsert if self.clearing => self.clear(out).map(|()| Count::Nothing),
            WriteKind::Insert => self.insert(out).map(|_| Count::Rows),
            WriteKind::Upsert => self.insert(out).map(|rows| Count::Sure(rows.len() as u64)),
            WriteKind::Update | WriteKind::DeleteWhole | WriteKind::UpdateWhole => self.one(out).map(|()| Count::Rows),
        }
    }

    fn one(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let (lead, values) = self.rows.get(self.at).split_at(self.plan.leading);
        self.at += 1;
        match self.plan.kind {
            WriteKind::DeleteWhole => {
                push(out, &["DELETE FROM ", &self.plan.shape.table]);
                self.plan.one_whole(values, out)
            }
            WriteKind::UpdateWhole => {
                self.plan.update(values, out)?;
                self.plan.one_whole(lead, out)
            }
            _ => {
                self.plan.update(values, out)?;
                push(out, &[" WHERE "]);
                self.plan.by_key(lead, out)
            }
        }
    }

    fn insert(&mut self, out: &mut Vec<u8>) -> Result<Range<usize>> {
        let first = self.at;
        let begun = out.len();
        self.plan.insert(out);
        while self.at < self.rows.len() && (self.at == first || out.len() - begun < self.size) {
            separate(self.at - first, ", ", out);
            self.plan.row(self.rows.get(self.at), out)?;
            self.at += 1;
        }
        if self.plan.kind == WriteKind::Upsert && self.plan.upsert() == Upsert::Overwrite {
            self.plan.overwriting(out);
        }
        Ok(first..self.at)
    }

    /// Deletes what an upsert then inserts: all of it first, since unique values may have moved from row to row.
    fn clear(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.delete(out)?;
        if self.at == self.rows.len() {
            self.clearing = false;
            self.at = 0;
        }
        Ok(())
    }

    fn delete(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let until = self.rows.len().min(self.at + KEYS);
        push(out, &["DELETE FROM ", &self.plan.shape.table, " WHERE "]);
        let is_single = self.plan.mapping.key.len() == 1;
        if is_single {
            push(out, &[self.plan.name(self.plan.mapping.key[0]), " IN ("]);
        }
        for (place, index) in (self.at..until).enumerate() {
            let row = self.rows.get(index);
            let key = if self.clearing { self.plan.key_of(row) } else { row[..self.plan.leading].iter().collect() };
            match is_single {
                true => {
                    separate(place, ", ", out);
                    let column = self.plan.mapping.key[0];
                    let value = key.first().copied().unwrap_or(&Value::Null);
                    self.plan.shape.columns[column].codec.literal(value, out)?;
                }
                false => {
                    separate(place, " OR ", out);
                    out.push(b'(');
                    self.plan.by_key(key, out)?;
                    out.push(b')');
                }
            }
        }
        if is_single {
            out.push(b')');
        }
        self.at = until;
        Ok(())
    }
}

fn separate(place: usize, with: &str, out: &mut Vec<u8>) {
    if place > 0 {
        out.extend_from_slice(with.as_bytes());
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}
