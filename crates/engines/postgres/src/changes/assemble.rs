//! From messages to items: pure, no I/O.
//!
//! Keeps what the order of the stream means: which transaction is open, which layout a relation has now, which changes
//! wait to travel together. A transaction that the position already covers is passed over here, whatever the server
//! sends; one without a change or marker of ours becomes mere progress.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use godwit_model::{Captured, ChangeBatch, Error, Marker, Micros, Position, Result, TaskName, TransactionId, Value, codes};
use tokio::time::Instant;

use super::awaited::Awaited;
use super::layouts::{Known, Layouts};
use super::relations::Relations;
use super::unseen::Unseen;
use crate::names;
use crate::pgoutput::{self, Message, Old, Xid};
use crate::position::{Log, Lsn};
use crate::replication::{LogMessage, Oversize};

/// Changes and bytes that travel together: enough that an item's own cost does not count, little beside the queue.
const BATCH_CHANGES: usize = 2000;
const BATCH_BYTES: usize = 512 << 10;
/// A busy server with nothing for us sends keepalives by the thousand; one a second is enough to free its log.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Microseconds from 1970 to 2000, where the server's clock begins.
const SERVER_EPOCH: i64 = 946_684_800_000_000;

pub(super) struct Assembler {
    from: Lsn,
    log: Log,
    relations: Relations,
    layouts: Layouts,
    marker_prefix: String,
    open: Open,
    /// Streamed transactions under way; as many as the server has sessions.
    streamed: HashMap<Xid, Streamed>,
    batch: ChangeBatch,
    /// The part the batch belongs to, in a streamed block.
    part: Option<Xid>,
    batch_bytes: usize,
    items: VecDeque<Captured>,
    last_idle: Option<Instant>,
    /// The furthest position given out. A keepalive that was under way beside a commit may lag behind it; given out
    /// after it, it would let that transaction be read once more after a restart.
    told: Lsn,
    /// Everything that ends at or before it has been sent, given out or not.
    reached: Lsn,
    awaited: Arc<Awaited>,
}

/// Where in the stream we are.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Between,
    /// Inside a whole transaction that the position already covers.
    Covered(Xid),
    Whole {
        transaction: Xid,
        /// `Begin` was given out.
        begun: bool,
        origin: Option<String>,
    },
    /// Between StreamStart and StreamStop.
    Block(Xid),
}

#[derive(Debug, Default)]
struct Streamed {
    told: bool,
    origin: Option<String>,
    /// What was taken of relations that it altered, perhaps: before its commit nobody else sees what they are now.
    early: Vec<Early>,
}

/// Which columns of a relation were taken for computed.
#[derive(Debug)]
struct Early {
    relation: u32,
    computed: Vec<(String, bool)>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Done,
    /// The catalog must be asked about a relation first: `learn`, then push the message again. Not before others see what
    /// a transaction did, where one is named.
    UnknownRelation(Option<Unseen>),
}

impl Assembler {
    pub(super) fn new(from: Lsn, log: Log, relations: Relations, task: &TaskName, awaited: Arc<Awaited>) -> Self {
        Assembler {
            from,
            log,
            relations,
            layouts: Layouts::default(),
            marker_prefix: names::marker_prefix(task),
            open: Open::Between,
            streamed: HashMap::new(),
            batch: ChangeBatch::default(),
            part: None,
            batch_bytes: 0,
            items: VecDeque::new(),
            last_idle: None,
            told: from,
            reached: from,
            awaited,
        }
    }

    pub(super) fn learn(&mut self, relations: Relations) {
        let before = std::mem::replace(&mut self.relations, relations);
        self.relations.keep_computed_of(&before);
        self.layouts.relations_are_new();
    }

    pub(super) fn has_items(&self) -> bool {
        !self.items.is_empty()
    }

    pub(super) fn take(&mut self) -> Option<Captured> {
        self.items.pop_front()
    }

    pub(super) fn push(&mut self, message: &LogMessage, now: Instant) -> Result<Step> {
        match message {
            LogMessage::Data(bytes) => {
                let message = pgoutput::decode(bytes.clone(), matches!(self.open, Open::Block(_)))?;
                self.take_in(message, now)
            }
            LogMessage::Keepalive { end, reply } => {
                if matches!(self.open, Open::Between) {
                    self.pass(*end);
                    self.idle(*end, *reply, now);
                }
                Ok(Step::Done)
            }
            LogMessage::Oversize(oversize) => Err(self.too_large(oversize)),
        }
    }

