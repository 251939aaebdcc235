//! What capture left on a source, in words, and its removal.

use godwit_model::{Result, Task, TaskName, Trace, Writes};

use crate::changes::{self, Slot};
use crate::connect::Session;
use crate::establish::{self, Record};
use crate::{error, leftover, names, quote};

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

pub(crate) async fn left_to_others(session: &Session, task: &TaskName) -> Result<Vec<Trace>> {
    let name = names::of_task(task);
    if Record::read(session, &name).await?.is_some() {
        return Ok(Vec::new());
    }
    let sql = "SELECT FROM pg_publication WHERE pubname = $1";
    let there = session.query_opt(sql, &[&name]).await.map_err(error::from_server)?;
    let what = format!("publication {name}, which an administrator made: DROP PUBLICATION {}", quote::identifier(&name));
    Ok(there.map(|_| Trace { what }).into_iter().collect())
}

/// The slot first: it is what grows. What an administrator made is left to him.
pub(crate) async fn remove(session: &Session, task: &Task) -> Result<()> {
    let name = names::of_task(&task.name);
    if task.phases.changes {
        // giving a replica identity back would wait for their locks
        leftover::end_readers(session, &task.name).await?;
    }
    changes::release(session, &name, session.major()).await?;
    match task.writes {
        Writes::Marker => establish::drop_and_restore(session, &name).await,
        Writes::Never => changes::end_hurries(session, &name).await,
    }
}
