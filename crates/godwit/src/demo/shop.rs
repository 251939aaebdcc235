//! The shop: its tables and what is in them before anyone writes.

use std::path::Path;
use std::time::Duration;

use godwit_model::Result;
use rusqlite::{Connection, Transaction, params};

use super::failed;
use super::folder::Folder;

pub const CUSTOMERS: i64 = 20_000;
pub const PRODUCTS: i64 = 2_000;
pub const ORDERS: i64 = 30_000;
const LINES_PER_ORDER: i64 = 2;
const ROWS: i64 = CUSTOMERS + PRODUCTS + ORDERS * (1 + LINES_PER_ORDER);

/// How long a user of the shop waits for another one's write; no request should ever fail because of the move.
const PATIENCE: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE customers (
        id INTEGER PRIMARY KEY, full_name TEXT NOT NULL, email TEXT, fax TEXT, balance INTEGER NOT NULL CHECK (balance >= 0)
    );
    CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price INTEGER NOT NULL, stock INTEGER NOT NULL);
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers (id), placed TEXT NOT NULL, total INTEGER NOT NULL
    );
    CREATE TABLE order_lines (
        order_id INTEGER NOT NULL REFERENCES orders (id), line INTEGER NOT NULL, product_id INTEGER NOT NULL REFERENCES products (id),
        quantity INTEGER NOT NULL, price REAL NOT NULL, PRIMARY KEY (order_id, line)
    ) WITHOUT ROWID;
    CREATE TABLE journal (writer INTEGER NOT NULL, number INTEGER NOT NULL, what TEXT NOT NULL, PRIMARY KEY (writer, number));
    CREATE INDEX orders_by_customer ON orders (customer_id);
    CREATE INDEX lines_by_product ON order_lines (product_id);
";

/// A connection as an application of the shop would open it.
pub fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    Ok(connection)
}

/// Makes the shop; gives its number of rows.
pub fn create(folder: &Folder) -> Result<u64> {
    let mut connection = open(&folder.source())?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    let transaction = connection.transaction().map_err(failed)?;
    transaction.execute_batch(TABLES).map_err(failed)?;
    fill(&transaction).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(ROWS.unsigned_abs())
}

fn fill(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut customer = transaction.prepare("INSERT INTO customers VALUES (?1, ?2, ?3, ?4, 100000)")?;
    for id in 1..=CUSTOMERS {
        // some are NULL and some are empty: not the same
        let fax = (id % 3 == 0).then(|| format!("+49 30 {id:06}"));
        let email = if id % 7 == 0 { String::new() } else { format!("customer{id}@example.org") };
        customer.execute(params![id, format!("Customer Nö. {id}"), email, fax])?;
    }
    let mut product = transaction.prepare("INSERT INTO products VALUES (?1, ?2, ?3, 1000000)")?;
    for id in 1..=PRODUCTS {
        product.execute(params![id, format!("Product {id}"), 100 + id % 900])?;
    }
    let mut order = transaction.prepare("INSERT INTO orders VALUES (?1, ?2, ?3, ?4)")?;
    let mut line = transaction.prepare("INSERT INTO order_lines VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for id in 1..=ORDERS {
        order.execute(params![id, id % CUSTOMERS + 1, format!("2025-{:02}-{:02}", id % 12 + 1, id % 28 + 1), id % 5000])?;
        for number in 1..=LINES_PER_ORDER {
            line.execute(params![id, number, (id * number) % PRODUCTS + 1, id % 5 + 1, (id % 900) as f64 / 7.0])?;
        }
    }
    Ok(())
}
