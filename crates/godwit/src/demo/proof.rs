//! Both files compared by plain SQL, which knows nothing of how the rows got there.

use std::fmt::Write as _;

use godwit_model::Result;
use rusqlite::Connection;

use super::folder::Folder;
use super::writers::Written;
use super::{failed, shop};
use crate::values::count;

/// A table at the source and at the target, and the columns that correspond. The key comes first.
struct Pair {
    source: &'static str,
    target: &'static str,
    columns: &'static [(&'static str, &'static str)],
}

const PAIRS: [Pair; 5] = [
    Pair {
        source: "customers",
        target: "clients",
        columns: &[("id", "id"), ("full_name", "name"), ("email", "email"), ("balance", "balance")],
    },
    Pair { source: "products", target: "products", columns: &[("id", "id"), ("name", "name"), ("price", "price"), ("stock", "stock")] },
    Pair {
        source: "orders",
        target: "orders",
        columns: &[("id", "id"), ("customer_id", "customer_id"), ("placed", "created_at"), ("total", "total")],
    },
    Pair {
        source: "order_lines",
        target: "order_lines",
        columns: &[("order_id", "order_id"), ("line", "line"), ("product_id", "product_id"), ("quantity", "quantity"), ("price", "price")],
    },
    Pair { source: "journal", target: "journal", columns: &[("writer", "writer"), ("number", "number"), ("what", "what")] },
];

pub struct Proof {
    tables: Vec<Compared>,
    /// Transactions that were committed at the source and are not in the target's journal exactly once.
    transactions_lost: u64,
    /// Objects named `godwit_*` in either file.
    left_behind: u64,
    fax_is_there: bool,
}

struct Compared {
    name: &'static str,
    rows: u64,
    /// Rows of one side that the other has not, value by value and type by type.
    missing: u64,
    surplus: u64,
    rows_at_target: u64,
}

impl Proof {
    pub fn find(folder: &Folder, written: &Written) -> Result<Proof> {
        let connection = shop::open(&folder.source())?;
        connection.execute("ATTACH ?1 AS new", [folder.target().to_string_lossy()]).map_err(failed)?;
        compare(&connection, written).map_err(failed)
    }

    /// Rows and transactions that did not arrive.
    pub fn lost(&self) -> u64 {
        self.transactions_lost + self.tables.iter().map(|table| table.missing).sum::<u64>()
    }

    pub fn doubt(&self) -> Option<String> {
        if self.lost() > 0 {
            return Some(format!("{} lost", self.lost()));
        }
        if let Some(table) = self.tables.iter().find(|table| table.surplus > 0 || table.rows != table.rows_at_target) {
            return Some(format!("table {} has rows at the target that the source has not", table.name));
        }
        if self.left_behind > 0 {
            return Some(format!("{} things of Godwit were left behind", self.left_behind));
        }
        self.fax_is_there.then(|| "a column that was left out is there".to_owned())
    }

    pub fn text(&self) -> String {
        self.tables.iter().fold(String::new(), |mut text, table| {
            let verdict = if table.missing + table.surplus == 0 { "equal" } else { "NOT EQUAL" };
            let _ = writeln!(text, "  {:12} {:>9} rows  {verdict}", table.name, count(table.rows));
            text
        })
    }
}

fn compare(connection: &Connection, written: &Written) -> rusqlite::Result<Proof> {
    let tables = PAIRS.iter().map(|pair| compare_table(connection, pair)).collect::<rusqlite::Result<_>>()?;
    let ours = "SELECT (SELECT count(*) FROM main.sqlite_schema WHERE name LIKE 'godwit%')
        + (SELECT count(*) FROM new.sqlite_schema WHERE name LIKE 'godwit%')";
    let fax = "SELECT count(*) > 0 FROM pragma_table_info('clients', 'new') WHERE name = 'fax'";
    Ok(Proof {
        tables,
        transactions_lost: transactions_lost(connection, written)?,
        left_behind: number(connection, ours)?,
        fax_is_there: connection.query_row(fax, [], |row| row.get(0))?,
    })
}

fn compare_table(connection: &Connection, pair: &Pair) -> rusqlite::Result<Compared> {
    // quoted values differ where only the type does
    let list = |of: fn(&(&'static str, &'static str)) -> &'static str| {
        pair.columns.iter().map(|names| format!("quote({})", of(names))).collect::<Vec<_>>().join(", ")
    };
    let here = format!("SELECT {} FROM main.{}", list(|names| names.0), pair.source);
    let there = format!("SELECT {} FROM new.{}", list(|names| names.1), pair.target);
    Ok(Compared {
        name: pair.target,
        rows: number(connection, &format!("SELECT count(*) FROM main.{}", pair.source))?,
        rows_at_target: number(connection, &format!("SELECT count(*) FROM new.{}", pair.target))?,
        missing: number(connection, &format!("SELECT count(*) FROM ({here} EXCEPT {there})"))?,
        surplus: number(connection, &format!("SELECT count(*) FROM ({there} EXCEPT {here})"))?,
    })
}

/// What each writer counted against the numbers that stand in the target's journal.
fn transactions_lost(connection: &Connection, written: &Written) -> rusqlite::Result<u64> {
    let mut lost = 0;
    for (writer, count) in written.counts.iter().enumerate() {
        let sql = format!("SELECT count(*) FROM new.journal WHERE writer = {writer} AND number BETWEEN 1 AND {}", count.transactions);
        lost += count.transactions.abs_diff(number(connection, &sql)?);
    }
    Ok(lost)
}

fn number(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}
