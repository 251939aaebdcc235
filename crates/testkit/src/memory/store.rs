//! The store itself: what is committed, what is durable, who is connected, and the handles tests turn.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use godwit_model::{Error, Finding, Marker, Micros, Result, Row, SequenceValue, TableName, TransactionId, Value, codes};
use tokio::sync::watch;

use super::godwit::Fenced;
use super::heap::{Heap, Shift};
use super::log::{Log, Place, What};
use super::open::{Locks, Open};
use super::spec::TableSpec;
use super::state::{State, View};
use super::transaction::Transaction;

/// What becomes of a commit whose connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCommit {
    /// The connection broke before the server took it: nothing happened.
    Before,
    /// It took effect, only the answer was lost.
    After,
}

type CommitHook = Arc<dyn Fn(&View) -> Result<(), String> + Send + Sync>;

/// A store. Clones are handles to the same one.
#[derive(Clone)]
pub struct MemoryStore {
    core: Arc<Mutex<Core>>,
    /// Users' closures run one after another, so that they never refuse each other a row.
    users: Arc<Mutex<()>>,
    changed: Arc<watch::Sender<u64>>,
}

pub(super) struct Core {
    pub identity: String,
    pub committed: State,
    /// What would survive a crash, and the log's end then, where that is less than what is committed.
    durable: Option<(State, Place)>,
    /// Raised by every commit.
    pub version: u64,
    /// Raised by every cut: connections of an earlier one are dead.
    pub generation: u64,
    down: bool,
    pub log: Log,
    pub open: BTreeSet<u64>,
    pub locks: Locks,
    pub random: fastrand::Rng,
    pub read_only: BTreeSet<TableName>,
    pub findings: Vec<Finding>,
    next_transaction: u64,
    next_file: u64,
    hooks: Vec<CommitHook>,
    violation: Option<String>,
    lost_commits: VecDeque<LostCommit>,
}

/// How a transaction commits.
#[derive(Default)]
pub(super) struct CommitAs<'a> {
    pub origin: Option<String>,
    /// May be lost in a crash until something durable follows.
    pub asynchronous: bool,
    pub fenced: Option<Fenced<'a>>,
}

impl MemoryStore {
    /// `identity` tells stores apart; `seed` decides which slots rows move to.
    pub fn new(identity: &str, seed: u64) -> Self {
        let core = Core {
            identity: identity.to_owned(),
            committed: State::default(),
            durable: None,
            version: 0,
            generation: 0,
            down: false,
            log: Log::default(),
            open: BTreeSet::new(),
            locks: Locks::default(),
            random: fastrand::Rng::with_seed(seed),
            read_only: BTreeSet::new(),
            findings: Vec::new(),
            next_transaction: 0,
            next_file: 0,
            hooks: Vec::new(),
            violation: None,
            lost_commits: VecDeque::new(),
        };
        let changed = Arc::new(watch::channel(0).0);
        MemoryStore { core: Arc::new(Mutex::new(core)), users: Arc::default(), changed }
    }

    pub fn create_table(&self, spec: TableSpec) {
        self.change(|core| {
            core.next_file += 1;
            let heap = Heap::new(spec, core.next_file);
            core.publish(false, |state| {
                state.tables.insert(heap.spec.name.clone(), Arc::new(heap));
                Ok(())
            })
        })
        .expect("making a table in memory cannot fail");
    }

    /// Runs a users' transaction: commits what the closure did, or nothing if it fails. Closures run one after another.
    pub fn transaction<T>(&self, work: impl FnOnce(&mut Transaction) -> Result<T>) -> Result<T> {
        let _turn = self.users.lock().expect("a users' transaction does not panic");
        let mut transaction = self.begin()?;
        let answer = work(&mut transaction)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// A users' transaction that stays open; dropping it rolls it back.
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::begin(self.clone())
    }

    /// What a reader sees now.
    pub fn view(&self) -> View {
        View(self.quiet(|core| core.committed.clone()))
    }

