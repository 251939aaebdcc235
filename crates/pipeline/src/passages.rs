//! Who waits for which marker.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_model::Marker;
use tokio::sync::oneshot;

/// Markers that someone waits for. A marker counts as passed when the target transaction that holds everything up to it
/// is durable.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    waiting: Mutex<HashMap<Marker, oneshot::Sender<Passed>>>,
    /// Changes of selected tables that went to the target so far.
    changes: AtomicU64,
}

/// How many changes of selected tables went to the target before a marker, counted since this process began. Changes
/// whose commit was tried twice count twice: two equal numbers prove that nothing lies between their markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub changes: u64,
}

impl Passages {
    pub fn expect(&self, marker: Marker) -> oneshot::Receiver<Passed> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(marker, sender);
        receiver
    }

    /// Comes before the commit of these changes.
    pub fn count(&self, changes: u64) {
        self.changes.fetch_add(changes, Ordering::Relaxed);
    }

    pub fn passed(&self, markers: &[Marker]) {
        let passed = Passed { changes: self.changes.load(Ordering::Relaxed) };
        let mut waiting = self.lock();
        for marker in markers {
            if let Some(sender) = waiting.remove(marker) {
                // whoever waited may have given up
                let _ = sender.send(passed);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Marker, oneshot::Sender<Passed>>> {
        self.waiting.lock().expect("no one panics while holding this lock")
    }
}
