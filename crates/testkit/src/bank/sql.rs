//! The workload as SQL text.

use super::tables;
use crate::dialect::Dialect;
use crate::neutral::NeutralTransaction;

/// Statements that make the four tables.
pub fn ddl(dialect: &Dialect) -> Vec<String> {
    tables().iter().flat_map(|table| dialect.create(table)).collect()
}

/// One transaction, its begin and end among the statements. Each update and delete must touch exactly one row.
pub fn statements(dialect: &Dialect, transaction: &NeutralTransaction) -> Vec<String> {
    dialect.transaction(&tables(), transaction)
}

/// One row of six 64-bit numbers, in the order of `Totals`. One statement, thus one snapshot in every engine.
pub fn totals(dialect: &Dialect) -> String {
    let [a, b, c, journal] = ["accounts_a", "accounts_b", "accounts_c", "journal"].map(|table| dialect.name(table));
    let int = dialect.int_cast();
    let sum = |what: &str| format!("CAST(COALESCE(SUM({what}), 0) AS {int})");
    format!(
        "SELECT accounts.*, journal.* FROM \
         (SELECT COUNT(*), {balance}, {version} FROM (SELECT balance, version FROM {a} UNION ALL SELECT balance, version FROM {b} \
         UNION ALL SELECT balance, version FROM {c}) AS every_account) AS accounts, \
         (SELECT COUNT(*), COUNT(DISTINCT id), {touched} FROM {journal}) AS journal",
        balance = sum("balance"),
        version = sum("version"),
        touched = sum("touched"),
    )
}

/// One row if the journal holds this id: settles a commit whose answer was lost.
pub fn journal_has(dialect: &Dialect, id: i64) -> String {
    format!("SELECT 1 FROM {} WHERE id = {id}", dialect.name("journal"))
}
