//! Reads the change log behind the checkpoint and brings it into the target.
//!
//! Two stages side by side: one gathers and coalesces group N+1 while the other writes and commits group N. Between them
//! stands a queue of one group, so that a slow target makes groups larger, not queues longer.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use godwit_model::{
    Applied, Applier, Checkpoint, Entry, Error, Event, Lease, LogId, Marker, Micros, Observer, PipelineStage, Result, RowBatch, Sequence,
    Source, TableMapping, TableName, Target, codes, failpoint,
};
use godwit_store::{ChangeLog, LogReader, Record};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::apply::{self, Prepared};
use crate::assemble::{Altering, Assembler, End, Work};
use crate::coalesce::{Footing, Reread};
use crate::facts::{self, Facts};
use crate::load::Route;
use crate::passages::Passages;
use crate::patience::answered;
use crate::reread;
use crate::routes::Routes;
use crate::stillness::Stillness;

/// What a target must be able to hold on to beyond the last flush, and how long it may take to say so.
const DURABLE_EVERY: Duration = Duration::from_secs(1);
/// How long a marker is waited for before it is written again.
pub(crate) const MARK_AGAIN: Duration = Duration::from_secs(10);
/// How often the source's catalog is looked at while changes are streamed: some of what happens to tables shows nowhere else.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A share of the memory limit for one group: the one gathered, the one queued, the one being written, each with its
/// coalesced copy, stay below half of it.
const GROUP_SHARE: u64 = 16;
const LARGEST_GROUP: u64 = 8 << 20;
/// How often in a row keys of the re-read list may find their place taken. Each time P1 moves behind what was read, so
/// that a row of the source's gives its place up; one that is not the source's never does.
const MOST_TAKEN: u32 = 20;

pub(crate) struct Replay {
    pub source: Arc<dyn Source>,
    pub target: Arc<dyn Target>,
    pub log: Arc<dyn ChangeLog>,
    pub lease: Lease,
    pub routes: Vec<Route>,
    pub policy: godwit_model::DdlPolicy,
    /// The task's map, for tables that are altered.
    pub rules: Vec<godwit_model::MapRule>,
    pub memory: u64,
    pub observer: Arc<dyn Observer>,
    pub passages: Arc<Passages>,
    pub stillness: Arc<Stillness>,
    pub tasks: TaskTracker,
    /// The name under which provenance is recorded in the target.
    pub origin: String,
}

/// How one pass over the log is made.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// Between P0 and P1 after chunks of more than one snapshot.
    pub convergent: bool,
    /// Ends with the transaction that holds this marker.
    pub until: Option<Marker>,
    /// Whether that is P1: the re-read list is empty then, and `passed` becomes a fact in the same commit.
    pub closes: bool,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The marker is behind.
    Reached,
    /// A table was altered: routes are to be made anew.
    Altered,
    /// The source's catalog is further than its stream.
    CatalogAhead,
}

/// The second stage's state.
struct Writer<'a> {
    replay: &'a Replay,
    applier: Box<dyn Applier>,
    checkpoint: Option<Checkpoint>,
    pass: Pass,
    reread: reread::List,
    /// How often in a row rows of the list found their places taken.
    taken: u32,
    last_durable: Instant,
    /// Something was committed since.
    unflushed: bool,
    /// Parts of a transaction are written whose end is still to come.
    inside: bool,
    /// When the marker that ends the pass is written again.
    mark_at: tokio::time::Instant,
    /// When the catalog is looked at next.
    look_at: tokio::time::Instant,
}

enum Step {
    Prepared(Box<Prepared>),
    Alter(Altering),
    Abandon,
    /// Everything before this is what a comparison waits for.
    Still,
}

