//! From a source's log into the change log.
//!
//! What the source is told (`confirm`) is always the position of the last record that a finished sync made durable; it
//! moves in one place, behind that sync. While a sync runs the stream is read on, so that under load one sync serves many
//! transactions and an idle source's change is durable at once; a busy stream is synced in a rhythm (`rhythm`). A large
//! transaction may enter the log before its commit (`ahead`).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use godwit_model::{
    Captured, ChangeBatch, ChangeStream, Error, Event, Layout, LayoutId, Observer, PipelineStage, Position, Result, Source, Table,
    TableName, TransactionId, failpoint,
};
use godwit_store::{ChangeLog, Durable, Record, Spool};
use hashbrown::HashMap;

use crate::ahead::Ahead;
use crate::rhythm::Rhythm;

/// First and longest wait before a source that was lost is asked again.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A share of the memory limit for changes that wait for a sync: below that of a group, so that a large transaction flows.
const WAITING_SHARE: u64 = 32;
const MOST_WAITING: u64 = 8 << 20;

pub(crate) struct Capture {
    pub source: Arc<dyn Source>,
    pub tables: Vec<Arc<Table>>,
    pub log: Arc<dyn ChangeLog>,
    pub spool: Spool,
    /// Where to begin if the log holds no position yet.
    pub start: Position,
    pub memory: u64,
    pub observer: Arc<dyn Observer>,
}

/// One stream's life.
struct Session<'a> {
    capture: &'a mut Capture,
    /// The stream's layout numbers, in the log's.
    layouts: HashMap<LayoutId, LayoutId>,
    /// The newest layout of each table that the log knows.
    newest: HashMap<TableName, Arc<Layout>>,
    /// The highest number among them.
    last_layout: LayoutId,
    /// `Begin` is in the log, its end is not.
    open: bool,
    /// Something that is worth a sync was appended since the last one began.
    dirty: bool,
    rhythm: Rhythm,
    ahead: Ahead,
    last_progress: Option<Position>,
}

type Syncing = Pin<Box<dyn Future<Output = Result<Durable>> + Send>>;

impl Capture {
    /// Runs until an error that waiting does not mend, or one of the log's.
    pub async fn run(mut self) -> Result<()> {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let error = match self.stream().await {
                Ok(()) => Error::internal("a change stream ended by itself"),
                Err(error) => error,
            };
            if !error.is_transient() || self.log.sync().await.is_err() {
                return Err(error);
            }
            if began.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            tracing::warn!(%error, "the source's changes stopped, trying again");
            self.observer.event(Event::Retrying { what: error.to_string(), wait });
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn stream(&mut self) -> Result<()> {
        self.spool.clear().await?;
        let from = self.log.last_position().unwrap_or_else(|| self.start.clone());
        let stream = self.source.changes(&from, &self.tables).await?;
        let heavy = (self.memory / WAITING_SHARE).min(MOST_WAITING) as usize;
        let known = self.log.layouts();
        let last_layout = known.iter().map(|layout| layout.id).max().unwrap_or(LayoutId(0));
        let mut session = Session {
            capture: self,
            layouts: HashMap::new(),
            newest: known.into_iter().map(|layout| (layout.table.clone(), layout)).collect(),
            last_layout,
            open: false,
            dirty: false,
            rhythm: Rhythm::new(heavy, tokio::time::Instant::now()),
            ahead: Ahead::new(heavy),
            last_progress: None,
        };
        let result = session.run(stream).await;
        if session.open {
            session.capture.log.append(&Record::Abort)?;
        }
        result
    }
}

impl Session<'_> {
    async fn run(&mut self, mut stream: Box<dyn ChangeStream>) -> Result<()> {
        let mut syncing: Option<Syncing> = None;
        let mut room = true;
        // When the stream gave its last item.
        let mut given = Instant::now();
        let mut due = pin!(tokio::time::sleep_until(self.rhythm.due()));
        loop {
            if self.dirty && syncing.is_none() && tokio::time::Instant::now() >= self.rhythm.due() {
                failpoint("capture.log.sync.before");
                syncing = Some(self.begin_sync());
            }
            if due.deadline() != self.rhythm.due() {
                due.as_mut().reset(self.rhythm.due());
            }
            let log = self.capture.log.clone();
            tokio::select! {
                biased;
                durable = wait_for(&mut syncing) => {
                    syncing = None;
                    self.confirm(&mut *stream, durable?).await?;
                }
                () = &mut due, if self.dirty && syncing.is_none() => {}
                free = log.room(), if !room => { free?; room = true; }
                item = stream.next(), if room => {
                    let (began, item) = (Instant::now(), item?);
                    let read = changes_in(&item);
                    if read > 0 {
                        self.timing(PipelineStage::Read, read, began - given);
                    }
                    let changes = self.take(item).await?;
                    if changes > 0 {
                        self.timing(PipelineStage::Logged, changes, began.elapsed());
                    }
                    given = Instant::now();
                    room = false;
                }
            }
        }
    }