    /// Asks this of every state from its commit on, under the store's lock. The first answer that is an error is kept.
    pub fn on_commit(&self, hook: impl Fn(&View) -> Result<(), String> + Send + Sync + 'static) {
        self.change(|core| core.hooks.push(Arc::new(hook)));
    }

    /// The first invariant that broke, as the hook told it.
    pub fn violation(&self) -> Option<String> {
        self.quiet(|core| core.violation.clone())
    }

    pub fn set_sequence(&self, value: SequenceValue) {
        let work = |core: &mut Core| {
            core.publish(false, |state| {
                state.sequences.insert(value.name.clone(), value);
                Ok(())
            })
        };
        self.change(work).expect("setting a sequence in memory cannot fail");
    }

    /// Says that a foreign key leads from one table to another; described to `present`, never enforced.
    pub fn reference(&self, from: TableName, to: TableName) {
        let work = |core: &mut Core| {
            core.publish(false, |state| {
                state.references.push((from, to));
                Ok(())
            })
        };
        self.change(work).expect("a note in memory cannot fail");
    }

    /// What `check` will say, as source and as target.
    pub fn set_findings(&self, findings: Vec<Finding>) {
        self.change(|core| core.findings = findings);
    }

    /// VACUUM FULL: every row gets another slot, nothing is logged, plans made before are stale.
    pub fn rewrite(&self, table: &TableName) -> Result<()> {
        self.change(|core| {
            core.untouched(table)?;
            let mut rows: Vec<Arc<Row>> = core.committed.heap(table)?.rows.values().cloned().collect();
            core.random.shuffle(&mut rows);
            core.next_file += 1;
            let before = core.committed.heap(table)?;
            let mut next = Heap::new((*before.spec).clone(), core.next_file);
            next.history = before.history.clone();
            rows.into_iter().zip(0..).for_each(|(row, slot)| next.put(slot, row));
            core.publish(false, |state| {
                state.tables.insert(table.clone(), Arc::new(next));
                Ok(())
            })
        })
    }

    /// A schema change: `spec` in place of the table's definition, every row made anew by `row`. The log announces it.
    pub fn alter(&self, spec: TableSpec, what: &str, row: impl FnMut(&Row) -> Row) -> Result<()> {
        let table = spec.name.clone();
        self.change(|core| {
            core.untouched(&table)?;
            let mut next = core.committed.heap(&table)?.reshaped(spec, row)?;
            Arc::make_mut(&mut next.history).push(Shift::Computed);
            let id = core.next_transaction();
            core.log.append(id, id, What::Schema { table: table.clone(), what: what.to_owned() });
            core.log.append(id, id, What::Commit { time: now(), origin: None });
            core.publish(false, |state| {
                state.tables.insert(table.clone(), Arc::new(next));
                Ok(())
            })
        })
    }

    /// The table's definition as it is now. Panics if there is no such table.
    pub fn spec(&self, table: &TableName) -> TableSpec {
        self.quiet(|core| (*core.committed.heap(table).expect("a table that is there").spec).clone())
    }

    /// A schema change of which the log says nothing but the layout of the changes that follow.
    pub fn alter_unseen(&self, spec: TableSpec, row: impl FnMut(&Row) -> Row) -> Result<()> {
        self.shift(spec, Shift::Computed, row)
    }

    /// Adds a column with this value in every row, as a server does without writing one; the log does not say so.
    pub fn add_column(&self, table: &TableName, name: &str, type_name: &str, value: &Value) -> Result<()> {
        let spec = self.quiet(|core| Ok::<_, Error>((*core.committed.heap(table)?.spec).clone()))?;
        self.shift(spec.column(name, type_name), Shift::Added(name.to_owned(), value.clone()), |row| {
            [&row[..], std::slice::from_ref(value)].concat()
        })
    }

