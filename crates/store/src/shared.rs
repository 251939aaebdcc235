//! What the appending side, the writer thread and the readers of one file log know together.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use godwit_model::{Error, LogId, Result, Sequence};
use tokio::sync::watch;

use crate::change_log::Durable;
use crate::recent::Recent;
use crate::segment::path_of;

/// One segment as it lies on disk.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// Bytes that are written and durable; readers go no further.
    pub(crate) durable: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Oldest first; at least one.
    pub(crate) segments: VecDeque<Segment>,
    /// Durable bytes of all segments.
    pub(crate) stored: u64,
    pub(crate) recent: Recent,
    pub(crate) durable: Durable,
    /// Bytes appended and not yet durable.
    pub(crate) waiting: u64,
    /// Bytes handed to the writer and not yet written: what is held in memory.
    pub(crate) queued: usize,
    failure: Option<Failure>,
}

impl State {
    pub(crate) fn new(segments: VecDeque<Segment>, recent: Recent, durable: Durable) -> Self {
        let stored = segments.iter().map(|segment| segment.durable).sum();
        State { segments, stored, recent, durable, waiting: 0, queued: 0, failure: None }
    }

    pub(crate) fn size(&self) -> u64 {
        self.stored + self.waiting
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// The segment that holds this record, or will hold it.
    pub(crate) fn segment_of(&self, sequence: u64) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.first <= sequence);
        self.segments.get(behind.checked_sub(1)?)
    }

    /// Bytes behind a record; within a segment as if all its records were of one size.
    pub(crate) fn bytes_behind(&self, sequence: u64) -> u64 {
        let last = self.durable.sequence.0;
        if sequence >= last {
            return 0;
        }
        let mut bytes = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let end = self.segments.get(index + 1).map_or(last + 1, |next| next.first);
            let records = end.saturating_sub(segment.first).max(1);
            let behind = end.saturating_sub(segment.first.max(sequence + 1)).min(records);
            bytes += (u128::from(segment.durable) * u128::from(behind) / u128::from(records)) as u64;
        }
        bytes.max(1)
    }
}

/// An error that is given to everyone who asks.
#[derive(Debug)]
struct Failure {
    code: &'static godwit_model::Code,
    what: String,
    place: String,
    remedy: String,
}

impl Failure {
    fn of(error: &Error) -> Self {
        Failure {
            code: error.code(),
            what: error.what().to_owned(),
            place: error.place().unwrap_or_default().to_owned(),
            remedy: error.remedy_text().unwrap_or_default().to_owned(),
        }
    }

    fn error(&self) -> Error {
        Error::new(self.code, self.what.clone())
            .at(self.place.clone())
            .remedy(self.remedy.clone())
            .effect("what was durable in the change log stays; nothing after it was acknowledged")
    }
}

/// The state under its lock, and the bell that rings after each change of it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) id: LogId,
    state: Mutex<State>,
    bell: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(folder: PathBuf, id: LogId, state: State) -> Self {
        Shared { folder, id, state: Mutex::new(state), bell: watch::Sender::new(()) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the log's state panics")
    }

    /// Changes the state and wakes all who wait for a change of it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.bell.send_replace(());
        result
    }

    /// Only the first failure counts.
    pub(crate) fn fail(&self, error: &Error) {
        self.change(|state| {
            state.failure.get_or_insert_with(|| Failure::of(error));
            state.queued = 0;
        });
    }

    /// Waits until `look` finds something. Safe to drop.
    pub(crate) async fn wait<T>(&self, mut look: impl FnMut(&State) -> Option<T> + Send) -> T {
        if let Some(seen) = look(&self.state()) {
            return seen;
        }
        let mut bell = self.bell.subscribe();
        loop {
            bell.mark_unchanged();
            let seen = look(&self.state());
            if let Some(seen) = seen {
                return seen;
            }
            bell.changed().await.expect("the bell lives as long as the state");
        }
    }

    pub(crate) fn path_of(&self, sequence: Sequence) -> PathBuf {
        path_of(&self.folder, sequence.0)
    }
}
