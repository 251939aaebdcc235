//! What capture left on a source, in words, and its removal.

use godwit_model::{Result, TaskName, Trace};

use crate::changes::{self, Slot};
use crate::connect::Session;
use crate::establish::{self, Record};
use crate::names;

pub(crate) async fn list(session: &Session, task: &TaskName) -> Result<Vec<Trace>> {
    let name = names::of_task(task);
    let mut traces = Vec::new();
    if Slot::read(session, &name, session.major()).await?.is_some() {
        let kept = changes::backlog(session, task).await?.unwrap_or(0);
        traces.push(Trace { what: format!("replication slot {name}, which keeps {kept} bytes of log") });
    }
    if let Some(record) = Record::read(session, &name).await? {
        traces.push(Trace { what: format!("publication {name}") });
        traces
            .extend(record.0.iter().map(|(table, identity)| Trace { what: format!("replica identity of {table}, which was {identity}") }));
    }
    Ok(traces)
}

/// The slot first: it is what grows.
pub(crate) async fn remove(session: &Session, task: &TaskName) -> Result<()> {
    let name = names::of_task(task);
    changes::release(session, &name, session.major()).await?;
    establish::drop_and_restore(session, &name).await
}
