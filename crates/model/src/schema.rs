//! What a store says of its tables, and the steps that make them elsewhere.

use std::collections::HashMap;

use crate::alter::Appearance;
use crate::name::TableName;
use crate::value::Value;

/// A table, in the words every engine shares. `columns` are in the table's own order, dropped ones gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub name: TableName,
    pub columns: Vec<Column>,
    /// What identifies a row: the primary key, else a unique key over columns that are never NULL. Checked at once by
    /// its store (never deferrable), so that no two rows share it at any moment of the log.
    pub key: Option<Key>,
    /// Further unique constraints and indexes.
    pub uniques: Vec<UniqueKey>,
    /// Estimates from statistics, never counted.
    pub estimated_rows: u64,
    pub estimated_bytes: u64,
    /// Whether byte equality of this table's key values is the store's own equality (false: citext, numeric, a
    /// case-insensitive collation). Where it is not, changes are applied one by one, never merged.
    pub key_is_exact: bool,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Names of the key's columns, in the key's order; empty without a key.
    pub fn key_names(&self) -> Vec<&str> {
        self.key.iter().flat_map(|key| &key.columns).map(|index| self.columns[*index].name.as_str()).collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// The type as its engine writes it in DDL (`numeric(10,2)`, `shop.mood[]`).
    pub type_name: String,
    pub nullable: bool,
    /// Computed by the store: never written, never loaded, compared by verify.
    pub generated: bool,
}

/// Indices into the table's columns, in the key's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub columns: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UniqueKey {
    pub name: String,
    /// Empty where the index is over expressions.
    pub columns: Vec<usize>,
}

/// When a schema step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before the load: schemas, types, functions, tables with nothing but what cannot be added later.
    BeforeLoad,
    /// What a table's rows are found by, where it can be added to a table that holds rows. Made when the last row of an
    /// exact load is in the table; before a row is written that may be there already.
    Key,
    /// An index that refuses nothing. Made after its table's key, side by side with others of the same table.
    Index,
    /// When every row of the load is there and replay has met P1 (the same moment for an exact load): unique constraints
    /// and indexes, statistics, checks that wait.
    AfterLoad,
    /// At finish: foreign keys, triggers, event triggers, rules, refreshes.
    AtFinish,
}

/// One step that makes one object at the target. `sql` is in the target's dialect and runs in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaItem {
    /// Unique and stable within the task, readable: `INDEX public.orders_created_idx`.
    pub id: String,
    pub stage: Stage,
    /// The target table this step builds on: left out where that table is its owner's. A key or an index has one. Before
    /// the load and at finish steps run one by one in the order given. In between those of one stage and one table run in
    /// their order (but for indexes), those of different tables side by side, those of none last.
    pub table: Option<TableName>,
    pub sql: Vec<String>,
}

/// An object of the source that does not arrive, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct NotCarried {
    /// `EVENT TRIGGER audit`.
    pub object: String,
    pub reason: String,
}

/// What the source holds of what the task selects.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Source tables, selected, sorted by name.
    pub tables: Vec<Table>,
    /// How each of them looked at that moment, in the same order.
    pub looks: Vec<Appearance>,
    /// Steps in the dialect of the source's engine, mapping already applied. For a target of the same engine.
    pub items: Vec<SchemaItem>,
    /// For an item's id those of the items it needs, where the engine can tell: what a target cannot make falls away
    /// together with what needs it.
    pub leans_on: HashMap<String, Vec<String>>,
    pub not_carried: Vec<NotCarried>,
}

/// Where a sequence stands; set ahead at the target at P1, from time to time, and at finish.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceValue {
    /// The name at the target.
    pub name: TableName,
    /// The last value given out (or the first to give, with `called` false).
    pub last: Value,
    pub called: bool,
}
