//! Godwit's own tables in a target: lease rows and ledgers.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use godwit_model::{Checkpoint, Entry, Error, Holder, Lease, LeaseRecord, Result, TaskName, codes};

use super::state::State;

#[derive(Clone, Default, Debug)]
pub(super) struct Godwit {
    pub leases: HashMap<TaskName, LeaseRecord>,
    pub ledger: HashMap<TaskName, BTreeMap<String, Bytes>>,
}

impl Godwit {
    /// See `Target::take_lease`.
    pub fn take(&mut self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Option<LeaseRecord> {
        let present = self.leases.get(task);
        let same = match (present, seen) {
            (None, None) => true,
            (Some(present), Some(seen)) => present.epoch == seen.epoch && present.counter == seen.counter,
            _ => false,
        };
        if !same {
            return None;
        }
        let (counter, epoch) = present.map_or((0, 0), |present| (present.counter, present.epoch));
        let checkpoint = present.and_then(|present| present.checkpoint.clone());
        let taken = LeaseRecord { holder: Some(holder.clone()), counter: counter + 1, epoch: epoch + 1, checkpoint };
        self.leases.insert(task.clone(), taken.clone());
        Some(taken)
    }

    pub fn forget(&mut self, task: &TaskName) {
        self.leases.remove(task);
        self.ledger.remove(task);
    }

    fn write(&mut self, task: &TaskName, entries: &[Entry]) {
        let ledger = self.ledger.entry(task.clone()).or_default();
        for entry in entries {
            if entry.value.is_empty() {
                ledger.remove(&entry.key);
            } else {
                ledger.insert(entry.key.clone(), entry.value.clone());
            }
        }
    }
}

/// The lease row's part of a commit: it takes effect together with the rows or not at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fenced<'a> {
    pub lease: &'a Lease,
    pub entries: &'a [Entry],
    pub checkpoint: Option<Advance<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Advance<'a> {
    pub previous: Option<&'a Checkpoint>,
    pub next: &'a Checkpoint,
}

impl<'a> Fenced<'a> {
    pub fn entries(lease: &'a Lease, entries: &'a [Entry]) -> Self {
        Fenced { lease, entries, checkpoint: None }
    }

    pub fn apply(&self, state: &mut State) -> Result<()> {
        let godwit = state.godwit.as_mut().ok_or_else(|| lost(self.lease))?;
        let record = godwit.leases.get_mut(&self.lease.task).filter(|record| record.epoch == self.lease.epoch);
        let record = record.ok_or_else(|| lost(self.lease))?;
        if let Some(advance) = self.checkpoint {
            if record.checkpoint.as_ref() != advance.previous {
                return Err(Error::new(&codes::TARGET_CHANGED, "the stored checkpoint is not the one expected"));
            }
            record.checkpoint = Some(advance.next.clone());
        }
        record.counter += 1;
        godwit.write(&self.lease.task, self.entries);
        Ok(())
    }
}

fn lost(lease: &Lease) -> Error {
    Error::new(&codes::LEASE_LOST, format!("the lease of task {} has another epoch than {}", lease.task, lease.epoch))
}
