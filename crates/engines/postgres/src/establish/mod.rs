//! Everything capture needs on a source, in the order that makes P0 true.
//!
//! 1. the publication, empty; its comment is the record of what is changed on tables;
//! 2. replica identity, before a table is published: a published table without one makes its users' updates fail;
//! 3. the tables into the publication, never "all tables";
//! 4. the slot, after its publication: an older slot would fail or skip rows in silence; its exported snapshot is P0;
//! 5. the wait for transactions that were committed in the log and not yet visible, so that later snapshots show
//!    everything before P0.
//!
//! Where the source may not be written to, 1 to 3 are its administrator's, and only looked at (`given`).
//!
//! All of it can be done again after a crash between any two steps: 1 to 3 find what is there, 4 replaces it.

mod blockers;
mod given;
mod identity;
mod locks;
mod publication;
mod standby;

use std::sync::Arc;
use std::time::Duration;

use godwit_model::{Error, Position, Result, Table, Task, Writes, codes, failpoint};

use crate::changes::Slot;
use crate::connect::{self, Session};
use crate::position::{Lsn, Place};
use crate::replication::Replication;
use crate::{changes, error, leftover, names, quote};

pub(crate) use blockers::name_all;
pub(crate) use given::{lacking, must_be_whole};
pub(crate) use publication::{Record, creation, drop_and_restore};
pub(crate) use standby::no_standby_of_ours;

/// What `establish` made or found.
pub(crate) struct Founded {
    pub(crate) position: Position,
    /// Only where the slot was made now.
    pub(crate) snapshot: Option<SlotSnapshot>,
}

/// The snapshot that shows the source exactly at P0. It lasts as long as the connection that made the slot is open and
/// idle.
pub(crate) struct SlotSnapshot {
    pub(crate) name: String,
    pub(crate) holder: Replication,
}

/// `known`: what an earlier call gave and the task relies on; then everything is only checked.
pub(crate) async fn establish(task: &Task, tables: &[Arc<Table>], known: Option<&Position>) -> Result<Founded> {
    let name = names::of_task(&task.name);
    let session = connect::sql(&task.source, "godwit establish").await?;
    no_standby_of_ours(&session, &name).await?;
    leftover::end_readers(&session, &task.name).await?;
    // A failover that loses our DDL loses the slot with it; waiting for a standby that is away would gain nothing.
    session.batch_execute("SET synchronous_commit = local").await.map_err(error::from_server)?;
    match known {
        Some(position) => recognize(task, &session, &name, position).await,
        None => found(task, &session, &name, tables).await,
    }
}

/// A slot that is gone, lost or ahead of the position is said here, before anything is done that it would make useless.
async fn recognize(task: &Task, session: &Session, name: &str, position: &Position) -> Result<Founded> {
    let identity = Replication::open(&task.source, name).await?.identify().await?;
    let place = match Place::bare(position) {
        Some(lsn) => Place { lsn, log: identity.log.clone() },
        None => Place::parse(position)?,
    };
    changes::same_system(&identity, &place)?;
    let slot = Slot::read(session, name, session.major()).await?.ok_or_else(|| changes::missing(name))?;
    slot.must_keep(name, place.lsn)?;
    Ok(Founded { position: place.log.position(place.lsn), snapshot: None })
}

async fn found(task: &Task, session: &Session, name: &str, tables: &[Arc<Table>]) -> Result<Founded> {
    must_log_logically(session).await?;
    identity::none_is_closed(session, tables).await?;
    changes::release(session, name, session.major()).await?;
    match task.writes {
        Writes::Marker => {
            publication::create(session, name).await?;
            identity::prepare(session, name, tables).await?;
            publication::publish(session, name, tables).await?;
        }
        Writes::Never => given::must_be_there(session, name, tables).await?,
    }
    let mut replication = Replication::open(&task.source, name).await?;
    let log = replication.identify().await?.log;
    failpoint("establish.slot.before");
    let wanted = SlotWanted { name, temporary: false, within: blockers::LIMIT };
    let (point, snapshot) = create_slot(session, &mut replication, wanted).await?;
    failpoint("establish.slot.after");
    if let Err(error) = blockers::wait_for_commits_under_way(session).await {
        // Whoever gives up now shall not be left with a slot that grows.
        changes::release(session, name, session.major()).await?;
        return Err(error);
    }
    Ok(Founded { position: log.position(point), snapshot: Some(SlotSnapshot { name: snapshot, holder: replication }) })
}

async fn must_log_logically(session: &Session) -> Result<()> {
    let row = session.query_one("SELECT current_setting('wal_level')", &[]).await.map_err(error::from_server)?;
    let level: &str = row.get(0);
    if level == "logical" {
        return Ok(());
    }
    Err(Error::new(&codes::SETTING_UNSUITABLE, format!("`wal_level` is {level}, and changes are told by `logical` only"))
        .remedy("set `wal_level = logical` at the source and restart it"))
}

/// From 17 on a slot may be kept on standbys too, so that a promoted one goes on from it; a standby's own may not.
const FAILOVER_SINCE: u32 = 17;

async fn slot_options(session: &Session, wanted: SlotWanted<'_>) -> Result<&'static str> {
    if session.major() < FAILOVER_SINCE || wanted.temporary {
        return Ok("EXPORT_SNAPSHOT");
    }
    let is_standby: bool = session.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(error::from_server)?.get(0);
    Ok(if is_standby { "EXPORT_SNAPSHOT" } else { "(SNAPSHOT 'export', FAILOVER true)" })
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotWanted<'a> {
    pub(crate) name: &'a str,
    /// Goes with the connection that made it.
    pub(crate) temporary: bool,
    /// How long transactions that are open may hold it up.
    pub(crate) within: Duration,
}

/// Makes the slot; gives its first position and its snapshot's name.
pub(crate) async fn create_slot(session: &Session, replication: &mut Replication, wanted: SlotWanted<'_>) -> Result<(Lsn, String)> {
    let process = replication.process();
    let temporary = if wanted.temporary { " TEMPORARY" } else { "" };
    let options = slot_options(session, wanted).await?;
    let command = format!("CREATE_REPLICATION_SLOT {}{temporary} LOGICAL pgoutput {options}", quote::identifier(wanted.name));
    let answer = tokio::time::timeout(wanted.within, replication.query(&command)).await;
    let Ok(rows) = answer else {
        let blockers = blockers::name_all(session, process).await;
        // The server does not look at a socket while it waits, and would leave the slot behind.
        session.execute("SELECT pg_terminate_backend($1)", &[&process]).await.map_err(error::from_server)?;
        return Err(blockers::too_long("the replication slot was not made", wanted.within, blockers?));
    };
    let rows = rows?;
    let field = |index: usize| rows.first().and_then(|row: &Vec<Option<String>>| row.get(index)?.clone());
    let read = field(1).and_then(|point| Lsn::parse(&point)).zip(field(2));
    read.ok_or_else(|| Error::internal("the server's answer to CREATE_REPLICATION_SLOT cannot be read"))
}
