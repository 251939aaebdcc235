//! The bank workload at work: writers on the source, and a reader of the target who trusts nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_testkit::bank::{Bank, Totals, Writer, sql};

use crate::pair::Pair;
use crate::store::{Row, Session, Store};

/// Between two transactions of a writer, so that a machine with two cores has room for Godwit and for other tests.
const PAUSE: Duration = Duration::from_millis(4);
/// The reader takes one snapshot in this time.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Before a store that was killed is asked again.
const RECONNECT: Duration = Duration::from_millis(20);

/// Whether the stores are killed while users are at work: then users live with errors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Users {
    NeverRefused,
    Forgiving,
}

/// Makes the tables at the source and fills them.
pub fn open(pair: &Pair, bank: &Bank) {
    let dialect = pair.source.dialect();
    let mut session = pair.source.connect().unwrap();
    session.execute(&sql::ddl(&dialect)).unwrap();
    for transaction in bank.fill() {
        session.execute(&sql::statements(&dialect, &transaction)).unwrap();
    }
}

pub struct Workload {
    stop: Arc<AtomicBool>,
    watch: Arc<Watch>,
    writers: Vec<JoinHandle<Writer>>,
    reader: Option<JoinHandle<Result<(), String>>>,
}

/// What the reader goes by, and what it tells.
#[derive(Default)]
struct Watch {
    armed: AtomicBool,
    /// How often the target was said to be no true past state any more.
    reopened: AtomicU64,
    /// How often all that was said had been heard.
    heard: AtomicU64,
    looks: AtomicU64,
}

impl Workload {
    pub fn begin(pair: &Pair, bank: Bank, users: Users) -> Workload {
        let (stop, watch) = (Arc::new(AtomicBool::new(false)), Arc::new(Watch::default()));
        let writers = (0..bank.writers).map(|number| {
            let (store, writer, stop) = (pair.source.clone(), bank.writer(number), stop.clone());
            std::thread::spawn(move || write(&*store, writer, users, &stop))
        });
        let writers = writers.collect();
        let reader = {
            let (store, stop, watch) = (pair.target.clone(), stop.clone(), watch.clone());
            std::thread::spawn(move || read(&*store, &bank, &stop, &watch))
        };
        Workload { stop, watch, writers, reader: Some(reader) }
    }

    /// `consistent` was reported: from here on the target must be a true past state at every moment.
    pub fn arm(&self) {
        self.watch.armed.store(true, Ordering::SeqCst);
    }

    /// It was said that rows are read again, or nobody is there who would: until `arm` the target may be anything.
    pub fn disarm(&self) {
        self.watch.reopened.fetch_add(1, Ordering::SeqCst);
        self.watch.armed.store(false, Ordering::SeqCst);
    }

    pub fn is_armed(&self) -> bool {
        self.watch.armed.load(Ordering::SeqCst)
    }

    /// All that runs have said so far was heard, and acted upon.
    pub fn heard(&self) {
        self.watch.heard.fetch_add(1, Ordering::SeqCst);
    }

    /// Snapshots that were checked.
    pub fn looks(&self) -> u64 {
        self.watch.looks.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub fn assert_never_broken(&self) {
        assert!(!self.reader.as_ref().unwrap().is_finished(), "the reader of the target has ended");
    }

    /// Stops the writers; the reader goes on.
    pub fn stop_writers(&mut self) -> Vec<Writer> {
        self.stop.store(true, Ordering::SeqCst);
        self.writers.drain(..).map(|writer| writer.join().unwrap()).collect()
    }

    /// The reader's last word.
    #[track_caller]
    pub fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let found = self.reader.take().unwrap().join().unwrap();
        assert_eq!(found, Ok(()), "what the reader of the target found");
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.writers.drain(..).for_each(|writer| drop(writer.join()));
        if let Some(reader) = self.reader.take()
            && let Ok(Err(found)) = reader.join()
        {
            eprintln!("the reader of the target found: {found}");
        }
    }
}

