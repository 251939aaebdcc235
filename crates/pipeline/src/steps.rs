//! Schema steps: who performs them, how many at once, and those that wait for a table's rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use godwit_model::{Entry, Event, Lease, Observer, Result, SchemaItem, Stage, TableName, Target, failpoint};
use tokio::sync::RwLock;

use crate::facts::{self, Facts};

/// Steps in one transaction. Each table that is made holds a handful of locks until its end, and the servers' table of
/// locks has room for thousands.
const AT_ONCE: usize = 100;

/// What performs steps.
#[derive(Clone, Copy)]
pub(crate) struct Builder<'a> {
    pub target: &'a dyn Target,
    pub lease: &'a Lease,
    pub observer: &'a Arc<dyn Observer>,
}

impl Builder<'_> {
    /// In one transaction where the target can; gives the entries that say so.
    pub async fn perform(&self, items: &[&SchemaItem]) -> Result<Vec<Entry>> {
        let done: Vec<Entry> = items.iter().map(|item| facts::done_entry(&facts::step_key(&item.id))).collect();
        if items.is_empty() {
            return Ok(done);
        }
        failpoint("schema.step.before");
        self.target.perform(self.lease, items, &done).await?;
        failpoint("schema.step.after");
        for item in items {
            self.observer.event(Event::SchemaStep { id: item.id.clone() });
        }
        Ok(done)
    }

    /// One after the other, as many in one transaction as may be.
    pub async fn in_order(&self, items: &[&SchemaItem], at_once: AtOnce) -> Result<Vec<Entry>> {
        let mut done = Vec::with_capacity(items.len());
        for batch in items.chunks(at_once.count()) {
            done.extend(self.perform(batch).await?);
        }
        Ok(done)
    }

    /// Steps of one table in their order, those of different tables side by side, those of none at the end.
    pub async fn by_table(&self, items: &[&SchemaItem], side_by_side: usize) -> Result<Vec<Entry>> {
        let (mut of_tables, mut of_none): (HashMap<&TableName, Vec<&SchemaItem>>, Vec<&SchemaItem>) = Default::default();
        for item in items {
            match &item.table {
                Some(table) => of_tables.entry(table).or_default().push(item),
                None => of_none.push(item),
            }
        }
        let mut done = self.side_by_side(of_tables.into_values().collect(), AtOnce::One, side_by_side).await?;
        done.extend(self.in_order(&of_none, AtOnce::One).await?);
        Ok(done)
    }

    /// Each of these lists in its order.
    async fn side_by_side(&self, lists: Vec<Vec<&SchemaItem>>, at_once: AtOnce, most: usize) -> Result<Vec<Entry>> {
        let mut works: Vec<BoxFuture<'_, Result<Vec<Entry>>>> = Vec::with_capacity(lists.len());
        for list in &lists {
            works.push(Box::pin(self.in_order(list, at_once)));
        }
        let done: Vec<Vec<Entry>> = stream::iter(works).buffer_unordered(most.max(1)).try_collect().await?;
        Ok(done.into_iter().flatten().collect())
    }
}

/// How many steps share a transaction.
#[derive(Clone, Copy)]
pub(crate) enum AtOnce {
    /// Each may take long, or hold locks that others wait for.
    One,
    Many,
}

impl AtOnce {
    fn count(self) -> usize {
        match self {
            AtOnce::One => 1,
            AtOnce::Many => AT_ONCE,
        }
    }
}

/// The steps that wait for rows. Keys and indexes are made table by table as their rows become whole, as long as rows can
/// only be new; before a row is written that may be there already, every key is made.
#[derive(Default)]
pub(crate) struct Waiting {
    open: Mutex<Open>,
    /// Held for reading while a table's keys are made, for writing while all are: then none is under way elsewhere.
    turn: RwLock<()>,
    made: Mutex<Vec<Entry>>,
}

#[derive(Default)]
struct Open {
    keys: HashMap<TableName, Vec<SchemaItem>>,
    indexes: HashMap<TableName, Vec<SchemaItem>>,
    rest: Vec<SchemaItem>,
}

impl Waiting {
    /// Those of a task that are not done yet. Tables that were there before the task keep their owner's structure.
    pub fn of(facts: &Facts) -> Result<Self> {
        let kept = facts.existing()?.unwrap_or_default();
        let mut open = Open::default();
        for item in facts.steps()? {
            let of_kept = item.table.as_ref().is_some_and(|table| kept.contains(table));
            if of_kept || facts.is_done(&facts::step_key(&item.id)) {
                continue;
            }
            match (item.stage, item.table.clone()) {
                (Stage::Key, Some(table)) => open.keys.entry(table).or_default().push(item),
                (Stage::Index, Some(table)) => open.indexes.entry(table).or_default().push(item),
                _ => open.rest.push(item),
            }
        }
        Ok(Waiting { open: Mutex::new(open), ..Waiting::default() })
    }

    /// Makes the keys of these tables, whose rows are whole.
    pub async fn make_keys(&self, builder: Builder<'_>, tables: &[TableName]) -> Result<()> {
        let _turn = self.turn.read().await;
        let keys = self.take(tables);
        let items: Vec<&SchemaItem> = keys.values().flatten().collect();
        let made = builder.in_order(&items, AtOnce::Many).await;
        if made.is_err() {
            self.locked().keys.extend(keys);
        }
        self.note(made?);
        Ok(())
    }

    /// Makes every key that is not there yet.
    pub async fn make_all_keys(&self, builder: Builder<'_>, side_by_side: usize) -> Result<()> {
        let _alone = self.turn.write().await;
        let keys = std::mem::take(&mut self.locked().keys);
        let batches: Vec<Vec<&SchemaItem>> =
            keys.values().collect::<Vec<_>>().chunks(KEYS_AT_ONCE).map(|tables| tables.iter().copied().flatten().collect()).collect();
        let made = builder.side_by_side(batches, AtOnce::Many, side_by_side).await;
        if made.is_err() {
            // some may be there: whoever goes on reads the ledger again
            self.locked().keys.extend(keys);
        }
        self.note(made?);
        Ok(())
    }

    fn take(&self, tables: &[TableName]) -> HashMap<TableName, Vec<SchemaItem>> {
        let mut open = self.locked();
        tables.iter().filter_map(|table| open.keys.remove_entry(table)).collect()
    }

    /// The indexes of these tables, for the caller to make.
    pub fn take_indexes(&self, tables: &[TableName]) -> Vec<SchemaItem> {
        let mut open = self.locked();
        tables.iter().filter_map(|table| open.indexes.remove(table)).flatten().collect()
    }

    /// Everything that is left once all rows are there, keys first. For a copy that stayed exact.
    pub async fn make_rest(&self, builder: Builder<'_>, side_by_side: usize) -> Result<()> {
        self.make_all_keys(builder, side_by_side).await?;
        let Open { indexes, rest, .. } = std::mem::take(&mut *self.locked());
        for stage in [indexes.into_values().flatten().collect(), rest] {
            self.note(builder.by_table(&stage.iter().collect::<Vec<_>>(), side_by_side).await?);
        }
        Ok(())
    }

    pub async fn make(&self, builder: Builder<'_>, items: &[&SchemaItem]) -> Result<()> {
        self.note(builder.in_order(items, AtOnce::Many).await?);
        Ok(())
    }

    fn note(&self, made: Vec<Entry>) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
    }

    /// What was made since the last time this was asked.
    pub fn made(&self) -> Vec<Entry> {
        std::mem::take(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tables whose keys share a transaction. Their size is not known here.
const KEYS_AT_ONCE: usize = 10;
