//! What tables are besides their rows, in pieces that both sides of one dialect spell alike: compared behind a drain.

use crate::name::TableName;

/// One property of a target table: a column's default, an index, a constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The target's.
    pub table: TableName,
    /// Names it within its table: `DEFAULT of total`, `INDEX orders_code_idx`.
    pub what: String,
    /// Two of one name are the same where this is equal.
    pub definition: String,
    /// What gives it to a table that does not have it, in the target's dialect.
    pub make: Vec<String>,
    /// What takes it from a table.
    pub remove: Vec<String>,
    /// What puts it in the place of another one of the same name; empty: that one is removed and this one made.
    pub change: Vec<String>,
    pub bearing: Bearing,
    pub scope: Scope,
    /// Another table that its text names, as this side calls it.
    pub leans_on: Option<TableName>,
}

/// What a feature means for rows that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearing {
    None,
    /// With it the table may refuse rows that it takes without it.
    Refuses,
    /// With it the table takes rows that it refuses without it.
    Admits,
}

/// What a feature belongs to, and so what becomes of it where the source does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A column itself, with its type: it holds values and is nobody's to drop unasked.
    Column,
    /// A property of a column that both sides have: it goes.
    OfColumn,
    /// An object of its own name: it may be there because the target's owner made it.
    Table,
}