    fn timing(&self, stage: PipelineStage, changes: u64, took: Duration) {
        self.capture.observer.event(Event::Timing { stage, changes, took });
    }

    fn begin_sync(&mut self) -> Syncing {
        self.dirty = false;
        self.rhythm.begin(tokio::time::Instant::now());
        let log = self.capture.log.clone();
        Box::pin(async move { log.sync().await })
    }

    /// The one place where the source learns how far it may forget.
    async fn confirm(&mut self, stream: &mut dyn ChangeStream, durable: Durable) -> Result<()> {
        failpoint("capture.log.sync.after");
        let Some(position) = durable.position else { return Ok(()) };
        failpoint("capture.confirm.before");
        stream.confirm(&position).await?;
        failpoint("capture.confirm.after");
        Ok(())
    }

    /// Appends one item; gives the number of changes in it.
    async fn take(&mut self, item: Captured) -> Result<u64> {
        match item {
            Captured::Layout(layout) => self.layout(&layout)?,
            Captured::Begin => {
                self.leave()?;
                self.open = true;
                self.append(&Record::Begin)?;
            }
            Captured::Changes(batch) => {
                let changes = batch.len() as u64;
                let batch = self.translated(batch)?;
                self.append_changes(&Record::Changes(batch))?;
                return Ok(changes);
            }
            Captured::Marker(marker) => self.append(&Record::Marker(marker))?,
            Captured::Schema { table, what } => self.append(&Record::Schema { table, what })?,
            Captured::Commit { position, time, origin } => {
                self.append(&Record::Commit { position, time, origin })?;
                self.ahead.settled();
                self.committed();
            }
            Captured::Idle { position } => self.progress(position)?,
            streamed => return self.take_streamed(streamed).await,
        }
        Ok(0)
    }

    async fn take_streamed(&mut self, item: Captured) -> Result<u64> {
        match item {
            Captured::StreamedChanges { transaction, part, changes } => {
                let count = changes.len() as u64;
                let record = Record::Changes(self.translated(changes)?);
                self.spool(transaction, part, record).await?;
                return Ok(count);
            }
            Captured::StreamedMarker { transaction, part, marker } => self.spool(transaction, part, Record::Marker(marker)).await?,
            Captured::StreamedAbort { transaction, part } => {
                if self.ahead.entered() == Some(transaction) {
                    self.leave()?;
                }
                if transaction == part {
                    self.ahead.ended(transaction);
                }
                self.capture.spool.abort(transaction, part).await?;
            }
            Captured::StreamedCommit { transaction, position, time, origin } => {
                if self.ahead.entered() != Some(transaction) {
                    self.leave()?;
                    self.enter(transaction).await?;
                }
                self.ahead.ended(transaction);
                self.append(&Record::Commit { position, time, origin })?;
                self.committed();
                self.capture.spool.remove(transaction).await?;
            }
            _ => return Err(Error::internal("an item of a whole transaction was taken for a streamed one")),
        }
        Ok(0)
    }

