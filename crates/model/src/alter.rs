//! Schema changes in mid-stream: how a table looks at one moment, and what a change made of it.

use crate::mapping::{ColumnMapping, TableMapping};
use crate::name::TableName;
use crate::schema::Table;
use crate::value::Value;

/// How a table looks at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Appearance {
    /// Name and type of each column as the change stream states them, in the table's order.
    pub columns: Vec<(String, String)>,
    /// Whether the table has parts whose layouts may have the columns in another order.
    pub in_parts: bool,
    /// The engine's own text. Two equal ones say that in between no row was moved, hidden or computed outside of the log;
    /// two that differ say that it may have happened. Empty: nothing is known.
    pub stamp: String,
}

impl Appearance {
    /// Whether the stream may state these columns of a table that looks like this.
    pub fn fits(&self, columns: &[(String, String)]) -> bool {
        let same_set = || self.columns.len() == columns.len() && columns.iter().all(|column| self.columns.contains(column));
        self.columns == columns || (self.in_parts && same_set())
    }
}

/// How a table looks now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAppearance {
    pub table: TableName,
    pub look: Appearance,
}

/// What a schema change made of a source table.
#[derive(Clone, Debug, PartialEq)]
pub struct Altered {
    /// The table with the columns that the stream states, and its generated ones.
    pub table: Table,
    /// Columns that are new, each with the value that every row which was there before got. Complete where `proved`.
    pub fills: Vec<(String, Value)>,
    /// Columns that only got another name, old and new: those that the source can prove, and whose names both no other
    /// column had in between.
    pub renamed: Vec<(String, String)>,
    /// Whether it is certain that since the look before rows changed outside of the log in no other way than by `fills`
    /// and by columns that went.
    pub proved: bool,
    /// Whether it is certain that no column got another name but for those of `renamed`.
    pub distinct: bool,
    /// As of now: its columns may be further than those asked about.
    pub look: Appearance,
}

/// What is to be done to a target table.
#[derive(Clone, Copy, Debug)]
pub struct Alteration<'a> {
    pub before: &'a TableMapping,
    pub after: &'a TableMapping,
    /// By the source's name: what rows that are there get in a new column; NULL where it is not named.
    pub fills: &'a [(String, Value)],
    /// The source's names, old and new, of columns that keep their rows' values under another name.
    pub renamed: &'a [(String, String)],
}

impl Alteration<'_> {
    /// What a column of `after` is in `before`.
    pub fn known(&self, column: &ColumnMapping) -> Option<&ColumnMapping> {
        let old = self.renamed.iter().find(|(_, new)| *new == column.source).map(|(old, _)| old.as_str());
        match old {
            Some(old) => self.before.columns.iter().find(|other| other.source == old),
            None => self.before.columns.iter().find(|other| other.target == column.target),
        }
    }

    /// Columns of `before` that `after` does not have under any name.
    pub fn gone(&self) -> impl Iterator<Item = &ColumnMapping> {
        let kept = |column: &ColumnMapping| self.after.columns.iter().any(|other| self.known(other) == Some(column));
        self.before.columns.iter().filter(move |column| !kept(column))
    }

    /// Target names that change, old and new.
    pub fn moved(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.after.columns.iter().filter_map(|column| Some((self.known(column)?, column)));
        pairs.map(|(old, new)| (old.target.as_str(), new.target.as_str())).filter(|(old, new)| old != new)
    }
}
