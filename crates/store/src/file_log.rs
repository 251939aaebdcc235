//! The change log in a folder of segment files.
//!
//! Appending encodes into a buffer and hands full buffers to the writer thread; `sync` hands over the rest. The
//! appending side alone decides where a segment ends, because it knows which layouts the next one must begin with.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use godwit_model::{Error, Layout, LogId, Position, Result, Sequence, codes};
use tokio::sync::oneshot;

use crate::change_log::{ChangeLog, Durable, LogReader};
use crate::disk::{Disk, RealDisk, blocking, io_error};
use crate::encode::{encode, encode_again};
use crate::frame::{put_frame, put_mark};
use crate::layouts::Layouts;
use crate::lock::FolderLock;
use crate::reader::FileReader;
use crate::recent::Recent;
use crate::record::{Record, TransactionOrder};
use crate::recovery::{Found, recover};
use crate::segment::{self, Opening, path_of};
use crate::shared::{Segment, Shared, State};
use crate::writer::{Batch, Order, Writer};

/// Frames are handed to the writer in pieces of this size: large enough for the disk, small enough to overlap.
const BUFFER_BYTES: usize = 256 << 10;

/// What may lie between appending and writing. The disk is busy with more than it can overlap long before.
const QUEUE_BYTES: usize = 8 << 20;

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment ends behind the record that exceeds this.
    pub segment_bytes: u64,
    /// How large the log may grow before `room` waits.
    pub budget: u64,
    /// Segments that no reader needs are kept for this long ...
    pub retain_age: Duration,
    /// ... but not more of them than this.
    pub retain_bytes: u64,
    /// The newest records are kept in memory for readers that keep up; as much again may be held of what waits for a
    /// sync.
    pub recent_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment_bytes: 64 << 20,
            budget: 100 << 30,
            retain_age: Duration::from_secs(3600),
            retain_bytes: 1 << 30,
            recent_bytes: 16 << 20,
        }
    }
}

impl LogOptions {
    /// A log needs several segments to be trimmed at all.
    fn sane(mut self) -> Self {
        self.budget = self.budget.max(64 << 10);
        self.segment_bytes = self.segment_bytes.clamp(4 << 10, self.budget / 4);
        self.retain_bytes = self.retain_bytes.min(self.budget / 4);
        self
    }
}

/// See `ChangeLog`. Dropping it ends the writer thread (waiting for what it is writing) and tells readers `INTERRUPTED`
/// once they have read what is durable; what was not synced is lost.
pub struct FileLog {
    shared: Arc<Shared>,
    options: LogOptions,
    appender: Mutex<Appender>,
    thread: Option<JoinHandle<()>>,
}

/// What appending changes.
struct Appender {
    /// None only while the log is dropped.
    orders: Option<Sender<Order>>,
    buffer: Vec<u8>,
    /// The first sequence in `buffer`.
    first: u64,
    /// The sequence of the next record.
    next: u64,
    order: TransactionOrder,
    layouts: Layouts,
    /// Of the last commit or progress record, and whether it stands in `buffer`.
    position: Option<Position>,
    position_is_new: bool,
    /// The present segment's first sequence, bytes of records, and how many of these it takes.
    segment: u64,
    length: u64,
    roll_at: u64,
}

impl FileLog {
    /// Opens the log in this folder, or makes one where there is none.
    pub async fn open(folder: impl Into<PathBuf>, options: LogOptions) -> Result<Self> {
        Self::open_on(folder.into(), options, Arc::new(RealDisk)).await
    }

    pub(crate) async fn open_on(folder: PathBuf, options: LogOptions, disk: Arc<dyn Disk>) -> Result<Self> {
        blocking(move || Self::open_now(&folder, options.sane(), disk)).await
    }

    fn open_now(folder: &Path, options: LogOptions, disk: Arc<dyn Disk>) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|cause| io_error(cause, "making the change log's folder", folder))?;
        let lock = FolderLock::take(folder)?;
        let found = match recover(folder)? {
            Some(found) => found,
            None => begin(folder, &*disk)?,
        };
        let shared = Arc::new(share(folder, &found, &options));
        let (segment, length) = *found.segments.back().expect("a log has a segment");
        let file = open_end(&path_of(folder, segment))?;
        let position = found.position.clone();
        let unsynced = Vec::new();
        let writer =
            Writer { shared: shared.clone(), disk, options: options.clone(), file, segment, length, unsynced, position, _lock: lock };
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("change-log".into())
            .spawn(move || writer.run(&inbox))
            .map_err(|cause| io_error(cause, "starting the change log's writer", folder))?;
        let appender = Appender::new(orders, found, (segment, length), options.segment_bytes);
        Ok(FileLog { shared, options, appender: Mutex::new(appender), thread: Some(thread) })
    }

    fn appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().expect("appending does not panic")
    }
}

/// The first segment of a new log.
fn begin(folder: &Path, disk: &dyn Disk) -> Result<Found> {
    let opening = Opening::new(LogId(fastrand::u128(1..)), 1, 0, false);
    segment::create(folder, &opening, disk)?;
    let segments = VecDeque::from([(1, opening.length())]);
    Ok(Found { log: opening.log, segments, last: 0, position: None, layouts: Vec::new() })
}

fn share(folder: &Path, found: &Found, options: &LogOptions) -> Shared {
    let segments = found.segments.iter().map(|(first, length)| Segment { first: *first, durable: *length }).collect();
    let durable = Durable { sequence: Sequence(found.last), position: found.position.clone() };
    let state = State::new(segments, Recent::new(options.recent_bytes), durable);
    Shared::new(folder.to_owned(), found.log, state)
}

