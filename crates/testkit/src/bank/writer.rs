//! One writer's endless, seeded run of transactions.

use super::{Account, Bank, FIRST_BALANCE, NOTE_LENGTH};
use crate::neutral::{Neutral, NeutralTransaction, Operation};

/// Makes one transaction after the other; each must be settled before the next.
pub struct Writer {
    number: u32,
    random: fastrand::Rng,
    accounts: Vec<Account>,
    next: i64,
    under_way: Option<UnderWay>,
    /// Journal ids that must be there.
    committed: Vec<i64>,
}

/// What the accounts are once the transaction has committed.
struct UnderWay {
    id: i64,
    accounts: Vec<Account>,
}

/// A transaction and the id of its journal row, by which a lost answer is settled.
#[derive(Clone, Debug)]
pub struct BankTransaction {
    pub id: i64,
    pub transaction: NeutralTransaction,
}

/// Journal ids of one writer follow each other; writers are this far apart.
const IDS_PER_WRITER: i64 = 1_000_000_000;

impl Writer {
    pub(super) fn new(bank: &Bank, number: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(bank.seed ^ (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let own = (0..bank.accounts).filter(|account| account % bank.writers == number);
        let account = |account: u32| {
            let note = note(&mut random);
            let table = (account / bank.writers % 3) as usize;
            Account { number: account, table, moved: false, balance: FIRST_BALANCE, version: 0, note }
        };
        let accounts = own.map(account).collect();
        Writer { number, random, accounts, next: i64::from(number) * IDS_PER_WRITER + 1, under_way: None, committed: Vec::new() }
    }

    pub(super) fn first_rows(&self) -> Vec<Operation> {
        self.accounts.iter().map(|account| Operation::Insert { table: account.table(), row: account.row() }).collect()
    }

    /// Journal ids of what has committed, in order.
    pub fn committed(&self) -> &[i64] {
        &self.committed
    }

    pub fn next_transaction(&mut self) -> BankTransaction {
        assert!(self.under_way.is_none(), "the transaction before is settled first");
        assert!(self.accounts.len() >= 2, "a writer moves money between two accounts at least");
        let id = self.next;
        self.next += 1;
        let mut accounts = self.accounts.clone();
        let mut operations = Vec::new();
        if self.random.u8(0..100) < 20 {
            self.undone(&accounts, &mut operations);
        }
        let moves = self.moves();
        let released = self.random.u8(0..100) < 20;
        for (number, (index, amount)) in moves.iter().enumerate() {
            let savepoint = released && number == 1;
            if savepoint {
                operations.push(Operation::Savepoint);
            }
            let account = &mut accounts[*index];
            account.balance += amount;
            account.version += 1;
            self.change(account, &mut operations);
            if savepoint {
                operations.push(Operation::ReleaseSavepoint);
            }
        }
        let touched = i64::try_from(moves.len()).expect("ten at most");
        let row = vec![Neutral::Int(id), Neutral::Int(i64::from(self.number)), Neutral::Int(touched)];
        operations.push(Operation::Insert { table: "journal".to_owned(), row });
        let commit = self.random.u8(0..100) >= 10;
        self.under_way = Some(UnderWay { id, accounts });
        BankTransaction { id, transaction: NeutralTransaction { operations, commit } }
    }

    /// Says how the transaction ended: whether its journal row is there.
    pub fn settle(&mut self, committed: bool) {
        let under_way = self.under_way.take().expect("a transaction is under way");
        if committed {
            self.accounts = under_way.accounts;
            self.committed.push(under_way.id);
        }
    }

    /// Which accounts get how much; the amounts sum up to nothing.
    fn moves(&mut self) -> Vec<(usize, i64)> {
        let most = self.accounts.len().min(10);
        let mut indices: Vec<usize> = (0..self.accounts.len()).collect();
        self.random.shuffle(&mut indices);
        indices.truncate(self.random.usize(2..=most));
        let mut moves: Vec<(usize, i64)> = indices.iter().map(|index| (*index, self.random.i64(-50..=50))).collect();
        let sum: i64 = moves[1..].iter().map(|(_, amount)| amount).sum();
        moves[0].1 = -sum;
        moves
    }

    /// Writes what `account` has become: mostly a plain update, sometimes a new key, a new note, or deleted and inserted.
    fn change(&mut self, account: &mut Account, operations: &mut Vec<Operation>) {
        let (table, find) = (account.table(), vec![account.key()]);
        let mut set = vec![(1, Neutral::Int(account.balance)), (2, Neutral::Int(account.version))];
        match self.random.u8(0..100) {
            0..10 => {
                account.moved = !account.moved;
                set.insert(0, (0, account.key()));
                operations.push(Operation::Update { table, find, set });
            }
            10..20 => {
                account.moved ^= self.random.bool();
                operations.push(Operation::Delete { table: table.clone(), find });
                operations.push(Operation::Insert { table, row: account.row() });
            }
            20..30 if account.table == 1 => {
                account.note = note(&mut self.random);
                set.push((3, Neutral::text(account.note.clone())));
                operations.push(Operation::Update { table, find, set });
            }
            _ => operations.push(Operation::Update { table, find, set }),
        }
    }

    /// Work that a savepoint takes back.
    fn undone(&mut self, accounts: &[Account], operations: &mut Vec<Operation>) {
        let account = &accounts[self.random.usize(0..accounts.len())];
        let (table, find) = (account.table(), vec![account.key()]);
        operations.push(Operation::Savepoint);
        operations.push(Operation::Update { table: table.clone(), find: find.clone(), set: vec![(1, Neutral::Int(-999_999))] });
        if self.random.bool() {
            operations.push(Operation::Delete { table, find });
        }
        operations.push(Operation::RollBackToSavepoint);
    }
}

fn note(random: &mut fastrand::Rng) -> String {
    (0..NOTE_LENGTH).map(|_| random.alphanumeric()).collect()
}
