//! The change log in memory, for simulations: the same contract, no files, and a crash on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use godwit_model::{Layout, LogId, Result, Sequence};
use tokio::sync::watch;

use crate::change_log::{ChangeLog, Durable, LogReader};
use crate::encode::encode;
use crate::layouts::Layouts;
use crate::record::{Record, TransactionOrder};
use crate::recovery::trimmed;

/// Unbounded but for its budget, which only `room` knows: simulations are small.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

struct Inner {
    id: LogId,
    budget: u64,
    held: Mutex<Held>,
    bell: watch::Sender<()>,
}

#[derive(Default)]
struct Held {
    /// The sequence of `records[0]` is `trimmed + 1`.
    trimmed: u64,
    /// With the encoded size, so that sizes are those of a file log.
    records: VecDeque<(Record, u64)>,
    size: u64,
    /// Layouts of records that were trimmed.
    said: Vec<Arc<Layout>>,
    layouts: Layouts,
    order: TransactionOrder,
    durable: Durable,
}

impl Held {
    fn last(&self) -> u64 {
        self.trimmed + self.records.len() as u64
    }

    fn get(&self, sequence: u64) -> Option<&Record> {
        let index = sequence.checked_sub(self.trimmed + 1)?;
        self.records.get(usize::try_from(index).ok()?).map(|(record, _)| record)
    }

    fn pop_newest(&mut self) {
        if let Some((_, size)) = self.records.pop_back() {
            self.size -= size;
        }
    }

    fn pop_oldest(&mut self) {
        let Some((record, size)) = self.records.pop_front() else { return };
        self.size -= size;
        self.trimmed += 1;
        if let Record::Layout(layout) = record {
            self.said.push(layout);
        }
    }

    fn rebuild(&mut self) {
        self.layouts = Layouts::default();
        let kept = self.records.iter().filter_map(|(record, _)| match record {
            Record::Layout(layout) => Some(layout),
            _ => None,
        });
        self.said.iter().chain(kept).for_each(|layout| self.layouts.say(layout));
    }
}

impl MemoryLog {
    pub fn new(id: LogId, budget: u64) -> Self {
        let inner = Inner { id, budget, held: Mutex::default(), bell: watch::Sender::new(()) };
        MemoryLog { inner: Arc::new(inner) }
    }

    /// What a crash and a reopening leave: durable records up to the last complete transaction. Readers made before
    /// must not be used after it.
    pub fn crash(&self) {
        let mut held = self.held();
        while held.last() > held.durable.sequence.0 {
            held.pop_newest();
        }
        let mut order = TransactionOrder::default();
        let mut whole = held.trimmed;
        for (index, (record, _)) in held.records.iter().enumerate() {
            order = order.after(record).expect("the order was checked when it was appended");
            if !order.open {
                whole = held.trimmed + index as u64 + 1;
            }
        }
        while held.last() > whole {
            held.pop_newest();
        }
        held.order = TransactionOrder::default();
        held.durable.sequence = Sequence(whole);
        held.rebuild();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.inner.held.lock().expect("no holder of the log panics")
    }

    async fn wait<T>(&self, mut look: impl FnMut(&Held) -> Option<T> + Send) -> T {
        let mut bell = self.inner.bell.subscribe();
        loop {
            bell.mark_unchanged();
            let seen = look(&self.held());
            if let Some(seen) = seen {
                return seen;
            }
            bell.changed().await.expect("the bell lives as long as the log");
        }
    }
}

#[async_trait]
impl ChangeLog for MemoryLog {
    fn id(&self) -> LogId {
        self.inner.id
    }

    fn append(&self, record: &Record) -> Result<Sequence> {
        let mut held = self.held();
        let order = held.order.after(record)?;
        if let Record::Changes(batch) = record {
            held.layouts.unsaid(batch)?;
        }
        if let Record::Layout(layout) = record {
            held.layouts.say(layout);
        }
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        held.size += bytes.len() as u64;
        held.records.push_back((record.clone(), bytes.len() as u64));
        held.order = order;
        Ok(Sequence(held.last()))
    }