    /// Names the table, and to a person's terminal the key if it stands before what is too large.
    fn too_large(&self, oversize: &Oversize) -> Error {
        let error = oversize.refused().effect("everything before this row's transaction is taken over, nothing of it");
        let seen = pgoutput::glance(oversize.head.clone(), matches!(self.open, Open::Block(_)));
        let seen = seen.and_then(|(relation, values)| Some((self.layouts.of(relation).ok()?, self.layouts.layout(relation)?, values)));
        let Some((known, layout, mut values)) = seen else { return error };
        known.leave_computed(&mut values);
        let keys = layout.columns.iter().enumerate().filter(|(_, column)| column.key);
        let key = keys.map(|(index, column)| match values.get(index)? {
            Value::Native(text) => Some(format!("{} = {}", column.name, String::from_utf8_lossy(text))),
            _ => None,
        });
        let error = error.at(format!("table {}", layout.table));
        match key.collect::<Option<Vec<_>>>() {
            Some(key) if !key.is_empty() => error.detail(format!("key {}", key.join(", "))),
            _ => error,
        }
    }

    fn take_in(&mut self, message: Message, now: Instant) -> Result<Step> {
        match message {
            Message::Relation(relation) => return self.relation(&relation),
            Message::Type { oid, schema, name } => self.layouts.name_type(oid, schema, name),
            Message::Begin { transaction, commit } => self.begin(transaction, commit)?,
            Message::Commit { end, time } => self.commit(end, time, now)?,
            Message::Origin { name } => self.set_origin(name),
            Message::StreamStart { transaction } => self.stream_start(transaction)?,
            Message::StreamStop => self.stream_stop()?,
            Message::StreamCommit { transaction, commit, end, time } => return self.stream_commit(transaction, commit, end, time, now),
            Message::StreamAbort { transaction, part } => self.stream_abort(transaction, part),
            Message::Logical { part, transactional: true, prefix, content } => self.logical(part, &prefix, &content)?,
            Message::Logical { transactional: false, .. } => {}
            change => self.change(change)?,
        }
        Ok(Step::Done)
    }

    fn relation(&mut self, relation: &pgoutput::Relation) -> Result<Step> {
        let may_be_behind = self.relations.may_be_behind(relation);
        if may_be_behind && !self.layouts.are_fresh() {
            return Ok(Step::UnknownRelation(self.awaited_for(relation)));
        }
        let computes = |column: &str| self.relations.computes(relation.oid, column);
        if let (true, Open::Block(transaction)) = (may_be_behind, &self.open) {
            let computed = relation.columns.iter().map(|column| (column.name.clone(), computes(&column.name))).collect();
            self.streamed.entry(*transaction).or_default().early.push(Early { relation: relation.oid, computed });
        }
        self.layouts.relations_are_used();
        let table = self.relations.owner(relation)?;
        if let Some(layout) = self.layouts.take_in(relation, table, computes) {
            self.items.push_back(Captured::Layout(Arc::new(layout)));
        }
        Ok(Step::Done)
    }

    /// The transaction that may have made of this relation what others do not see yet. One that is under way may be so for
    /// long, and nothing else is told meanwhile: what it altered is asked for again at its commit, and only what it made is
    /// waited for.
    fn awaited_for(&self, relation: &pgoutput::Relation) -> Option<Unseen> {
        match self.open {
            Open::Whole { transaction, .. } | Open::Covered(transaction) => Some(Unseen::committed(transaction)),
            Open::Block(whole) => (!self.relations.knows(relation.oid)).then_some(Unseen { whole, part: relation.part }),
            Open::Between => None,
        }
    }

    fn begin(&mut self, transaction: Xid, commit: Lsn) -> Result<()> {
        self.must_be_between()?;
        // Transactions come in the order of their commits: none that ends before this one's commit is still to come.
        self.pass(commit);
        // The commit record begins before the position, so it ends at or before it.
        self.open = if commit < self.from { Open::Covered(transaction) } else { Open::Whole { transaction, begun: false, origin: None } };
        Ok(())
    }

    fn must_be_between(&self) -> Result<()> {
        match self.open {
            Open::Between => Ok(()),
            _ => Err(out_of_order("a transaction inside another")),
        }
    }

    fn commit(&mut self, end: Lsn, time: i64, now: Instant) -> Result<()> {
        self.flush();
        match std::mem::take(&mut self.open) {
            Open::Covered(_) => {}
            Open::Whole { begun: false, .. } => self.idle(end, false, now),
            Open::Whole { begun: true, origin, .. } => {
                let position = self.reach(end);
                self.items.push_back(Captured::Commit { position, time: micros(time), origin });
            }
            Open::Between | Open::Block(_) => return Err(out_of_order("the end of a transaction that did not begin")),
        }
        self.pass(end);
        Ok(())
    }

