//! What a table of the memory engine looks like.

use godwit_model::{Appearance, Column, Key, Layout, LayoutColumn, LayoutId, Table, TableName, UniqueKey};

/// A table's definition. Types are `int`, `text`, `bytes` and `float` (checked on write); any other name takes any value.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    pub name: TableName,
    pub columns: Vec<Column>,
    /// Indices into `columns`; empty without a key.
    pub key: Vec<usize>,
    pub uniques: Vec<UniqueKey>,
    /// Names of indexes that refuse nothing; nothing is found by them either.
    pub indexes: Vec<String>,
    /// Names of columns whose unchanged values an update leaves unsent.
    pub large: Vec<String>,
    /// Old images hold the whole row. Always so without a key.
    pub full_old_images: bool,
    /// The key compares text without regard to ASCII case: `key_is_exact` is false.
    pub folds_case: bool,
}

impl TableSpec {
    pub fn new(schema: &str, name: &str) -> Self {
        TableSpec {
            name: TableName::new(schema, name),
            columns: Vec::new(),
            key: Vec::new(),
            uniques: Vec::new(),
            indexes: Vec::new(),
            large: Vec::new(),
            full_old_images: false,
            folds_case: false,
        }
    }

    /// Adds a column that may be NULL.
    pub fn column(mut self, name: &str, type_name: &str) -> Self {
        self.columns.push(Column { name: name.into(), type_name: type_name.into(), nullable: true, generated: false });
        self
    }

    /// Takes a column away that belongs to no key; unique constraints over it go with it.
    pub fn without(mut self, name: &str) -> Self {
        let gone = self.index_of(name).expect("a column of the table's own");
        assert!(!self.key.contains(&gone), "a key keeps its columns");
        self.columns.remove(gone);
        self.large.retain(|large| large != name);
        self.uniques.retain(|unique| !unique.columns.contains(&gone));
        let moved = |index: &mut usize| *index -= usize::from(*index > gone);
        self.key.iter_mut().chain(self.uniques.iter_mut().flat_map(|unique| &mut unique.columns)).for_each(moved);
        self
    }

    /// Gives a column another name; nothing happens if it is not there.
    pub fn renamed(mut self, old: &str, new: &str) -> Self {
        if let Some(index) = self.index_of(old) {
            new.clone_into(&mut self.columns[index].name);
            self.large.iter_mut().filter(|large| *large == old).for_each(|large| new.clone_into(large));
        }
        self
    }

    /// Says whether a column takes NULL.
    pub fn nullable(mut self, name: &str, nullable: bool) -> Self {
        let index = self.index_of(name).expect("a column of the table's own");
        self.columns[index].nullable = nullable;
        self
    }

    /// Adds a column whose unchanged values are left unsent.
    pub fn large(mut self, name: &str, type_name: &str) -> Self {
        self.large.push(name.into());
        self.column(name, type_name)
    }

    /// Makes columns the key, and NOT NULL.
    pub fn key(mut self, names: &[&str]) -> Self {
        self.key = self.indices(names);
        for index in &self.key {
            self.columns[*index].nullable = false;
        }
        self
    }

    pub fn unique(mut self, name: &str, columns: &[&str]) -> Self {
        let columns = self.indices(columns);
        self.uniques.push(UniqueKey { name: name.into(), columns });
        self
    }

    pub fn index(mut self, name: &str) -> Self {
        self.indexes.push(name.into());
        self
    }

    pub fn full_old_images(mut self) -> Self {
        self.full_old_images = true;
        self
    }

    pub fn folded_key(mut self) -> Self {
        self.folds_case = true;
        self
    }

    pub fn has_full_images(&self) -> bool {
        self.full_old_images || self.key.is_empty()
    }

    pub fn index_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| known.name == column)
    }

    fn indices(&self, names: &[&str]) -> Vec<usize> {
        names.iter().map(|name| self.index_of(name).expect("a key names the table's own columns")).collect()
    }

    /// In the words all engines share.
    pub fn table(&self, rows: u64, bytes: u64) -> Table {
        Table {
            name: self.name.clone(),
            columns: self.columns.clone(),
            key: (!self.key.is_empty()).then(|| Key { columns: self.key.clone() }),
            uniques: self.uniques.clone(),
            estimated_rows: rows,
            estimated_bytes: bytes,
            key_is_exact: !self.folds_case,
        }
    }

    /// Columns as the stream states them.
    pub(super) fn stated(&self) -> Vec<(String, String)> {
        self.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect()
    }

    pub(super) fn look(&self, stamp: String) -> Appearance {
        Appearance { columns: self.stated(), in_parts: false, stamp }
    }

    pub(super) fn layout(&self, id: LayoutId) -> Layout {
        let column = |(index, column): (usize, &Column)| LayoutColumn {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            key: if self.key.is_empty() { true } else { self.key.contains(&index) },
        };
        Layout {
            id,
            table: self.name.clone(),
            columns: self.columns.iter().enumerate().map(column).collect(),
            full_old_images: self.has_full_images(),
        }
    }
}
