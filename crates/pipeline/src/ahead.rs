//! Whether a transaction enters the change log before its commit is known. Pure: the clock is a parameter.
//!
//! A large transaction that streams in alone is most likely the next to commit. It enters early, so that replay applies it
//! while the rest still arrives and only its commit is waited for. If another one commits first, or part of it is rolled
//! back, it leaves the log again as a void one and enters anew at its commit, out of the spool, which holds it meanwhile.
//! One that brings a new layout stays out: what an altered table asks for must not be done for a commit that never comes.

use std::time::Duration;

use godwit_model::TransactionId;
use tokio::time::Instant;

/// How long an idle source may leave it without a word: the target holds its rows in an open transaction.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Ahead {
    /// Changes from which on a transaction enters.
    heavy: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Nobody,
    /// Alone so far, with changes of this weight.
    Candidate(TransactionId, usize),
    /// In the log, and when it was last heard of.
    Entered(TransactionId, Instant),
    /// Was in the log, or may not be there, and does not try again.
    Left(TransactionId),
    /// The next transaction heard of may not enter.
    Barred,
}

impl Ahead {
    pub fn new(heavy: usize) -> Self {
        Ahead { heavy, state: State::Nobody }
    }

    pub fn entered(&self) -> Option<TransactionId> {
        match self.state {
            State::Entered(transaction, _) => Some(transaction),
            _ => None,
        }
    }

    /// Takes note of changes that were spooled; says whether the transaction now enters.
    pub fn spooled(&mut self, transaction: TransactionId, weight: usize, alone: bool, now: Instant) -> bool {
        match &mut self.state {
            State::Entered(there, heard) => {
                if *there == transaction {
                    *heard = now;
                }
                false
            }
            State::Left(there) if *there == transaction => false,
            State::Barred => {
                self.state = State::Left(transaction);
                false
            }
            _ if !alone => {
                self.state = State::Nobody;
                false
            }
            State::Candidate(there, before) if *there == transaction => {
                *before += weight;
                self.is_due(now)
            }
            _ => {
                self.state = State::Candidate(transaction, weight);
                self.is_due(now)
            }
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        match self.state {
            State::Candidate(transaction, weight) if weight >= self.heavy => {
                self.state = State::Entered(transaction, now);
                true
            }
            _ => false,
        }
    }

    /// Whether nothing was heard of it for too long.
    pub fn is_stale(&self, now: Instant) -> bool {
        matches!(self.state, State::Entered(_, heard) if now.saturating_duration_since(heard) > PATIENCE)
    }

    /// A layout came that the log did not know, for what comes next.
    pub fn bar(&mut self) {
        self.state = State::Barred;
    }

    /// A transaction that was not streamed is whole: if a layout came with it, the log knows it for good.
    pub fn settled(&mut self) {
        if matches!(self.state, State::Barred) {
            self.state = State::Nobody;
        }
    }

    /// What entered leaves again.
    pub fn leave(&mut self) {
        if let State::Entered(transaction, _) = self.state {
            self.state = State::Left(transaction);
        }
    }

    /// The transaction has ended.
    pub fn ended(&mut self, transaction: TransactionId) {
        match self.state {
            State::Candidate(there, _) | State::Entered(there, _) | State::Left(there) if there == transaction => {
                self.state = State::Nobody;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TransactionId = TransactionId(1);
    const U: TransactionId = TransactionId(2);

    #[test]
    fn a_heavy_transaction_enters_only_alone_and_only_once() {
        let now = Instant::now();
        let mut ahead = Ahead::new(10);
        assert!(!ahead.spooled(T, 9, true, now));
        assert!(!ahead.spooled(U, 9, false, now), "two are under way");
        assert!(!ahead.spooled(T, 9, true, now), "counted anew");
        assert!(ahead.spooled(T, 1, true, now));
        assert_eq!(ahead.entered(), Some(T));
        ahead.leave();
        assert!(!ahead.spooled(T, 100, true, now));
        ahead.ended(T);
        assert!(ahead.spooled(U, 10, true, now));
    }

    #[test]
    fn a_transaction_with_a_new_layout_stays_out() {
        let now = Instant::now();
        let mut ahead = Ahead::new(10);
        ahead.bar();
        assert!(!ahead.spooled(T, 100, true, now) && !ahead.spooled(T, 100, true, now));
        ahead.ended(T);
        assert!(ahead.spooled(U, 100, true, now));
    }

    #[test]
    fn a_layout_of_a_small_transaction_bars_no_large_one() {
        let mut ahead = Ahead::new(10);
        ahead.bar();
        ahead.settled();
        assert!(ahead.spooled(T, 100, true, Instant::now()));
    }

    #[test]
    fn what_is_not_heard_of_is_stale() {
        let now = Instant::now();
        let mut ahead = Ahead::new(10);
        ahead.spooled(T, 10, true, now);
        ahead.spooled(T, 1, true, now + PATIENCE);
        assert!(!ahead.is_stale(now + PATIENCE * 2));
        assert!(ahead.is_stale(now + PATIENCE * 3));
    }
}
