//! One transaction of the log while it is read.
//!
//! What fits into one piece stays here until the transaction's end, so that a savepoint that is gone back to, and a
//! transaction that is rolled back in the log or has no end (the server was killed while it wrote it), cost nothing. What is
//! larger is handed on in pieces.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use godwit_model::{Captured, Change, ChangeBatch, Error, Layout, Marker, Micros, Position, Result, Value, codes};

use super::beginning;
use crate::binlog::{GtidEvent, undecodable};

/// One piece of a transaction: bounds what a stream holds, together with the size of the largest event.
const PIECE_BYTES: usize = 1 << 20;
/// Savepoints that are remembered of one transaction, the newest ones: their release is not logged. One that is gone back to
/// and was forgotten stops the stream.
const MOST_SAVEPOINTS: usize = 100_000;

pub(super) struct Transaction {
    pub(super) event: GtidEvent,
    pub(super) beginning: beginning::Reader,
    batch: ChangeBatch,
    /// Of what is in the batch.
    weight: usize,
    markers: Vec<Marker>,
    savepoints: Savepoints,
    /// Whether its beginning was handed on.
    is_begun: bool,
}

/// How much of the batch lay before a savepoint.
#[derive(Clone, Copy)]
struct Savepoint {
    changes: usize,
    values: usize,
}

/// Those that may be gone back to, in their order.
#[derive(Default)]
struct Savepoints {
    by_number: BTreeMap<u64, (String, Savepoint)>,
    numbers: HashMap<String, u64>,
    next: u64,
    /// The server holds letters with and without accents for the same: which savepoint is meant is not known here.
    has_unclear: bool,
}

impl Savepoints {
    /// One of the same name is forgotten, and so is the oldest of too many.
    fn add(&mut self, name: &str, savepoint: Savepoint) {
        self.has_unclear |= !name.is_ascii();
        let name = folded(name);
        if let Some(older) = self.numbers.insert(name.clone(), self.next) {
            self.by_number.remove(&older);
        }
        self.by_number.insert(self.next, (name, savepoint));
        self.next += 1;
        if self.by_number.len() > MOST_SAVEPOINTS
            && let Some((_, (oldest, _))) = self.by_number.pop_first()
        {
            self.numbers.remove(&oldest);
        }
    }

    /// Forgets those behind this one. None: it is not known.
    fn back_to(&mut self, name: &str) -> Option<Savepoint> {
        let number = *self.numbers.get(&folded(name)).filter(|_| !self.has_unclear)?;
        for (later, _) in self.by_number.split_off(&(number + 1)).into_values() {
            self.numbers.remove(&later);
        }
        self.by_number.get(&number).map(|(_, savepoint)| *savepoint)
    }
}

fn folded(name: &str) -> String {
    name.trim_end().to_ascii_lowercase()
}

impl Transaction {
    pub(super) fn new(event: GtidEvent, beginning: beginning::Reader) -> Self {
        Transaction {
            event,
            beginning,
            batch: ChangeBatch::default(),
            weight: 0,
            markers: Vec::new(),
            savepoints: Savepoints::default(),
            is_begun: false,
        }
    }

    /// Whether it says anything of selected tables.
    pub(super) fn has_changes(&self) -> bool {
        self.is_begun || !self.batch.is_empty()
    }

    pub(super) fn batch(&mut self) -> &mut ChangeBatch {
        &mut self.batch
    }

    pub(super) fn mark(&mut self, marker: Marker) {
        self.markers.push(marker);
    }

    /// After changes were added from `values` on. Whether it is large enough to hand on.
    pub(super) fn grown(&mut self, values: usize, changes: usize) -> bool {
        let added = self.batch.values.get(values..).unwrap_or_default();
        self.weight += added.iter().map(Value::weight).sum::<usize>();
        self.weight += (self.batch.changes.len() - changes) * size_of::<Change>();
        self.weight >= PIECE_BYTES
    }

    pub(super) fn hand_on(&mut self, queue: &mut VecDeque<Captured>) {
        if !std::mem::replace(&mut self.is_begun, true) {
            queue.push_back(Captured::Begin);
        }
        if !self.batch.is_empty() {
            queue.push_back(Captured::Changes(std::mem::take(&mut self.batch)));
        }
        self.weight = 0;
        // what lies before here cannot be taken back
        self.savepoints = Savepoints::default();
    }

    pub(super) fn savepoint(&mut self, name: &str) {
        self.savepoints.add(name, Savepoint { changes: self.batch.changes.len(), values: self.batch.values.len() });
    }

    /// Rows behind the savepoint are in the log and were undone: seen where a table without transactions was changed too.
    pub(super) fn back_to(&mut self, name: &str) -> Result<()> {
        if !self.has_changes() {
            return Ok(());
        }
        let Some(savepoint) = self.savepoints.back_to(name) else {
            return Err(if self.is_begun {
                taken_back()
            } else {
                undecodable("the source's log goes back to a savepoint that it does not hold")
                    .remedy("run with --resync; it comes from transactions that change tables with and without transactions together")
            });
        };
        self.batch.changes.truncate(savepoint.changes);
        self.batch.values.truncate(savepoint.values);
        self.weight = self.batch.weight();
        Ok(())
    }

    /// The transaction has no effect.
    pub(super) fn forget_all(&mut self) -> Result<()> {
        if self.is_begun {
            return Err(taken_back());
        }
        self.batch = ChangeBatch::default();
        self.weight = 0;
        self.markers.clear();
        self.savepoints = Savepoints::default();
        Ok(())
    }

    /// Whether anybody wants to hear of it.
    pub(super) fn is_of_interest(&self) -> bool {
        self.has_changes() || !self.markers.is_empty()
    }

    /// Hands on what is left and the commit.
    pub(super) fn commit(mut self, position: Position, time: Micros, queue: &mut VecDeque<Captured>) {
        self.hand_on(queue);
        queue.extend(self.markers.drain(..).map(Captured::Marker));
        queue.push_back(Captured::Commit { position, time, origin: None });
    }
}

pub(super) fn announce(layout: &Arc<Layout>, queue: &mut VecDeque<Captured>) {
    queue.push_back(Captured::Layout(layout.clone()));
}

fn taken_back() -> Error {
    Error::new(&codes::LOG_UNDECODABLE, "the source's log takes back a part of a transaction that is too large to be held until its end")
        .remedy(
            "run with --resync; it comes from transactions that make temporary tables or change tables with and without \
             transactions together, and were rolled back, or from a server that was killed",
        )
        .effect("everything before this transaction was taken over, nothing of it")
}