impl Replay {
    /// Replays from the checkpoint on. Returns when the pass's marker is behind or a table was altered; else only with an
    /// error.
    pub async fn run(&self, facts: &mut Facts, checkpoint: &mut Option<Checkpoint>, pass: Pass) -> Result<Outcome> {
        let from = start_of(&*self.log, checkpoint.as_ref())?;
        let reader = self.log.read_from(from).await?;
        let routes = Routes::new(self.routes.clone(), self.policy, facts, checkpoint.as_ref().map(|checkpoint| &checkpoint.position))?;
        let assembler = Assembler::new(routes, (self.memory / GROUP_SHARE).min(LARGEST_GROUP) as usize);
        let mappings: Vec<_> = self.routes.iter().map(|route| route.mapping.clone()).collect();
        let applier = self.target.applier(&self.lease, &mappings).await?;
        let reread = reread::from_facts(facts, &self.routes)?;
        let mut writer = Writer {
            replay: self,
            applier,
            checkpoint: checkpoint.clone(),
            pass,
            reread,
            taken: 0,
            last_durable: Instant::now(),
            unflushed: false,
            inside: false,
            mark_at: tokio::time::Instant::now() + MARK_AGAIN,
            look_at: tokio::time::Instant::now() + LOOK_EVERY,
        };

        let (sender, receiver) = mpsc::channel(1);
        let mut stages = JoinSet::new();
        let gather = Gather {
            reader,
            assembler,
            sender,
            footing: if writer.pass.convergent { Footing::Convergent } else { Footing::Strict },
            closing: writer.pass.until.clone().filter(|_| writer.pass.closes),
            origin: self.origin.clone(),
            observer: self.observer.clone(),
            source: self.source.clone(),
            stillness: self.stillness.clone(),
            is_over: false,
        };
        stages.spawn(self.tasks.track_future(gather.run()));
        // an error of the first stage counts when all that it handed over before is written
        let done = match writer.run(receiver, facts).await {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(why_ended(stages.join_next().await)),
            Err(error) => Err(error),
        };
        *checkpoint = writer.checkpoint;
        done
    }
}