    fn set_origin(&mut self, name: String) {
        match &mut self.open {
            Open::Whole { origin, .. } => *origin = Some(name),
            Open::Block(transaction) => self.streamed.entry(*transaction).or_default().origin = Some(name),
            Open::Between | Open::Covered(_) => {}
        }
    }

    fn stream_start(&mut self, transaction: Xid) -> Result<()> {
        self.must_be_between()?;
        self.streamed.entry(transaction).or_default();
        self.open = Open::Block(transaction);
        Ok(())
    }

    fn stream_stop(&mut self) -> Result<()> {
        self.flush();
        match std::mem::take(&mut self.open) {
            Open::Block(_) => Ok(()),
            _ => Err(out_of_order("the end of a block that did not begin")),
        }
    }

    fn stream_commit(&mut self, transaction: Xid, commit: Lsn, end: Lsn, time: i64, now: Instant) -> Result<Step> {
        if commit >= self.from && self.is_unproved(transaction)? {
            return Ok(Step::UnknownRelation(Some(Unseen::committed(transaction))));
        }
        self.pass(commit);
        let streamed = self.streamed.remove(&transaction).unwrap_or_default();
        let id = transaction_id(transaction);
        if !streamed.told {
            self.idle(end, false, now);
        } else if commit < self.from {
            self.items.push_back(Captured::StreamedAbort { transaction: id, part: id });
        } else {
            let position = self.reach(end);
            self.items.push_back(Captured::StreamedCommit { transaction: id, position, time: micros(time), origin: streamed.origin });
        }
        self.pass(end);
        Ok(Step::Done)
    }

    /// Whether more was taken of relations than could be known, and the catalog was not asked since the commit.
    fn is_unproved(&mut self, transaction: Xid) -> Result<bool> {
        let Some(streamed) = self.streamed.get_mut(&transaction).filter(|streamed| !streamed.early.is_empty()) else { return Ok(false) };
        if !self.layouts.are_fresh() {
            return Ok(true);
        }
        self.layouts.relations_are_used();
        for early in std::mem::take(&mut streamed.early) {
            // a column that is gone again proves nothing
            let now = |column: &str| self.relations.is_computed(early.relation, column);
            if early.computed.iter().any(|(column, computed)| now(column).is_some_and(|now| now != *computed)) {
                return Err(Error::new(
                    &codes::RETRYABLE,
                    "a large transaction made or changed a generated column, which is seen since its commit",
                )
                .effect("nothing of the transaction was taken over; it is read again"));
            }
        }
        Ok(false)
    }

    /// Between transactions, everything that ends at or before `place` has been sent.
    fn pass(&mut self, place: Lsn) {
        self.reached = self.reached.max(place);
        self.settle();
    }

    /// Gives out the awaited markers whose places are behind, as a transaction of their own. Its position is never ahead
    /// of what follows, so that a stream opened there begins with what follows.
    pub(super) fn settle(&mut self) {
        if !matches!(self.open, Open::Between) {
            return;
        }
        let wanted = self.awaited.reached(self.reached);
        let Some((place, time)) = wanted.last().map(|last| (last.place, last.time)) else { return };
        self.items.push_back(Captured::Begin);
        self.items.extend(wanted.into_iter().map(|wanted| Captured::Marker(wanted.marker)));
        let position = self.reach(place);
        self.items.push_back(Captured::Commit { position, time, origin: None });
    }

    fn stream_abort(&mut self, transaction: Xid, part: Xid) {
        let told = if transaction == part {
            self.streamed.remove(&transaction).is_some_and(|streamed| streamed.told)
        } else {
            self.streamed.get(&transaction).is_some_and(|streamed| streamed.told)
        };
        if told {
            self.items.push_back(Captured::StreamedAbort { transaction: transaction_id(transaction), part: transaction_id(part) });
        }
    }

    fn logical(&mut self, part: Option<Xid>, prefix: &str, content: &[u8]) -> Result<()> {
        if prefix == names::PROVENANCE {
            self.set_origin(String::from_utf8_lossy(content).into_owned());
        } else if prefix == self.marker_prefix && self.enter(part)? {
            self.flush();
            let marker = Marker(String::from_utf8_lossy(content).into_owned());
            self.items.push_back(match self.block(part) {
                None => Captured::Marker(marker),
                Some((transaction, part)) => Captured::StreamedMarker { transaction, part, marker },
            });
        }
        Ok(())
    }

