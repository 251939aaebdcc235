//! The bank workload: money moves between accounts, none appears, none vanishes.
//!
//! Accounts lie in three tables (one keyed by text, one with a large value that updates leave unsent); each transaction
//! moves money between 2 to 10 of them and writes one row to a journal. Some roll back, use savepoints, change keys, delete
//! and insert again. At every committed state the balances sum up to the same, and the versions of all accounts sum up to
//! what the journal says was touched: a transaction that is missing, doubled or split breaks one of the two.
//!
//! Each writer owns its accounts, so that writers never wait for each other and always know what a row holds. All is
//! decided by seeds; nothing here does I/O.

mod invariant;
pub mod sql;
mod writer;

pub use invariant::{Holdings, Totals};
pub use writer::{BankTransaction, Writer};

use crate::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction, Operation};

/// What every account holds at first.
const FIRST_BALANCE: i64 = 1_000;

/// Rows per transaction while the tables are filled.
const FILL_ROWS: usize = 100;

/// Longer than a page's share, so that engines keep it out of line and leave it unsent.
const NOTE_LENGTH: usize = 4_000;

/// `accounts_a`, `accounts_b`, `accounts_c`, `journal`. Column 0 is the key, 1 the balance, 2 the version.
pub fn tables() -> Vec<NeutralTable> {
    let (int, text, large) = (Kind::Int, Kind::Text, Kind::LargeText);
    vec![
        NeutralTable::new("accounts_a", &[("id", int), ("balance", int), ("version", int)], &[0]),
        NeutralTable::new("accounts_b", &[("id", int), ("balance", int), ("version", int), ("note", large)], &[0]),
        NeutralTable::new("accounts_c", &[("name", text), ("balance", int), ("version", int)], &[0]),
        NeutralTable::new("journal", &[("id", int), ("writer", int), ("touched", int)], &[0]),
    ]
}

/// One run of the workload: so many accounts, dealt to so many writers.
#[derive(Clone, Copy, Debug)]
pub struct Bank {
    pub accounts: u32,
    pub writers: u32,
    pub seed: u64,
}

impl Bank {
    /// As the workload is judged: 1,000 accounts, 4 writers.
    pub fn full(seed: u64) -> Self {
        Bank { accounts: 1_000, writers: 4, seed }
    }

    /// What all balances sum up to, always.
    pub fn total(&self) -> i64 {
        i64::from(self.accounts) * FIRST_BALANCE
    }

    /// Transactions that fill the tables, before any writer begins.
    pub fn fill(&self) -> Vec<NeutralTransaction> {
        let writers = (0..self.writers).map(|number| self.writer(number));
        let inserts: Vec<Operation> = writers.flat_map(|writer| writer.first_rows()).collect();
        inserts.chunks(FILL_ROWS).map(|rows| NeutralTransaction::commit(rows.to_vec())).collect()
    }

    /// The writer with this number, as it is before its first transaction.
    pub fn writer(&self, number: u32) -> Writer {
        Writer::new(self, number)
    }
}

/// One account as its writer knows it.
#[derive(Clone, Debug)]
struct Account {
    number: u32,
    /// 0, 1, 2: which of the three tables.
    table: usize,
    /// Whether the key is the second of the two it changes between.
    moved: bool,
    balance: i64,
    version: i64,
    note: String,
}

const TABLES: [&str; 3] = ["accounts_a", "accounts_b", "accounts_c"];

impl Account {
    fn table(&self) -> String {
        TABLES[self.table].to_owned()
    }

    fn key(&self) -> Neutral {
        let number = i64::from(self.number);
        match (self.table, self.moved) {
            (2, false) => Neutral::Text(format!("account {number}")),
            (2, true) => Neutral::Text(format!("Account {number} ")),
            (_, false) => Neutral::Int(number),
            (_, true) => Neutral::Int(-1 - number),
        }
    }

    fn row(&self) -> NeutralRow {
        let mut row = vec![self.key(), Neutral::Int(self.balance), Neutral::Int(self.version)];
        if self.table == 1 {
            row.push(Neutral::text(self.note.clone()));
        }
        row
    }
}
