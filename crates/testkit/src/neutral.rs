//! Rows and transactions in words that every engine understands: what suites and workloads are written in.

use godwit_model::{Error, Result, Value, codes};

/// A value that means the same in every engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Neutral {
    Null,
    Int(i64),
    Text(String),
}

impl Neutral {
    pub fn text(text: impl Into<String>) -> Self {
        Neutral::Text(text.into())
    }

    /// As a value that travels, in the typed form.
    pub fn value(&self) -> Value {
        match self {
            Neutral::Null => Value::Null,
            Neutral::Int(number) => Value::Int(*number),
            Neutral::Text(text) => Value::text(text.clone()),
        }
    }
}

pub type NeutralRow = Vec<Neutral>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits, signed.
    Int,
    Text,
    /// Text that engines which can will leave unsent where an update did not change it.
    LargeText,
}

impl Kind {
    /// Reads a value that an engine gave for a column of this kind, typed or native.
    pub fn read(self, value: &Value) -> Result<Neutral> {
        let wrong = || Error::new(&codes::INTERNAL, format!("a value that does not fit a column of kind {self:?}"));
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| wrong());
        match (self, value) {
            (_, Value::Null) => Ok(Neutral::Null),
            (Kind::Int, Value::Int(number)) => Ok(Neutral::Int(*number)),
            (Kind::Int, Value::Native(bytes)) => text(bytes)?.parse().map(Neutral::Int).map_err(|_| wrong()),
            (Kind::Text | Kind::LargeText, Value::Text(bytes) | Value::Native(bytes)) => text(bytes).map(Neutral::Text),
            _ => Err(wrong()),
        }
    }
}

/// A table that every engine can make.
#[derive(Clone, Debug, PartialEq)]
pub struct NeutralTable {
    pub name: String,
    pub columns: Vec<NeutralColumn>,
    /// Indices into `columns`; empty without a key.
    pub key: Vec<usize>,
    /// A second unique constraint, by indices.
    pub unique: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NeutralColumn {
    pub name: String,
    pub kind: Kind,
}

impl NeutralTable {
    pub fn new(name: &str, columns: &[(&str, Kind)], key: &[usize]) -> Self {
        let column = |(name, kind): &(&str, Kind)| NeutralColumn { name: (*name).to_owned(), kind: *kind };
        NeutralTable { name: name.to_owned(), columns: columns.iter().map(column).collect(), key: key.to_vec(), unique: Vec::new() }
    }

    #[must_use]
    pub fn unique(mut self, columns: &[usize]) -> Self {
        self.unique = columns.to_vec();
        self
    }

    pub fn key_of(&self, row: &[Neutral]) -> NeutralRow {
        self.key.iter().map(|index| row[*index].clone()).collect()
    }

    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }
}

/// One step of a users' transaction. Rows are found by key, or by the whole row where the table has none.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Insert {
        table: String,
        row: NeutralRow,
    },
    /// Sets columns (by index), key columns among them or not.
    Update {
        table: String,
        find: NeutralRow,
        set: Vec<(usize, Neutral)>,
    },
    Delete {
        table: String,
        find: NeutralRow,
    },
    Savepoint,
    /// Undoes what was done since the last savepoint, and drops it.
    RollBackToSavepoint,
    /// Drops the last savepoint, keeps what was done.
    ReleaseSavepoint,
}

/// What a users' transaction does, and how it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct NeutralTransaction {
    pub operations: Vec<Operation>,
    pub commit: bool,
}

impl NeutralTransaction {
    pub fn commit(operations: Vec<Operation>) -> Self {
        NeutralTransaction { operations, commit: true }
    }

    pub fn roll_back(operations: Vec<Operation>) -> Self {
        NeutralTransaction { operations, commit: false }
    }
}

/// A generator's own copy of what the tables hold: runs operations on plain rows, to know what must be there.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    tables: Vec<(NeutralTable, Vec<NeutralRow>)>,
}

impl Expected {
    pub fn new(tables: &[NeutralTable]) -> Self {
        Expected { tables: tables.iter().map(|table| (table.clone(), Vec::new())).collect() }
    }

    pub fn run(&mut self, transaction: &NeutralTransaction) {
        if !transaction.commit {
            return;
        }
        let mut savepoints = Vec::new();
        for operation in &transaction.operations {
            match operation {
                Operation::Savepoint => savepoints.push(self.tables.clone()),
                Operation::RollBackToSavepoint => self.tables = savepoints.pop().expect("a savepoint is open"),
                Operation::ReleaseSavepoint => drop(savepoints.pop()),
                Operation::Insert { table, row } => self.of(table).1.push(row.clone()),
                Operation::Delete { table, find } => {
                    let (index, rows) = self.find(table, find);
                    rows.remove(index);
                }
                Operation::Update { table, find, set } => {
                    let (index, rows) = self.find(table, find);
                    set.iter().for_each(|(column, value)| rows[index][*column] = value.clone());
                }
            }
        }
    }

    /// Sorted.
    pub fn rows(&self, table: &str) -> Vec<NeutralRow> {
        let held = self.tables.iter().find(|(known, _)| known.name == table);
        let mut rows = held.map(|(_, rows)| rows.clone()).unwrap_or_default();
        rows.sort();
        rows
    }

    fn of(&mut self, table: &str) -> &mut (NeutralTable, Vec<NeutralRow>) {
        self.tables.iter_mut().find(|(known, _)| known.name == table).expect("operations name known tables")
    }

    fn find(&mut self, table: &str, find: &[Neutral]) -> (usize, &mut Vec<NeutralRow>) {
        let (known, rows) = self.of(table);
        let found = |row: &NeutralRow| if known.has_key() { known.key_of(row) == find } else { row == find };
        (rows.iter().position(found).expect("operations find their row"), rows)
    }
}