fn open_end(path: &Path) -> Result<fs::File> {
    let opened = OpenOptions::new().write(true).open(path).and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
    opened.map_err(|cause| io_error(cause, "opening a segment", path))
}

impl Appender {
    fn new(orders: Sender<Order>, found: Found, (segment, length): (u64, u64), segment_bytes: u64) -> Self {
        Appender {
            orders: Some(orders),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            first: found.last + 1,
            next: found.last + 1,
            order: TransactionOrder::default(),
            layouts: Layouts::found(found.layouts),
            position: found.position,
            position_is_new: false,
            segment,
            length,
            roll_at: segment_bytes,
        }
    }

    fn append(&mut self, record: &Record, shared: &Shared, segment_bytes: u64) -> Result<Sequence> {
        let order = self.order.after(record)?;
        if self.length >= self.roll_at {
            self.roll(shared, segment_bytes)?;
        }
        if let Record::Changes(batch) = record {
            for layout in self.layouts.unsaid(batch)? {
                self.put(shared, |out| encode_again(&layout, out))?;
                self.layouts.resay(&layout);
            }
        }
        let sequence = self.put(shared, |out| encode(record, out))?;
        if let Record::Layout(layout) = record {
            self.layouts.say(layout);
        }
        if let Some(position) = record.position() {
            self.position = Some(position.clone());
            self.position_is_new = true;
        }
        self.order = order;
        if self.buffer.len() >= BUFFER_BYTES {
            self.hand_over(shared);
        }
        Ok(Sequence(sequence))
    }

    fn put(&mut self, shared: &Shared, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64> {
        let before = self.buffer.len();
        if before == 0 {
            self.first = self.next;
            put_mark(&mut self.buffer, self.next, shared.state().durable.sequence.0);
        }
        if let Err(error) = put_frame(&mut self.buffer, self.next, fill) {
            self.buffer.truncate(before);
            return Err(error);
        }
        self.length += (self.buffer.len() - before) as u64;
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Gives the buffer to the writer.
    fn hand_over(&mut self, shared: &Shared) {
        if self.buffer.is_empty() {
            return;
        }
        let bytes = self.take_buffer();
        shared.change(|state| {
            state.queued += bytes.len();
            state.waiting += bytes.len() as u64;
        });
        let position = if self.position_is_new { self.position.clone() } else { None };
        self.position_is_new = false;
        self.order_to(Order::Write(Batch { first: self.first, last: self.next - 1, position, bytes }));
    }

    /// The buffer's bytes; a small one is copied, so that memory holds no more than its bytes.
    fn take_buffer(&mut self) -> Bytes {
        if self.buffer.len() >= BUFFER_BYTES / 2 {
            return std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES)).into();
        }
        let bytes = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        bytes
    }

    fn roll(&mut self, shared: &Shared, segment_bytes: u64) -> Result<()> {
        self.hand_over(shared);
        let layouts = self.layouts.begin_segment();
        let opening = Opening::new(shared.id, self.next, self.segment, self.order.open).with(layouts, self.position.as_ref())?;
        self.segment = self.next;
        self.length = 0;
        // with very many tables the preamble is long: it shall never be most of the log
        self.roll_at = segment_bytes.max(opening.length());
        self.order_to(Order::Roll(opening));
        Ok(())
    }

    /// A writer that is gone drops the order, and with it the sender of its answer.
    fn order_to(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

#[async_trait]
impl ChangeLog for FileLog {
    fn id(&self) -> LogId {
        self.shared.id
    }

    fn append(&self, record: &Record) -> Result<Sequence> {
        let mut appender = self.appender();
        self.shared.state().check()?;
        appender.append(record, &self.shared, self.options.segment_bytes)
    }

    async fn sync(&self) -> Result<Durable> {
        let (done, answer) = oneshot::channel();
        {
            let mut appender = self.appender();
            appender.hand_over(&self.shared);
            appender.order_to(Order::Sync(done));
        }
        answer.await.map_err(|_| writer_gone())?
    }

    async fn room(&self) -> Result<()> {
        let inside = self.appender().order.open;
        let budget = self.options.budget;
        let look = |state: &State| match state.check() {
            Err(error) => Some(Err(error)),
            Ok(()) => (state.queued < QUEUE_BYTES && (inside || state.size() < budget)).then_some(Ok(())),
        };
        self.shared.wait(look).await
    }

    async fn read_from(&self, from: Sequence) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(FileReader::open(self.shared.clone(), from).await?))
    }

    async fn trim(&self, before: Sequence) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.appender().order_to(Order::Trim { before, done });
        answer.await.map_err(|_| writer_gone())?
    }

    fn durable(&self) -> Durable {
        self.shared.state().durable.clone()
    }

    fn layouts(&self) -> Vec<Arc<Layout>> {
        self.appender().layouts.newest()
    }

    fn oldest(&self) -> Sequence {
        self.shared.state().segments.front().map_or(Sequence(1), |segment| Sequence(segment.first))
    }

    fn size(&self) -> u64 {
        self.shared.state().size()
    }

    fn fill(&self) -> f64 {
        self.size() as f64 / self.options.budget as f64
    }

    fn bytes_behind(&self, sequence: Sequence) -> u64 {
        self.shared.state().bytes_behind(sequence.0)
    }
}

fn writer_gone() -> Error {
    Error::internal("the change log's writer ended before its log")
}

impl Drop for FileLog {
    fn drop(&mut self) {
        if let Ok(mut appender) = self.appender.lock() {
            appender.orders = None;
        }
        // the folder's lock is given back when the thread has ended
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // readers that still wait must not wait for ever
        self.shared.fail(&Error::new(&codes::INTERRUPTED, "the change log was closed"));
    }
}
