//! Holding the target at one place of the source's log, so that both sides can be compared while users write on.
//!
//! First the reader of the change log stands still; then the source is looked at; then the reader goes on to the place of
//! that look and stands still again, until whoever compares is done. What it had read before it stood still lies before the
//! look, because the look is opened later.

use std::sync::Arc;

use godwit_model::{Position, Result, Source};
use tokio::sync::watch;

#[derive(Clone, Debug, Default, PartialEq)]
enum Stand {
    #[default]
    GoOn,
    /// No transaction may be handed over: the place is not known yet.
    Wait,
    /// What shows in a look at this place is handed over, nothing behind it.
    Until(Position),
    /// All of that is committed at the target.
    Reached(Position),
}

/// Shared by the reader of the change log, the writer behind it and whoever compares.
#[derive(Debug, Default)]
pub(crate) struct Stillness {
    stand: watch::Sender<Stand>,
}

impl Stillness {
    /// Whoever reads the log stands still from here on until the guard is dropped.
    pub fn ask(self: &Arc<Self>) -> Asked {
        self.stand.send_replace(Stand::Wait);
        Asked { stillness: self.clone() }
    }

    /// The reader, before it hands over a transaction that ends at `commit`: whether all before it must be written first.
    pub async fn stands_before(&self, source: &dyn Source, commit: &Position) -> Result<bool> {
        let mut stand = self.stand.subscribe();
        loop {
            let now = stand.borrow_and_update().clone();
            match now {
                Stand::GoOn => return Ok(false),
                Stand::Until(place) | Stand::Reached(place) => return Ok(!source.shows(&place, commit)?),
                Stand::Wait => {}
            }
            if stand.changed().await.is_err() {
                return Ok(false);
            }
        }
    }

    /// The writer: everything that was handed over is committed.
    pub fn reached(&self) {
        self.stand.send_if_modified(|stand| match stand {
            Stand::Until(place) => {
                *stand = Stand::Reached(std::mem::replace(place, Position::from(String::new())));
                true
            }
            _ => false,
        });
    }

    /// The reader, once all before its place is written.
    pub async fn over(&self) {
        // the sender is `self`: it cannot be gone
        let _ = self.stand.subscribe().wait_for(|stand| *stand == Stand::GoOn).await;
    }
}

/// While it lives the target does not pass the place.
pub(crate) struct Asked {
    stillness: Arc<Stillness>,
}

impl Asked {
    pub fn until(&self, place: Position) {
        self.stillness.stand.send_replace(Stand::Until(place));
    }

    pub async fn is_reached(&self) {
        let _ = self.stillness.stand.subscribe().wait_for(|stand| matches!(stand, Stand::Reached(_))).await;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.stillness.stand.send_replace(Stand::GoOn);
    }
}
