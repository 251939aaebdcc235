//! Looks again and again whether the log still shows every selected table.
//!
//! A table that is dropped leaves its publication without a word in the log, and one made anew under its name is not in
//! it: its rows would be missing at the target, and nobody would know before the stream is opened again.

use std::sync::Arc;
use std::time::Duration;

use godwit_model::{EndpointConfig, Error, Result, Table, Writes};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::relations;
use crate::connect::{self, Session};
use crate::establish;

/// A catalog offers no notice.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is looked at.
pub(super) struct Subject {
    pub endpoint: EndpointConfig,
    pub writes: Writes,
    pub publication: String,
    pub tables: Vec<Arc<Table>>,
}

impl Subject {
    pub async fn look(&self, session: &Session) -> Result<()> {
        match self.writes {
            Writes::Marker => relations::all_published(session, &self.publication, &self.tables).await,
            Writes::Never => establish::must_be_whole(session, &self.publication, &self.tables).await,
        }
    }
}

/// The watch over a stream; ends with it.
pub(super) struct Sight {
    lost: mpsc::Receiver<Error>,
    task: JoinHandle<()>,
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sight {
    pub fn watch(subject: Subject, session: Session) -> Sight {
        let (sender, lost) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let error = watch(&subject, session).await;
            // nobody listens any more: then nobody needs to know
            let _ = sender.send(error).await;
        });
        Sight { lost, task }
    }

    /// Waits until something is out of sight. Safe to drop while pending.
    pub async fn lost(&mut self) -> Error {
        match self.lost.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

async fn watch(subject: &Subject, session: Session) -> Error {
    let mut session = Some(session);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match look(subject, &mut session).await {
            // the stream itself says when its server is away
            Err(error) if error.is_transient() => session = None,
            Err(error) => return error,
            Ok(()) => {}
        }
    }
}

async fn look(subject: &Subject, session: &mut Option<Session>) -> Result<()> {
    if session.is_none() {
        *session = Some(connect::sql(&subject.endpoint, "godwit capture").await?);
    }
    match session {
        Some(session) => subject.look(session).await,
        None => Ok(()),
    }
}