    /// Drops a column that belongs to no key; the log does not say so.
    pub fn drop_column(&self, table: &TableName, name: &str) -> Result<()> {
        let spec = self.quiet(|core| Ok::<_, Error>((*core.committed.heap(table)?.spec).clone()))?;
        let gone = spec.index_of(name).ok_or_else(|| Error::new(&codes::COLUMN_UNKNOWN, format!("no column `{name}`")))?;
        let spec = spec.without(name);
        self.shift(spec, Shift::Dropped(name.to_owned()), |row| {
            row.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, value)| value.clone()).collect()
        })
    }

    /// Gives a column another name; the log does not say so.
    pub fn rename_column(&self, table: &TableName, old: &str, new: &str) -> Result<()> {
        let spec = self.quiet(|core| Ok::<_, Error>((*core.committed.heap(table)?.spec).clone()))?.renamed(old, new);
        self.shift(spec, Shift::Renamed(old.to_owned(), new.to_owned()), Row::clone)
    }

    /// Another definition of the same columns: constraints, indexes, NOT NULL. The log does not say so.
    pub fn bound(&self, spec: TableSpec) -> Result<()> {
        self.shift(spec, Shift::Bounded, Row::clone)
    }

    fn shift(&self, spec: TableSpec, shift: Shift, row: impl FnMut(&Row) -> Row) -> Result<()> {
        let table = spec.name.clone();
        self.change(|core| {
            core.untouched(&table)?;
            let mut next = core.committed.heap(&table)?.reshaped(spec, row)?;
            Arc::make_mut(&mut next.history).push(shift);
            core.publish(false, |state| {
                state.tables.insert(table.clone(), Arc::new(next));
                Ok(())
            })
        })
    }

    /// All connections break; the store goes on.
    pub fn cut(&self) {
        self.change(Core::cut);
    }

    /// `kill -9` and an immediate restart: what was not durable is gone, all connections break.
    pub fn crash(&self) {
        self.change(Core::crash);
    }

    /// Crashes and stays away until `start`.
    pub fn stop(&self) {
        self.change(|core| {
            core.crash();
            core.down = true;
        });
    }

    pub fn start(&self) {
        self.change(|core| core.down = false);
    }

    /// The next commit by Godwit (a batch, a chunk, ledger entries) loses its connection.
    pub fn lose_next_commit(&self, how: LostCommit) {
        self.change(|core| core.lost_commits.push_back(how));
    }

    /// Drops the replication slot behind Godwit's back.
    pub fn lose_position(&self, slot: &str) {
        self.change(|core| {
            core.log.slots.remove(slot);
            core.log.trim();
        });
    }

    /// How many records the log still holds.
    pub fn log_records(&self) -> usize {
        self.quiet(|core| core.log.len())
    }

    /// Changes the store's identity: another server answers at the same address.
    pub fn become_another(&self, identity: &str) {
        self.change(|core| {
            core.identity = identity.to_owned();
            core.cut();
        });
    }

    /// Access without waking anyone.
    pub(super) fn quiet<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        work(&mut self.core.lock().expect("nothing panics under the store's lock"))
    }

    /// Access that wakes all who wait for news.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        let answer = self.quiet(work);
        self.changed.send_modify(|count| *count += 1);
        answer
    }

    /// Take it before looking, await it after: no news is missed.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Core {
    /// A new connection.
    pub fn connect(&self) -> Result<u64> {
        if self.down {
            return Err(Error::new(&codes::UNREACHABLE, "the store is away").at(self.identity.clone()));
        }
        Ok(self.generation)
    }

    /// Whether a connection opened then is still there.
    pub fn alive(&self, generation: u64) -> Result<()> {
        if self.generation == generation && !self.down {
            return Ok(());
        }
        Err(Error::new(&codes::CONNECTION_LOST, "the connection was lost").at(self.identity.clone()))
    }

    pub fn next_transaction(&mut self) -> TransactionId {
        self.next_transaction += 1;
        TransactionId(self.next_transaction)
    }

    pub fn next_file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file
    }

    /// Makes a new committed state out of the present one, all or nothing.
    pub fn publish<T>(&mut self, asynchronous: bool, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut next = self.committed.clone();
        let answer = work(&mut next)?;
        let before = std::mem::replace(&mut self.committed, next);
        self.version += 1;
        match asynchronous {
            true => {
                let end = self.log.end;
                self.durable.get_or_insert((before, end));
            }
            false => self.flush(),
        }
        self.tell_hooks();
        Ok(answer)
    }

    /// `publish` of what Godwit does in one short transaction, with the faults a commit can have.
    pub fn publish_by_godwit<T>(&mut self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let lost = self.lost_commits.pop_front();
        if lost == Some(LostCommit::Before) {
            return Err(lost_connection());
        }
        let answer = self.publish(false, work)?;
        if lost == Some(LostCommit::After) { Err(lost_connection()) } else { Ok(answer) }
    }

    pub fn commit(&mut self, open: &mut Open, how: CommitAs<'_>) -> Result<()> {
        let answer = self.try_commit(open, how);
        self.abort(open); // does nothing where the commit took effect
        answer
    }

    fn try_commit(&mut self, open: &mut Open, how: CommitAs<'_>) -> Result<()> {
        self.refresh(open)?;
        if open.has_savepoint() {
            while open.has_savepoint() {
                self.release_savepoint(open)?;
            }
        }
        let lost = if open.user { None } else { self.lost_commits.pop_front() };
        if lost == Some(LostCommit::Before) {
            return Err(lost_connection());
        }
        open.state = State::default(); // its copies would make the next line copy every table again
        let effects = std::mem::take(&mut open.effects);
        let work = |state: &mut State| {
            effects.iter().try_for_each(|effect| state.apply(effect))?;
            how.fenced.as_ref().map_or(Ok(()), |fenced| fenced.apply(state))
        };
        if let Err(error) = self.publish(how.asynchronous, work) {
            open.effects = effects; // so that the log tells of the abort
            return Err(error);
        }
        if !effects.is_empty() {
            self.log.append(open.transaction, open.transaction, What::Commit { time: now(), origin: how.origin });
        }
        self.open.remove(&open.transaction.0);
        self.locks.release(open.transaction);
        self.log.trim();
        if lost == Some(LostCommit::After) { Err(lost_connection()) } else { Ok(()) }
    }

    pub fn mark(&mut self, marker: &Marker) {
        let id = self.next_transaction();
        self.log.append(id, id, What::Marker(marker.clone()));
        self.log.append(id, id, What::Commit { time: now(), origin: None });
        self.flush();
        self.log.trim();
    }

    /// Up to where streams may read: what is not durable yet must not leave the store.
    pub fn durable_end(&self) -> Place {
        self.durable.as_ref().map_or(self.log.end, |(_, end)| *end)
    }

    /// Everything committed so far is durable now.
    pub fn flush(&mut self) {
        self.durable = None;
    }

    pub fn untouched(&self, table: &TableName) -> Result<()> {
        match self.locks.touches(table) {
            true => Err(Error::new(&codes::BUSY, "a transaction under way has touched the table").at(format!("table {table}"))),
            false => Ok(()),
        }
    }

    fn cut(&mut self) {
        self.generation += 1;
        self.locks.clear();
        let open = std::mem::take(&mut self.open);
        for id in open {
            self.log.append(TransactionId(id), TransactionId(id), What::Abort);
        }
        for slot in self.log.slots.values_mut() {
            slot.reader = None;
        }
    }

    fn crash(&mut self) {
        let mut keep = self.log.end;
        if let Some((state, end)) = self.durable.take() {
            self.committed = state;
            self.version += 1;
            keep = end;
        }
        self.log.crash(keep);
        self.open.clear();
        self.cut();
    }

    fn tell_hooks(&mut self) {
        if self.hooks.is_empty() || self.violation.is_some() {
            return;
        }
        let view = View(self.committed.clone());
        self.violation = self.hooks.iter().find_map(|hook| hook(&view).err());
    }
}

pub(super) fn now() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn lost_connection() -> Error {
    Error::new(&codes::CONNECTION_LOST, "the connection broke while a commit was under way")
}