/// Both sides hold the same, the sums are right, and the journal has each committed transaction once.
#[track_caller]
pub fn assert_equal(pair: &Pair, bank: &Bank, writers: &[Writer]) {
    for table in godwit_testkit::bank::tables() {
        pair.assert_same(&pair.source.dialect().select(&table));
    }
    let mut committed: Vec<i64> = writers.iter().flat_map(|writer| writer.committed().iter().copied()).collect();
    committed.sort_unstable();
    let journal = pair.target.rows("SELECT id FROM journal ORDER BY id");
    let journal: Vec<i64> = journal.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
    assert!(journal == committed, "the journal has {} rows for {} transactions", journal.len(), committed.len());
    totals(&pair.target.rows(&sql::totals(&pair.target.dialect()))[0]).check(bank).unwrap();
}

fn write(store: &dyn Store, mut writer: Writer, users: Users, stop: &AtomicBool) -> Writer {
    let dialect = store.dialect();
    let mut session = store.connect().unwrap();
    while !stop.load(Ordering::SeqCst) {
        let next = writer.next_transaction();
        let statements = sql::statements(&dialect, &next.transaction);
        let committed = match session.execute(&statements) {
            Ok(touched) => {
                check_touched(&statements, &touched);
                next.transaction.commit
            }
            Err(problem) => {
                assert!(users == Users::Forgiving, "a user's transaction was refused: {problem}");
                let (again, committed) = settle(store, next.id);
                session = again;
                committed
            }
        };
        writer.settle(committed);
        std::thread::sleep(PAUSE);
    }
    writer
}

fn check_touched(statements: &[String], touched: &[u64]) {
    assert_eq!(statements.len(), touched.len());
    for (statement, touched) in statements.iter().zip(touched) {
        let one = statement.starts_with("UPDATE") || statement.starts_with("DELETE");
        assert!(!one || *touched == 1, "{touched} rows: {statement}");
    }
}

/// Whether the transaction whose answer was lost has happened.
fn settle(store: &dyn Store, id: i64) -> (Box<dyn Session>, bool) {
    loop {
        if let Ok(mut session) = store.connect()
            && let Ok(rows) = session.rows(&sql::journal_has(&store.dialect(), id))
        {
            return (session, !rows.is_empty());
        }
        std::thread::sleep(RECONNECT);
    }
}

/// A run says that rows are read again before it reads them; its words come through a thread and a pipe.
const WORDS_TAKE: Duration = Duration::from_secs(2);

fn read(store: &dyn Store, bank: &Bank, stop: &AtomicBool, watch: &Watch) -> Result<(), String> {
    let sql = sql::totals(&store.dialect());
    let mut session = None;
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK_EVERY);
        let reopened = watch.reopened.load(Ordering::SeqCst);
        if !watch.armed.load(Ordering::SeqCst) {
            continue;
        }
        if session.is_none() {
            session = store.connect().ok();
        }
        match session.as_mut().map(|session| session.rows(&sql)) {
            Some(Ok(rows)) => match totals(&rows[0]).check(bank) {
                Err(found) if !watch.was_told(reopened, stop) => return Err(found),
                _ => drop(watch.looks.fetch_add(1, Ordering::SeqCst)),
            },
            // the server was killed
            _ => session = None,
        }
    }
    Ok(())
}

impl Watch {
    /// Whether what was just seen is explained by something said since, once all that was said is heard.
    fn was_told(&self, reopened: u64, stop: &AtomicBool) -> bool {
        if self.heard.load(Ordering::SeqCst) == 0 {
            // nobody listens for it
            return false;
        }
        std::thread::sleep(WORDS_TAKE);
        let heard = self.heard.load(Ordering::SeqCst);
        while self.heard.load(Ordering::SeqCst) < heard + 2 && !stop.load(Ordering::SeqCst) {
            if self.reopened.load(Ordering::SeqCst) != reopened {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.reopened.load(Ordering::SeqCst) != reopened
    }
}

fn totals(row: &Row) -> Totals {
    let number = |index: usize| row[index].as_deref().unwrap().parse().unwrap();
    Totals {
        accounts: number(0),
        balance: number(1),
        versions: number(2),
        transactions: number(3),
        different_transactions: number(4),
        touched: number(5),
    }
}
