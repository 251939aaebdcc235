//! Who waits for which marker.

use std::collections::HashMap;
use std::sync::Mutex;

use godwit_model::Marker;
use tokio::sync::oneshot;

/// Markers that someone waits for. A marker counts as passed when the target transaction that holds everything up to it
/// is durable.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    waiting: Mutex<HashMap<Marker, oneshot::Sender<()>>>,
}

impl Passages {
    pub fn expect(&self, marker: Marker) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(marker, sender);
        receiver
    }

    pub fn passed(&self, markers: &[Marker]) {
        let mut waiting = self.lock();
        for marker in markers {
            if let Some(sender) = waiting.remove(marker) {
                // whoever waited may have given up
                let _ = sender.send(());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Marker, oneshot::Sender<()>>> {
        self.waiting.lock().expect("no one panics while holding this lock")
    }
}