    async fn sync(&self) -> Result<Durable> {
        let appended = self.held().last();
        // as on a disk: others work on meanwhile, and what they append is not covered
        tokio::task::yield_now().await;
        let durable = {
            let mut held = self.held();
            let last = appended.min(held.last());
            let fresh = held.durable.sequence.0 + 1..=last;
            let position = fresh.rev().find_map(|sequence| held.get(sequence)?.position().cloned());
            held.durable.position = position.or(held.durable.position.take());
            held.durable.sequence = held.durable.sequence.max(Sequence(last));
            held.durable.clone()
        };
        self.inner.bell.send_replace(());
        Ok(durable)
    }

    async fn room(&self) -> Result<()> {
        self.wait(|held| (held.order.open || held.size < self.inner.budget).then_some(())).await;
        Ok(())
    }

    async fn read_from(&self, from: Sequence) -> Result<Box<dyn LogReader>> {
        let held = self.held();
        if from.0 <= held.trimmed || from.0 > held.durable.sequence.0 + 1 {
            return Err(trimmed("memory".as_ref()));
        }
        let mut said: VecDeque<_> = held.said.clone().into();
        for sequence in held.trimmed + 1..from.0 {
            if let Some(Record::Layout(layout)) = held.get(sequence) {
                said.push_back(layout.clone());
            }
        }
        Ok(Box::new(MemoryReader { log: self.clone(), said, next: from.0 }))
    }

    async fn trim(&self, before: Sequence) -> Result<()> {
        {
            let mut held = self.held();
            while held.trimmed + 1 < before.0 && held.trimmed < held.durable.sequence.0 {
                held.pop_oldest();
            }
        }
        self.inner.bell.send_replace(());
        Ok(())
    }

    fn durable(&self) -> Durable {
        self.held().durable.clone()
    }

    fn layouts(&self) -> Vec<Arc<Layout>> {
        self.held().layouts.newest()
    }

    fn oldest(&self) -> Sequence {
        Sequence(self.held().trimmed + 1)
    }

    fn size(&self) -> u64 {
        self.held().size
    }

    fn fill(&self) -> f64 {
        self.size() as f64 / self.inner.budget as f64
    }

    fn bytes_behind(&self, sequence: Sequence) -> u64 {
        let held = self.held();
        let durable = held.durable.sequence.0.saturating_sub(held.trimmed) as usize;
        let skipped = sequence.0.saturating_sub(held.trimmed) as usize;
        held.records.iter().take(durable).skip(skipped).map(|(_, size)| size).sum()
    }
}

struct MemoryReader {
    log: MemoryLog,
    said: VecDeque<Arc<Layout>>,
    next: u64,
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn next(&mut self) -> Result<(Sequence, Record)> {
        if let Some(layout) = self.said.pop_front() {
            return Ok((Sequence(self.next - 1), Record::Layout(layout)));
        }
        let next = self.next;
        let look = |held: &Held| {
            if next <= held.trimmed {
                return Some(Err(trimmed("memory".as_ref())));
            }
            (next <= held.durable.sequence.0).then(|| held.get(next).cloned().map(Ok))?
        };
        let record = self.log.wait(look).await?;
        self.next += 1;
        Ok((Sequence(next), record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{change, commits, layout, position, read_all, transaction};

    #[tokio::test]
    async fn a_crash_leaves_what_was_durable_and_whole() {
        let log = MemoryLog::new(LogId(1), 1 << 20);
        log.append(&layout(1, "a")).unwrap();
        transaction(&log, 1, 1, 2);
        log.append(&Record::Begin).unwrap();
        log.append(&change(1, 9)).unwrap();
        log.append(&layout(2, "a")).unwrap();
        log.sync().await.unwrap();
        log.append(&Record::Abort).unwrap();
        transaction(&log, 1, 2, 2);
        log.crash();
        assert_eq!(commits(&read_all(&log).await), [position(1)]);
        assert_eq!(log.layouts()[0].id.0, 1);
        transaction(&log, 1, 2, 2);
        log.sync().await.unwrap();
        assert_eq!(commits(&read_all(&log).await), [position(1), position(2)]);
    }
}
