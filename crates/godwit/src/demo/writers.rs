//! The shop's users: threads that order, pay, restock and cancel as long as they are let.
//!
//! Each transaction leaves a row in the journal, numbered by its writer, so that one can tell at the other side whether it
//! arrived exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use godwit_model::{Error, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::folder::Folder;
use super::shop;

pub const WRITERS: usize = 4;
/// What a user thinks between two transactions; without it the four would only wait for one another.
const PAUSE: Duration = Duration::from_millis(1);
/// Orders of writers have numbers of their own, far from one another.
const ORDERS_OF_ONE: i64 = 100_000_000;

/// What one writer committed.
#[derive(Clone, Debug, Default)]
pub struct Count {
    pub transactions: u64,
    changes: u64,
    refused: u64,
}

/// What all writers committed.
pub struct Written {
    pub counts: Vec<Count>,
}

impl Written {
    pub fn transactions(&self) -> u64 {
        self.counts.iter().map(|count| count.transactions).sum()
    }

    /// Rows inserted, updated and deleted.
    pub fn changes(&self) -> u64 {
        self.counts.iter().map(|count| count.changes).sum()
    }

    pub fn doubt(&self) -> Option<String> {
        let refused: u64 = self.counts.iter().map(|count| count.refused).sum();
        if refused > 0 {
            return Some(format!("{refused} transactions of the shop's users were refused"));
        }
        self.counts.iter().any(|count| count.transactions == 0).then(|| "a writer committed nothing".to_owned())
    }
}

/// Dropping it lets the writers end and waits for them.
pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Count>>,
}

impl Writers {
    pub fn begin(folder: &Folder) -> Result<Writers> {
        let mut writers = Writers { stop: Arc::default(), threads: Vec::with_capacity(WRITERS) };
        for number in 0..WRITERS {
            let writer = Writer {
                number: number as i64,
                connection: shop::open(&folder.source())?,
                orders: 0,
                random: Rng::with_seed(number as u64),
            };
            let stop = writers.stop.clone();
            let thread = std::thread::Builder::new().name(format!("writer {number}")).spawn(move || writer.work(&stop));
            writers.threads.push(thread.map_err(|cause| Error::internal("no thread for a writer").caused_by(cause))?);
        }
        Ok(writers)
    }

    pub fn end(mut self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.threads.drain(..).map(|thread| thread.join().map_err(|_| Error::internal("a writer of the demo died")));
        Ok(Written { counts: joined.collect::<Result<_>>()? })
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Writer {
    number: i64,
    connection: Connection,
    /// Made so far; some of them cancelled again.
    orders: i64,
    random: Rng,
}

impl Writer {
    fn work(mut self, stop: &AtomicBool) -> Count {
        let mut count = Count::default();
        while !stop.load(Ordering::Relaxed) {
            match self.transaction(count.transactions as i64 + 1) {
                Ok(changes) => {
                    count.transactions += 1;
                    count.changes += changes;
                }
                Err(cause) => {
                    tracing::warn!(%cause, "a transaction of the shop was refused");
                    count.refused += 1;
                }
            }
            std::thread::sleep(PAUSE);
        }
        count
    }

    /// One transaction; gives how many rows it changed.
    fn transaction(&mut self, number: i64) -> rusqlite::Result<u64> {
        let order = self.number * ORDERS_OF_ONE + ORDERS_OF_ONE + self.orders;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let random = &mut self.random;
        let (what, changes) = match random.u32(0..10) {
            0..=4 => ("order", place_order(&transaction, order, random)?),
            5..=7 => ("money", move_money(&transaction, random)?),
            8 => ("email", change_email(&transaction, random)?),
            _ => ("cancel", cancel(&transaction, order - random.i64(1..=20))?),
        };
        let journal = transaction.prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3)")?.execute(params![self.number, number, what])?;
        transaction.commit()?;
        self.orders += i64::from(what == "order");
        Ok((changes + journal) as u64)
    }
}

fn place_order(transaction: &Transaction<'_>, id: i64, random: &mut Rng) -> rusqlite::Result<usize> {
    let customer = random.i64(1..=shop::CUSTOMERS);
    let mut changes =
        transaction.prepare_cached("INSERT INTO orders VALUES (?1, ?2, datetime('now'), 0)")?.execute(params![id, customer])?;
    for line in 1..=random.i64(1..=4) {
        let (product, quantity) = (random.i64(1..=shop::PRODUCTS), random.i64(1..=9));
        changes += transaction
            .prepare_cached("INSERT INTO order_lines SELECT ?1, ?2, id, ?4, price / 100.0 FROM products WHERE id = ?3")?
            .execute(params![id, line, product, quantity])?;
        changes +=
            transaction.prepare_cached("UPDATE products SET stock = stock - ?2 WHERE id = ?1")?.execute(params![product, quantity])?;
    }
    changes += transaction
        .prepare_cached("UPDATE orders SET total = (SELECT sum(quantity) FROM order_lines WHERE order_id = ?1) WHERE id = ?1")?
        .execute([id])?;
    Ok(changes)
}

/// From one customer to another; the sum over all stays.
fn move_money(transaction: &Transaction<'_>, random: &mut Rng) -> rusqlite::Result<usize> {
    let (from, to, amount) = (random.i64(1..=shop::CUSTOMERS), random.i64(1..=shop::CUSTOMERS), random.i64(1..=100));
    let mut statement = transaction.prepare_cached("UPDATE customers SET balance = balance + ?2 WHERE id = ?1")?;
    Ok(statement.execute(params![from, -amount])? + statement.execute(params![to, amount])?)
}

fn change_email(transaction: &Transaction<'_>, random: &mut Rng) -> rusqlite::Result<usize> {
    let email = random.bool().then(|| format!("new{}@example.org", random.u32(..)));
    transaction.prepare_cached("UPDATE customers SET email = ?2 WHERE id = ?1")?.execute(params![random.i64(1..=shop::CUSTOMERS), email])
}

/// Takes an order back, if it is there: its goods return to the stock.
fn cancel(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<usize> {
    let restock =
        "UPDATE products SET stock = stock + (SELECT sum(quantity) FROM order_lines WHERE order_id = ?1 AND product_id = products.id)
        WHERE id IN (SELECT product_id FROM order_lines WHERE order_id = ?1)";
    let mut changes = transaction.prepare_cached(restock)?.execute([id])?;
    changes += transaction.prepare_cached("DELETE FROM order_lines WHERE order_id = ?1")?.execute([id])?;
    changes += transaction.prepare_cached("DELETE FROM orders WHERE id = ?1")?.execute([id])?;
    Ok(changes)
}
