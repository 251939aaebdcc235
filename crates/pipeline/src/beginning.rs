//! What an attempt does before it goes on: a task is begun anew, a copy that was torn begins again, a window opens over rows
//! that differ or that someone asked for.

use std::sync::{Mutex, PoisonError};

use godwit_model::{Entry, Event, Existing, Lease, Result};

use crate::coalesce::Reread;
use crate::facts::{self, Facts};
use crate::job::{Job, origin};
use crate::replay::new_marker;
use crate::reread;
use crate::torn;

/// What the first attempt does before it goes on.
#[derive(Clone, Copy)]
pub(crate) enum Beginning {
    GoOn,
    Anew,
    Mend,
}

impl Job {
    pub(crate) async fn begin_as(&self, beginning: Beginning, lease: &Lease) -> Result<()> {
        match beginning {
            Beginning::GoOn => Ok(()),
            Beginning::Anew => self.begin_anew(lease).await,
            Beginning::Mend => self.begin_to_mend(lease).await,
        }
    }

    async fn begin_anew(&self, lease: &Lease) -> Result<()> {
        let Job { task, target, storage, .. } = self;
        let facts = Facts::from_entries(target.ledger(&task.name).await?);
        storage.wipe().await?;
        target.record(lease, &facts.begin_anew()).await
    }

    /// The snapshot of an earlier attempt is gone, and with it what a table without a key was copied from.
    pub(crate) async fn begin_again_if_torn(&self, lease: &Lease) -> Result<()> {
        let Job { task, target, storage, observer, .. } = self;
        if !task.phases.load {
            return Ok(());
        }
        let facts = Facts::from_entries(target.ledger(&task.name).await?);
        let may_hold_others = task.existing == Existing::Append && facts.has_plans();
        let has_begun = if task.phases.changes { facts.start()?.is_some() } else { facts.has_plans() };
        if !has_begun || may_hold_others || facts.is_done("loaded") {
            return Ok(());
        }
        let routes = self.routes_of(&facts)?;
        let Some(table) = torn::torn(&facts, &routes)? else { return Ok(()) };
        observer.event(Event::Warning(format!("the copy of {table} was interrupted: a table without a key is copied from its beginning")));
        storage.wipe().await?;
        torn::begin_again(&**target, lease, &facts, &routes).await
    }

    /// Opens a convergent window that ends with a sweep. A task that is still loading needs none.
    async fn begin_to_mend(&self, lease: &Lease) -> Result<()> {
        let Job { task, target, .. } = self;
        let facts = Facts::from_entries(target.ledger(&task.name).await?);
        if !facts.is_done("loaded") {
            return Ok(());
        }
        let marker = facts::marker_entry(&new_marker(&origin(task)));
        target.record(lease, &[facts::done_entry("inexact"), facts::done_entry("resync"), marker, facts::removal("passed")]).await
    }

    /// Puts the rows that someone wants read again on the list, beside what the attempt before listed, and opens a convergent
    /// window over them. Nothing else writes the list now.
    pub(crate) async fn note_asked(&self, lease: &Lease, asked: &Mutex<Vec<Reread>>) -> Result<()> {
        let Job { task, target, .. } = self;
        let locked = || asked.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = locked().clone();
        if listed.is_empty() {
            return Ok(());
        }
        let facts = Facts::from_entries(target.ledger(&task.name).await?);
        let noted = listed.len();
        let mut entries: Vec<Entry> = reread::more(&facts, &self.routes_of(&facts)?, listed)?.into_iter().collect();
        entries.extend([facts::marker_entry(&new_marker(&origin(task))), facts::done_entry("inexact"), facts::removal("passed")]);
        target.record(lease, &entries).await?;
        locked().drain(..noted);
        Ok(())
    }
}