fn why_ended(gathered: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> Error {
    match gathered {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => Error::internal("gathering died").caused_by(error),
        Some(Ok(Ok(()))) | None => Error::internal("gathering ended by itself"),
    }
}

/// Where reading begins. A checkpoint that was made with another log says nothing of sequences in this one.
fn start_of(log: &dyn ChangeLog, checkpoint: Option<&Checkpoint>) -> Result<Sequence> {
    match checkpoint {
        Some(checkpoint) if checkpoint.log == log.id() => {
            if checkpoint.sequence > log.durable().sequence {
                return Err(Error::new(&codes::STATE_LOST, "the change log ends before the target's checkpoint")
                    .remedy("put the state folder back as it was, or start anew with `run --resync`"));
            }
            Ok(Sequence(checkpoint.sequence.0 + 1))
        }
        _ => Ok(Sequence(1).max(log.oldest())),
    }
}

/// The first stage.
struct Gather {
    reader: Box<dyn LogReader>,
    assembler: Assembler,
    sender: mpsc::Sender<Step>,
    footing: Footing,
    /// Behind this marker nothing but the re-read list keeps the window open.
    closing: Option<Marker>,
    origin: String,
    observer: Arc<dyn Observer>,
    source: Arc<dyn Source>,
    stillness: Arc<Stillness>,
    /// What was handed over last ends the pass.
    is_over: bool,
}

impl Gather {
    /// Hands over whatever is whole as soon as the second stage has room.
    async fn run(mut self) -> Result<()> {
        loop {
            while self.assembler.is_full() && self.hand_over().await? {}
            if self.is_over {
                return Ok(());
            }
            let next = match self.reader.next().now_or_never() {
                Some(next) => Some(next?),
                None if self.assembler.has_whole() => {
                    let sender = self.sender.clone();
                    tokio::select! {
                        biased;
                        room = sender.reserve() => room.map(|_| None).map_err(closed)?,
                        next = self.reader.next() => Some(next?),
                    }
                }
                None => Some(self.reader.next().await?),
            };
            if let Some((sequence, record)) = next {
                self.stand_still_before(&record).await?;
                self.assembler.push(sequence, record)?;
            } else {
                self.hand_over().await?;
            }
        }
    }

    /// Says whether there was anything.
    async fn hand_over(&mut self) -> Result<bool> {
        let permit = self.sender.reserve().await.map_err(closed)?;
        let Some(work) = self.assembler.take()? else { return Ok(false) };
        self.is_over = matches!(work, Work::Alter(_));
        let footing = self.footing;
        if let (Work::Group { end: Some(end), .. }, Some(marker)) = (&work, &self.closing)
            && footing == Footing::Convergent
            && end.markers.contains(marker)
        {
            self.footing = Footing::Closing;
        }
        permit.send(step(work, footing, &self.origin, &*self.observer)?);
        Ok(true)
    }

    /// Where someone compares both sides, everything before the place is handed over and nothing behind it.
    async fn stand_still_before(&mut self, record: &Record) -> Result<()> {
        let (Record::Commit { position, .. } | Record::Progress { position }) = record else { return Ok(()) };
        if !self.stillness.stands_before(&*self.source, position).await? {
            return Ok(());
        }
        while self.assembler.has_whole() {
            self.hand_over().await?;
        }
        self.sender.send(Step::Still).await.map_err(|_| Error::internal("nobody writes"))?;
        self.stillness.over().await;
        Ok(())
    }
}

fn closed(_: mpsc::error::SendError<()>) -> Error {
    Error::internal("nobody writes")
}

fn step(work: Work, footing: Footing, origin: &str, observer: &dyn Observer) -> Result<Step> {
    match work {
        Work::Abandon => Ok(Step::Abandon),
        Work::Alter(altering) => Ok(Step::Alter(altering)),
        Work::Group { parts, end } => {
            let started = Instant::now();
            let changes = end.as_ref().map_or(0, |end| end.changes);
            let prepared = apply::prepare(parts, end, footing, origin)?;
            observer.event(Event::Timing { stage: PipelineStage::Mapped, changes, took: started.elapsed() });
            Ok(Step::Prepared(Box::new(prepared)))
        }
    }
}

impl Writer<'_> {
    /// None: the first stage has ended, all that it handed over is written, and the pass is not over.
    async fn run(&mut self, mut steps: mpsc::Receiver<Step>, facts: &mut Facts) -> Result<Option<Outcome>> {
        loop {
            // what was committed is said to be durable, and leaves the change log, even if nothing follows for long
            let due = self.unflushed && !self.inside;
            let step = tokio::select! {
                biased;
                step = steps.recv() => step,
                () = tokio::time::sleep_until(self.mark_at), if self.pass.until.is_some() => {
                    self.mark_again().await?;
                    continue;
                }
                () = tokio::time::sleep_until(self.look_at), if self.pass.until.is_none() && !self.inside => {
                    self.look_at = tokio::time::Instant::now() + LOOK_EVERY;
                    match self.replay.has_news(facts).await {
                        Ok(false) => continue,
                        Ok(true) => {
                            self.make_durable().await?;
                            return Ok(Some(Outcome::CatalogAhead));
                        }
                        Err(error) if error.is_transient() => tracing::info!(%error, "the catalog was not looked at"),
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                () = tokio::time::sleep(DURABLE_EVERY), if due => { self.make_durable().await?; continue }
            };
            match step {
                None => return Ok(None),
                Some(Step::Alter(altering)) => {
                    // what is altered for the transaction that follows this checkpoint must not outlive it
                    self.make_durable().await?;
                    self.replay.carry(facts, self.checkpoint.as_ref(), &altering).await?;
                    return Ok(Some(Outcome::Altered));
                }
                Some(Step::Abandon) => {
                    self.applier.abandon().await?;
                    self.inside = false;
                }
                Some(Step::Still) => self.replay.stillness.reached(),
                Some(Step::Prepared(prepared)) => {
                    if let Some(outcome) = self.write(*prepared, facts).await? {
                        return Ok(Some(outcome));
                    }
                }
            }
        }
    }

    fn sequence(&self) -> Sequence {
        match &self.checkpoint {
            Some(checkpoint) if checkpoint.log == self.replay.log.id() => checkpoint.sequence,
            _ => Sequence(0),
        }
    }

    /// Writes one group; says how the pass is over, if it is.
    async fn write(&mut self, mut prepared: Prepared, facts: &mut Facts) -> Result<Option<Outcome>> {
        let started = Instant::now();
        if prepared.end.is_none() && !self.inside && self.unflushed {
            // how long the source takes to end this transaction nobody knows
            self.make_durable().await?;
        }
        apply::write(self.applier.as_mut(), &mut prepared).await?;
        self.reread.add(std::mem::take(&mut prepared.reread));
        self.inside = prepared.end.is_none();
        let Some(end) = prepared.end.take() else { return Ok(None) };
        self.timing(PipelineStage::Applied, end.changes, started);
        let met = self.pass.until.as_ref().is_some_and(|until| end.markers.contains(until));
        let mut entries = end.entries.clone();
        // what found its place taken is read again no sooner than at the marker: until then nothing may have moved
        let again = self.pass.closes && ((met && !self.reread.is_empty()) || (self.reread.is_long() && self.taken == 0));
        entries.extend(self.reread.unsaved());
        let read = if again { self.read_again(facts).await? } else { None };
        let is_ahead = again && read.is_none();
        if let Some(read) = read {
            entries.extend(read);
        } else {
            if met && self.pass.closes && !is_ahead {
                entries.extend([facts::done_entry("passed"), facts::removal("p1"), facts::removal("reread")]);
                entries.extend(facts.none_loose());
            }
        }
        self.replay.passages.count(end.selected);
        self.commit(&end, &entries).await?;
        facts.apply(&entries);
        self.reread.saved();
        if met || is_ahead || !end.markers.is_empty() || self.last_durable.elapsed() > DURABLE_EVERY {
            self.make_durable().await?;
            self.replay.passages.passed(&end.markers);
        }
        if is_ahead {
            return Ok(Some(Outcome::CatalogAhead));
        }
        if met && !again && self.pass.closes {
            failpoint("p1.reached");
        }
        Ok((met && !again).then_some(Outcome::Reached))
    }

    /// Copies the rows of the re-read list as they are now; P1 moves behind that moment. None: the source's tables have
    /// other columns by now than the stream has told of, and what was copied of them so far is copied again later.
    async fn read_again(&mut self, facts: &Facts) -> Result<Option<Vec<Entry>>> {
        failpoint("apply.reread");
        if !self.agrees(facts).await? {
            return Ok(None);
        }
        let left = match self.copy_all().await {
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => return if self.agrees(facts).await? { Err(error) } else { Err(retry(error)) },
            Ok(_) if !self.agrees(facts).await? => return Ok(None),
            Ok(left) => left,
        };
        self.taken = if left.is_empty() { 0 } else { self.taken + 1 };
        let marker = new_marker(&self.replay.origin);
        answered(self.replay.source.mark(&marker)).await?;
        self.reread.clear();
        self.pass.until = Some(marker.clone());
        let list = reread::entry(&left).unwrap_or_else(|| facts::removal("reread"));
        self.reread.add(left);
        Ok(Some(vec![facts::marker_entry(&marker), list]))
    }

    /// Whether the tables of the list have the columns at the source with which their changes come.
    async fn agrees(&mut self, facts: &Facts) -> Result<bool> {
        let mut names: Vec<TableName> = self.reread.keys().iter().map(|again| again.mapping.source.clone()).collect();
        names.dedup();
        names.sort();
        names.dedup();
        self.replay.agrees(facts, &names).await
    }

    /// Gives the keys that are to be read once more.
    async fn copy_all(&mut self) -> Result<Vec<Reread>> {
        let listed = reread::batches(self.reread.keys());
        let mut left = Vec::new();
        if self.copy_listed(&listed).await?.is_some() {
            // a unique value of one listed row may be held by another one: all of them go first
            for (mapping, keys) in &listed {
                self.applier.apply(&reread::removal(mapping.clone(), keys.clone(), &self.replay.origin)).await?;
            }
            left = self.copy_singly(&listed).await?;
        }
        Ok(left)
    }

    /// The target's complaint, if it has one.
    async fn copy_listed(&mut self, listed: &[(Arc<TableMapping>, RowBatch)]) -> Result<Option<Error>> {
        for (mapping, keys) in listed {
            if let Some(refused) = self.copy_some(mapping, keys).await? {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }

    async fn copy_some(&mut self, mapping: &Arc<TableMapping>, keys: &RowBatch) -> Result<Option<Error>> {
        let group = reread::group(&*self.replay.source, mapping.clone(), keys.clone(), &self.replay.origin).await?;
        match self.applier.apply(&group).await? {
            Applied::AsExpected => Ok(None),
            Applied::Refused(error) => Ok(Some(error)),
            Applied::Unexpected(_) => Err(Error::internal("an upsert was counted")),
        }
    }

    /// Gives the keys whose rows find a unique value of theirs taken: the row that holds it is of an earlier moment, and
    /// gives it up before the next marker.
    async fn copy_singly(&mut self, listed: &[(Arc<TableMapping>, RowBatch)]) -> Result<Vec<Reread>> {
        let mut left = Vec::new();
        let mut refused = None;
        for (mapping, keys) in listed {
            if self.copy_some(mapping, keys).await?.is_none() {
                continue;
            }
            for key in keys.rows() {
                let mut one = RowBatch::new(keys.stride());
                one.push(key.iter().cloned());
                match self.copy_some(mapping, &one).await? {
                    None => {}
                    Some(error) if error.is(&codes::CONFLICT) => {
                        refused = Some(error);
                        left.push(Reread { mapping: mapping.clone(), key: key.to_vec() });
                    }
                    Some(error) => return Err(error),
                }
            }
        }
        match refused {
            Some(error) if self.taken >= MOST_TAKEN => Err(error),
            _ => Ok(left),
        }
    }

    async fn commit(&mut self, end: &End, entries: &[Entry]) -> Result<()> {
        let started = Instant::now();
        let next = Checkpoint { position: end.position.clone(), log: self.replay.log.id(), sequence: end.sequence };
        failpoint("apply.commit.before");
        self.applier.commit(self.checkpoint.as_ref(), &next, entries).await?;
        failpoint("apply.commit.after");
        self.checkpoint = Some(next);
        self.unflushed = true;
        self.timing(PipelineStage::Committed, end.changes, started);
        let observer = &self.replay.observer;
        observer.event(Event::Committed { transactions: end.transactions, changes: end.changes });
        observer.event(Event::Lag { age: age(end.oldest), bytes: self.replay.log.bytes_behind(end.sequence) });
        Ok(())
    }

    /// A marker may be lost with a source that crashes before it is flushed; a second one does no harm.
    async fn mark_again(&mut self) -> Result<()> {
        self.mark_at = tokio::time::Instant::now() + MARK_AGAIN;
        let Some(marker) = &self.pass.until else { return Ok(()) };
        match answered(self.replay.source.mark(marker)).await {
            Err(error) if !error.is_transient() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets the change log forget what the target can no longer lose.
    async fn make_durable(&mut self) -> Result<()> {
        self.applier.durable().await?;
        self.last_durable = Instant::now();
        self.unflushed = false;
        self.replay.log.trim(Sequence(self.sequence().0 + 1)).await
    }

    fn timing(&self, stage: PipelineStage, changes: u64, started: Instant) {
        self.replay.observer.event(Event::Timing { stage, changes, took: started.elapsed() });
    }
}

/// The group is written once more, when the stream has told what the catalog says.
fn retry(error: Error) -> Error {
    Error::new(&codes::RETRYABLE, "a table was altered at the source while its rows were read again").caused_by(error)
}

/// A marker no one has used: random enough for one source.
pub(crate) fn new_marker(origin: &str) -> Marker {
    let LogId(random) = LogId((u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..)));
    Marker(format!("{origin}-{random:032x}"))
}

fn age(since: Micros) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = Duration::from_micros(u64::try_from(since.0).unwrap_or(0));
    now.saturating_sub(since)
}