    /// Keeps a part of a transaction under way; in the log too, if the transaction is there ahead of its commit.
    async fn spool(&mut self, transaction: TransactionId, part: TransactionId, record: Record) -> Result<()> {
        self.capture.spool.push(transaction, part, &record).await?;
        let weight = if let Record::Changes(batch) = &record { batch.weight() } else { 0 };
        let alone = self.capture.spool.len() == 1;
        if self.ahead.spooled(transaction, weight, alone, tokio::time::Instant::now()) {
            return self.enter(transaction).await;
        }
        if self.ahead.entered() == Some(transaction) {
            self.append_changes(&record)?;
        }
        Ok(())
    }

    /// What entered ahead of its commit is void.
    fn leave(&mut self) -> Result<()> {
        if self.ahead.entered().is_some() {
            self.ahead.leave();
            self.append(&Record::Abort)?;
            self.open = false;
            // whoever has begun with it learns so, even if nothing follows for long
            self.dirty = true;
        }
        Ok(())
    }

    fn append_changes(&mut self, record: &Record) -> Result<()> {
        if let Record::Changes(batch) = record {
            self.rhythm.changes(batch.weight());
        }
        self.append(record)?;
        self.dirty |= self.rhythm.is_heavy();
        Ok(())
    }

    fn committed(&mut self) {
        self.open = false;
        self.dirty = true;
        self.rhythm.transaction();
    }

    /// What is spooled of a transaction enters the order. Replay begins with it while the rest of it still enters.
    async fn enter(&mut self, transaction: TransactionId) -> Result<()> {
        self.open = true;
        self.append(&Record::Begin)?;
        let mut spooled = self.capture.spool.commit(transaction);
        while let Some(item) = spooled.next().await? {
            self.capture.log.room().await?;
            self.append_changes(&item)?;
            if self.rhythm.is_heavy() {
                // on its way at the first look; what becomes of it the next sync says
                let _ = self.begin_sync().now_or_never();
            }
        }
        Ok(())
    }

    fn progress(&mut self, position: Position) -> Result<()> {
        if self.ahead.is_stale(tokio::time::Instant::now()) {
            self.leave()?;
        }
        // inside a transaction there is none; the next one tells it
        if self.open || self.last_progress.as_ref() == Some(&position) {
            return Ok(());
        }
        self.append(&Record::Progress { position: position.clone() })?;
        self.last_progress = Some(position);
        self.dirty = true;
        Ok(())
    }

    fn append(&mut self, record: &Record) -> Result<()> {
        self.capture.log.append(record)?;
        failpoint("capture.log.write");
        Ok(())
    }

    /// The log knows a layout by one number for ever; streams count anew.
    fn layout(&mut self, layout: &Layout) -> Result<()> {
        let same = self.newest.get(&layout.table).filter(|there| ***there == Layout { id: there.id, ..layout.clone() });
        let id = match same {
            Some(there) => there.id,
            None => {
                self.leave()?;
                self.ahead.bar();
                let id = LayoutId(self.last_layout.0 + 1);
                let layout = Arc::new(Layout { id, ..layout.clone() });
                self.append(&Record::Layout(layout.clone()))?;
                self.newest.insert(layout.table.clone(), layout);
                self.last_layout = id;
                id
            }
        };
        self.layouts.insert(layout.id, id);
        Ok(())
    }

    fn translated(&self, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        for change in &mut batch.changes {
            change.layout = *self.layouts.get(&change.layout).ok_or_else(|| Error::internal("a change came before its layout"))?;
        }
        Ok(batch)
    }
}

fn changes_in(item: &Captured) -> u64 {
    match item {
        Captured::Changes(batch) | Captured::StreamedChanges { changes: batch, .. } => batch.len() as u64,
        _ => 0,
    }
}

async fn wait_for(syncing: &mut Option<Syncing>) -> Result<Durable> {
    match syncing {
        Some(syncing) => syncing.await,
        None => std::future::pending().await,
    }
}