    fn block(&self, part: Option<Xid>) -> Option<(TransactionId, TransactionId)> {
        match self.open {
            Open::Block(transaction) => Some((transaction_id(transaction), transaction_id(part.unwrap_or(transaction)))),
            _ => None,
        }
    }

    /// Something is about to be given out in the open transaction; false if the position covers it.
    fn enter(&mut self, part: Option<Xid>) -> Result<bool> {
        match &mut self.open {
            Open::Covered(_) => return Ok(false),
            Open::Between => return Err(out_of_order("a change outside a transaction")),
            Open::Whole { begun, .. } => {
                if !std::mem::replace(begun, true) {
                    self.items.push_back(Captured::Begin);
                }
            }
            Open::Block(transaction) => self.streamed.entry(*transaction).or_default().told = true,
        }
        if self.part != part {
            self.flush();
            self.part = part;
        }
        Ok(true)
    }

    fn change(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Insert { part, relation, new } => {
                let known = self.layouts.of(relation)?;
                let new = known.cut(new)?;
                if self.enter(part)? {
                    self.grow(&new);
                    self.batch.push_insert(known.id, new);
                }
            }
            Message::Update { part, relation, old, new } => {
                let known = self.layouts.of(relation)?;
                let new = known.cut(new)?;
                let (old, full) = old_image(&known, old)?;
                if self.enter(part)? {
                    self.grow(old.as_deref().unwrap_or_default());
                    self.grow(&new);
                    self.batch.push_update(known.id, old, full, new);
                }
            }
            Message::Delete { part, relation, old } => {
                let known = self.layouts.of(relation)?;
                let (old, full) = old_image(&known, old)?;
                let old = old.ok_or_else(|| out_of_order("a delete without an old row"))?;
                if self.enter(part)? {
                    self.grow(&old);
                    self.batch.push_delete(known.id, old, full);
                }
            }
            Message::Truncate { part, relations } => self.truncate(part, &relations)?,
            _ => return Err(Error::internal("a message that is no change was taken for one")),
        }
        if self.batch.len() >= BATCH_CHANGES || self.batch_bytes >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    fn truncate(&mut self, part: Option<Xid>, relations: &[u32]) -> Result<()> {
        if !self.enter(part)? {
            return Ok(());
        }
        for oid in self.relations.emptied(relations)? {
            let id = self.layouts.of(oid)?.id;
            self.batch.push_truncate(id);
        }
        Ok(())
    }

    fn grow(&mut self, values: &[Value]) {
        self.batch_bytes += values.iter().map(Value::weight).sum::<usize>();
    }

    /// Gives out the changes that wait.
    fn flush(&mut self) {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.batch);
        let item = match self.block(self.part) {
            None => Captured::Changes(changes),
            Some((transaction, part)) => Captured::StreamedChanges { transaction, part, changes },
        };
        self.items.push_back(item);
    }

    fn idle(&mut self, end: Lsn, asked: bool, now: Instant) {
        let is_due = asked || self.last_idle.is_none_or(|last| now.duration_since(last) >= IDLE_INTERVAL);
        if is_due && end > self.told {
            self.last_idle = Some(now);
            let position = self.reach(end);
            self.items.push_back(Captured::Idle { position });
        }
    }

    fn reach(&mut self, end: Lsn) -> Position {
        self.told = self.told.max(end);
        self.log.position(self.told)
    }
}

fn out_of_order(what: &str) -> Error {
    Error::new(&codes::LOG_UNDECODABLE, format!("the source's log holds {what}"))
}

fn transaction_id(xid: Xid) -> TransactionId {
    TransactionId(u64::from(xid.0))
}

fn micros(time: i64) -> Micros {
    Micros(time.saturating_add(SERVER_EPOCH))
}

/// The image and whether it is the full row. What is not part of the identity was not said, which is not NULL.
fn old_image(known: &Known, old: Old) -> Result<(Option<Vec<Value>>, bool)> {
    match old {
        Old::None => Ok((None, false)),
        Old::Full(image) => known.cut(image).map(|image| (Some(image), true)),
        Old::Key(image) => {
            let mut image = known.cut(image)?;
            for (value, is_key) in image.iter_mut().zip(known.keys.iter()) {
                if !is_key {
                    *value = Value::Absent;
                }
            }
            Ok((Some(image), false))
        }
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
