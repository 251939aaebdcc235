//! The thread that writes: blocks in their order, syncs, new segments, trims. Appends go on while it waits for the disk.
//!
//! After the first error it writes nothing more. It then cuts the file back to what is durable, so that no later open
//! takes for durable what the kernel holds in memory after a failed sync.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use bytes::Bytes;
use godwit_model::{Error, Position, Result, Sequence, failpoint};
use tokio::sync::oneshot;

use crate::change_log::Durable;
use crate::disk::{Disk, io_error, sync_folder};
use crate::file_log::LogOptions;
use crate::lock::FolderLock;
use crate::recent::Block;
use crate::segment::{self, Opening};
use crate::shared::{Segment, Shared};

/// Above this share of the budget the retention does not hold.
const RETENTION_ENDS_AT: f64 = 0.75;

/// Frames that are written together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Of the last commit or progress record in here.
    pub(crate) position: Option<Position>,
    pub(crate) bytes: Bytes,
}

pub(crate) enum Order {
    Write(Batch),
    Sync(oneshot::Sender<Result<Durable>>),
    Roll(Opening),
    Trim { before: Sequence, done: oneshot::Sender<Result<()>> },
}

/// Without a writer nobody may wait for it.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&Error::internal("the change log's writer panicked"));
        }
    }
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: LogOptions,
    /// The last segment, open for writing at its end.
    pub(crate) file: File,
    pub(crate) segment: u64,
    pub(crate) length: u64,
    /// Written since the last sync.
    pub(crate) unsynced: Vec<Block>,
    pub(crate) position: Option<Position>,
    /// Given back when the thread ends.
    pub(crate) _lock: FolderLock,
}

impl Writer {
    /// Works until every sender of orders is gone.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        let _guard = FailOnPanic(self.shared.clone());
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(batch) => self.attempt(|writer| writer.write(batch)),
                Order::Roll(opening) => self.attempt(|writer| writer.roll(&opening)),
                Order::Sync(done) => {
                    self.attempt(Self::sync);
                    let answer = self.shared.state();
                    // nobody waits for the answer any more: the sync was still worth it
                    let _ = done.send(answer.check().map(|()| answer.durable.clone()));
                }
                Order::Trim { before, done } => {
                    let _ = done.send(self.trim(before));
                }
            }
        }
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) {
        if self.shared.state().check().is_err() {
            return;
        }
        if let Err(error) = work(self) {
            tracing::error!(code = %error.code(), "the change log cannot be written");
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &Error) {
        let durable = self.shared.state().segments.back().map_or(0, |segment| segment.durable);
        // if this fails too, the next open cuts what is torn
        let _ = self.file.set_len(durable).and_then(|()| self.file.sync_all());
        self.shared.fail(error);
    }

    fn failed(&self, cause: std::io::Error, doing: &str) -> Error {
        io_error(cause, doing, &self.shared.path_of(Sequence(self.segment)))
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        let Batch { first, last, position, bytes } = batch;
        self.disk.write(&self.file, &bytes).map_err(|cause| self.failed(cause, "writing the change log"))?;
        let length = bytes.len();
        self.unsynced.push(Block { first, last, segment: self.segment, offset: self.length, bytes });
        self.length += length as u64;
        self.position = position.or(self.position.take());
        self.shared.change(|state| state.queued = state.queued.saturating_sub(length));
        if self.unsynced.iter().map(|block| block.bytes.len()).sum::<usize>() > self.options.recent_bytes {
            // too much to hand to readers from memory: they read the file
            self.unsynced.drain(..self.unsynced.len() - 1);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let Some(last) = self.unsynced.last().map(|block| block.last) else { return Ok(()) };
        self.disk.sync(&self.file).map_err(|cause| self.failed(cause, "syncing the change log"))?;
        let (blocks, length, position) = (std::mem::take(&mut self.unsynced), self.length, self.position.clone());
        self.shared.change(|state| {
            if let Some(segment) = state.segments.back_mut() {
                let grown = length - segment.durable;
                segment.durable = length;
                state.stored += grown;
                state.waiting = state.waiting.saturating_sub(grown);
            }
            for block in blocks {
                state.recent.push(block);
            }
            state.durable = Durable { sequence: Sequence(last), position };
        });
        Ok(())
    }

    fn roll(&mut self, opening: &Opening) -> Result<()> {
        self.sync()?;
        self.file = segment::create(&self.shared.folder, opening, &*self.disk)?;
        failpoint("log.segment.roll");
        self.segment = opening.first;
        self.length = opening.length();
        let segment = Segment { first: self.segment, durable: self.length };
        self.shared.change(|state| {
            state.stored += segment.durable;
            state.segments.push_back(segment);
        });
        Ok(())
    }

    fn trim(&mut self, before: Sequence) -> Result<()> {
        let mut removed = false;
        while let Some(first) = self.removable(before) {
            let path = self.shared.path_of(Sequence(first));
            fs::remove_file(&path).map_err(|cause| io_error(cause, "removing a segment", &path))?;
            self.shared.change(|state| {
                let gone = state.segments.pop_front().map_or(0, |segment| segment.durable);
                state.stored = state.stored.saturating_sub(gone);
            });
            removed = true;
            failpoint("log.trim");
        }
        if removed {
            sync_folder(&self.shared.folder).map_err(|cause| io_error(cause, "trimming the change log", &self.shared.folder))?;
        }
        Ok(())
    }

    /// The oldest segment, if nobody needs it. The last one always stays.
    fn removable(&self, before: Sequence) -> Option<u64> {
        let state = self.shared.state();
        let (oldest, next) = (state.segments.front()?, state.segments.get(1)?);
        if next.first > before.0 {
            return None;
        }
        let behind: u64 = state.segments.iter().take_while(|segment| segment.first < before.0).map(|segment| segment.durable).sum();
        let over = state.size() as f64 > self.options.budget as f64 * RETENTION_ENDS_AT;
        let (first, kept) = (oldest.first, behind - oldest.durable);
        drop(state);
        let retained = !over && kept < self.options.retain_bytes && self.is_young(first);
        (!retained).then_some(first)
    }

    fn is_young(&self, first: u64) -> bool {
        let path = self.shared.path_of(Sequence(first));
        let written = fs::metadata(path).and_then(|metadata| metadata.modified());
        // a clock that was set back makes it young: the size still bounds what is kept
        let age = written.ok().and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or_default();
        age < self.options.retain_age
    }
}
