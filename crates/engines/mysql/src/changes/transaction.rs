//! One transaction of the log while it is read.
//!
//! What fits into one piece stays here until the transaction's end, so that a savepoint that is gone back to, and a
//! transaction that is rolled back in the log or has no end (the server was killed while it wrote it), cost nothing. What is
//! larger is handed on in pieces.

use std::collections::VecDeque;
use std::sync::Arc;

use godwit_model::{Captured, Change, ChangeBatch, Error, Layout, Marker, Micros, Position, Result, Value, codes};

use crate::binlog::{GtidEvent, undecodable};

/// One piece of a transaction: bounds what a stream holds, together with the size of the largest event.
const PIECE_BYTES: usize = 1 << 20;
/// Savepoints that are remembered of one transaction.
const MOST_SAVEPOINTS: usize = 100_000;

pub(super) struct Transaction {
    pub(super) event: GtidEvent,
    batch: ChangeBatch,
    /// Of what is in the batch.
    weight: usize,
    markers: Vec<Marker>,
    savepoints: Vec<Savepoint>,
    /// Whether its beginning was handed on.
    is_begun: bool,
}

struct Savepoint {
    name: String,
    changes: usize,
    values: usize,
}

impl Transaction {
    pub(super) fn new(event: GtidEvent) -> Self {
        Transaction { event, batch: ChangeBatch::default(), weight: 0, markers: Vec::new(), savepoints: Vec::new(), is_begun: false }
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
        self.savepoints.iter_mut().for_each(|savepoint| savepoint.changes = usize::MAX);
    }

    pub(super) fn savepoint(&mut self, name: String) -> Result<()> {
        if self.savepoints.len() >= MOST_SAVEPOINTS {
            return Err(undecodable("the source's log holds a transaction with too many savepoints"));
        }
        self.savepoints.retain(|savepoint| !savepoint.name.eq_ignore_ascii_case(&name));
        self.savepoints.push(Savepoint { name, changes: self.batch.changes.len(), values: self.batch.values.len() });
        Ok(())
    }

    /// Rows behind the savepoint are in the log and were undone: seen where a table without transactions was changed too.
    pub(super) fn back_to(&mut self, name: &str) -> Result<()> {
        let at = self.savepoints.iter().position(|savepoint| savepoint.name.eq_ignore_ascii_case(name));
        let Some(at) = at else {
            return if self.has_changes() {
                Err(undecodable("the source's log goes back to a savepoint that it does not hold"))
            } else {
                Ok(())
            };
        };
        self.savepoints.truncate(at + 1);
        let savepoint = &self.savepoints[at];
        if savepoint.changes > self.batch.changes.len() {
            return Err(taken_back());
        }
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
        self.savepoints.clear();
        Ok(())
    }

    /// Hands on what is left and the commit. False: nobody wants to hear of it.
    pub(super) fn commit(mut self, position: Position, time: Micros, queue: &mut VecDeque<Captured>) -> bool {
        if !self.has_changes() && self.markers.is_empty() {
            return false;
        }
        self.hand_on(queue);
        queue.extend(self.markers.drain(..).map(Captured::Marker));
        queue.push_back(Captured::Commit { position, time, origin: None });
        true
    }
}

pub(super) fn announce(layout: &Arc<Layout>, queue: &mut VecDeque<Captured>) {
    queue.push_back(Captured::Layout(layout.clone()));
}

fn taken_back() -> Error {
    Error::new(&codes::LOG_UNDECODABLE, "the source's log takes back a part of a transaction that is too large to be held until its end")
        .remedy("run with --resync; it comes from transactions that change tables with and without transactions together, or from a server that was killed")
        .effect("everything before this transaction was taken over, nothing of it")
}
