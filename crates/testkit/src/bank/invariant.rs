//! What holds at every committed state.

use super::{Bank, Writer};
use crate::neutral::{Neutral, NeutralRow};

/// All rows of the four tables, in one snapshot, in the order of `bank::tables`.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    pub accounts: [Vec<NeutralRow>; 3],
    pub journal: Vec<NeutralRow>,
}

/// The sums that `bank::sql::totals` reads, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub accounts: i64,
    pub balance: i64,
    pub versions: i64,
    pub transactions: i64,
    pub different_transactions: i64,
    pub touched: i64,
}

impl Holdings {
    pub fn totals(&self) -> Totals {
        let accounts = || self.accounts.iter().flatten();
        let mut ids: Vec<&Neutral> = self.journal.iter().map(|row| &row[0]).collect();
        ids.sort();
        ids.dedup();
        Totals {
            accounts: length(accounts().count()),
            balance: accounts().map(|row| number(&row[1])).sum(),
            versions: accounts().map(|row| number(&row[2])).sum(),
            transactions: length(self.journal.len()),
            different_transactions: length(ids.len()),
            touched: self.journal.iter().map(|row| number(&row[2])).sum(),
        }
    }

    /// At the end: the journal holds exactly what the writers know to have committed.
    pub fn check_journal<'a>(&self, writers: impl IntoIterator<Item = &'a Writer>) -> Result<(), String> {
        let mut expected: Vec<i64> = writers.into_iter().flat_map(|writer| writer.committed().iter().copied()).collect();
        let mut found: Vec<i64> = self.journal.iter().map(|row| number(&row[0])).collect();
        expected.sort_unstable();
        found.sort_unstable();
        if expected == found {
            return Ok(());
        }
        let missing: Vec<&i64> = expected.iter().filter(|id| found.binary_search(id).is_err()).collect();
        let surplus: Vec<&i64> = found.iter().filter(|id| expected.binary_search(id).is_err()).collect();
        Err(format!("journal: {} rows for {} transactions, missing {missing:?}, surplus {surplus:?}", found.len(), expected.len()))
    }
}

impl Totals {
    /// At every moment.
    pub fn check(&self, bank: &Bank) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what}: {self:?}"));
        if self.accounts != i64::from(bank.accounts) {
            return wrong("accounts are missing or doubled");
        }
        if self.balance != bank.total() {
            return wrong("money appeared or vanished");
        }
        if self.transactions != self.different_transactions {
            return wrong("a transaction is in the journal twice");
        }
        if self.versions != self.touched {
            return wrong("a transaction is not whole");
        }
        Ok(())
    }
}

fn number(value: &Neutral) -> i64 {
    match value {
        Neutral::Int(number) => *number,
        _ => 0,
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).expect("a test holds few rows")
}
