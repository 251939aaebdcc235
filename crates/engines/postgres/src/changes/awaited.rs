//! Markers that are in no log: places that the stream must reach.
//!
//! A source that may not be written to holds no marker. How far its log went when the marker was asked for is kept here
//! until the stream has come that far; the stream then gives the marker as if it stood in the log at that place.

use std::sync::{Mutex, MutexGuard, PoisonError};

use godwit_model::{Error, Marker, Micros, Result, codes};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::position::Lsn;

/// A marker that is waited for is asked for again every few seconds; a stream that stands still for hours must not be
/// able to gather more of them than this.
const MOST_AWAITED: usize = 4096;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Everything that was visible when the marker was asked for ends at or before it.
    pub(crate) place: Lsn,
    pub(crate) marker: Marker,
    /// The server's clock then.
    pub(crate) time: Micros,
    pub(crate) since: Instant,
}

/// One source's; streams come and go.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    wanted: Mutex<Vec<Wanted>>,
    news: Notify,
}

impl Awaited {
    pub(crate) fn expect(&self, wanted: Wanted) -> Result<()> {
        let mut all = self.lock();
        if all.len() >= MOST_AWAITED {
            return Err(Error::new(&codes::BUSY, "the source's changes do not come on, and too many markers wait for them"));
        }
        all.push(wanted);
        drop(all);
        self.news.notify_one();
        Ok(())
    }

    /// Those at or before `place`, in the order of their places. Each is given once.
    pub(super) fn reached(&self, place: Lsn) -> Vec<Wanted> {
        let mut reached: Vec<Wanted> = self.lock().extract_if(.., |wanted| wanted.place <= place).collect();
        reached.sort_by_key(|wanted| wanted.place);
        reached
    }

    /// When the oldest of them was asked for.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lock().iter().map(|wanted| wanted.since).min()
    }

    /// Returns when one more is wanted since the last time, perhaps at once. Safe to drop.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
