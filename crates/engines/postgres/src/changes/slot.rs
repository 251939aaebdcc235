//! The replication slot: is it there, does it still keep the log from our position on, who reads from it.

use std::time::Duration;

use godwit_model::{Error, Result, TaskName, codes};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::position::{Lsn, Place};
use crate::replication::{Replication, ServerIdentity};
use crate::{error, names, quote};

/// A reader that died is found by the server when its socket ends, or by `wal_sender_timeout` (60 s by default).
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(75);
/// A reader of this same task that is still there after this long is ended: whoever holds the lease is the reader.
const GRACE: Duration = Duration::from_secs(1);
/// The server tells nobody when a slot becomes free.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A standby that is about to take its primary's place cannot be read from before it has, though it has the slot.
pub(crate) async fn not_in_recovery(client: &Client) -> Result<()> {
    let is_standby: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(error::from_server)?.get(0);
    if !is_standby {
        return Ok(());
    }
    Err(Error::new(&codes::UNREACHABLE, "the server is a standby, and the task followed a primary")
        .remedy("promote it, or lead the source's address to the primary; it is tried again"))
}

/// What the server says of a slot.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) active: Option<i32>,
    pub(crate) is_ours: bool,
    confirmed: Option<Lsn>,
    lost: Option<String>,
}

impl Slot {
    /// None: there is none of that name in any database.
    pub(crate) async fn read(client: &Client, name: &str, major: u32) -> Result<Option<Self>> {
        let reason = match major {
            17.. => "s.invalidation_reason",
            16 => "CASE WHEN s.conflicting THEN 'conflict with recovery' END",
            _ => "NULL::text",
        };
        let sql = format!(
            "SELECT s.active_pid, coalesce(a.application_name = $1, false), s.confirmed_flush_lsn::text, \
             coalesce({reason}, CASE WHEN s.wal_status = 'lost' THEN 'its log was removed' \
             WHEN s.plugin IS DISTINCT FROM 'pgoutput' THEN 'it belongs to another plugin' \
             WHEN s.database <> current_database() THEN 'it belongs to another database' END) \
             FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1"
        );
        let row = client.query_opt(&sql, &[&name]).await.map_err(error::from_server)?;
        Ok(row.map(|row| Slot {
            active: row.get(0),
            is_ours: row.get(1),
            confirmed: row.get::<_, Option<&str>>(2).and_then(Lsn::parse),
            lost: row.get(3),
        }))
    }

    /// Whether the log is kept at all.
    fn must_live(&self, name: &str) -> Result<()> {
        match &self.lost {
            Some(reason) => Err(position_lost(format!("replication slot {name} is lost ({reason})"))),
            None => Ok(()),
        }
    }

    /// Whether the log is kept from `from` on. A server asked for less than it keeps skips ahead in silence.
    pub(crate) fn must_keep(&self, name: &str, from: Lsn) -> Result<()> {
        self.must_live(name)?;
        match self.confirmed {
            Some(confirmed) if confirmed <= from => Ok(()),
            Some(confirmed) => Err(position_lost(format!("replication slot {name} begins at {confirmed}, behind the position {from}"))),
            None => Err(position_lost(format!("replication slot {name} has no position"))),
        }
    }
}

pub(crate) fn position_lost(what: String) -> Error {
    Error::new(&codes::POSITION_LOST, what).remedy("`run --resync` makes the target equal again in place")
}

pub(crate) fn missing(name: &str) -> Error {
    position_lost(format!("replication slot {name} is not there"))
}

/// Waits until the slot can be read from `from` on by us.
pub(super) async fn take_over(client: &Client, name: &str, major: u32, from: Lsn) -> Result<()> {
    let began = Instant::now();
    loop {
        let slot = Slot::read(client, name, major).await?.ok_or_else(|| missing(name))?;
        slot.must_keep(name, from)?;
        let Some(process) = slot.active else { return Ok(()) };
        if began.elapsed() > TAKE_OVER_LIMIT {
            return Err(Error::new(&codes::BUSY, format!("replication slot {name} is read by server process {process}"))
                .remedy(format!("end that reader, or let the server: SELECT pg_terminate_backend({process})")));
        }
        if slot.is_ours && began.elapsed() > GRACE {
            end(client, process).await?;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Ends a server process of our own role; without the right to it, waiting is all that is left.
async fn end(client: &Client, process: i32) -> Result<()> {
    match client.execute("SELECT pg_terminate_backend($1)", &[&process]).await {
        Ok(_) => Ok(()),
        Err(problem) if problem.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        Err(problem) => Err(error::from_server(problem)),
    }
}

/// Drops the slot, whoever of this task still reads from it. What is gone already is no error.
pub(crate) async fn release(client: &Client, name: &str, major: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        let Some(slot) = Slot::read(client, name, major).await? else { return Ok(()) };
        match slot.active {
            None => match client.batch_execute(&format!("SELECT pg_drop_replication_slot({})", quote::literal(name))).await {
                Ok(()) => return Ok(()),
                Err(problem) if problem.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_OBJECT) => return Ok(()),
                Err(problem) if problem.code() == Some(&tokio_postgres::error::SqlState::OBJECT_IN_USE) => {}
                Err(problem) => return Err(error::from_server(problem)),
            },
            Some(process) if slot.is_ours => end(client, process).await?,
            Some(_) => {}
        }
        if began.elapsed() > TAKE_OVER_LIMIT {
            return Err(Error::new(&codes::BUSY, format!("replication slot {name} is in use and cannot be dropped"))
                .remedy("end its reader; pg_replication_slots names the process"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Bytes of log behind what was confirmed; None without a slot.
pub(crate) async fn backlog(client: &Client, task: &TaskName) -> Result<Option<u64>> {
    let sql = "SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
               restart_lsn)::int8 FROM pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(sql, &[&names::of_task(task)]).await.map_err(error::from_server)?;
    Ok(row.and_then(|row| row.get::<_, Option<i64>>(0)).map(|bytes| u64::try_from(bytes).unwrap_or(0)))
}

/// Whether the server is the one the position was taken on, and has not come back behind it.
pub(super) async fn same_server(replication: &mut Replication, from: &Place) -> Result<ServerIdentity> {
    let identity = replication.identify().await?;
    same_system(&identity, from)?;
    let (here, there) = (identity.log.timeline, from.log.timeline);
    if here != there {
        let left = left_timeline(replication, here, there).await?;
        if left.is_none_or(|left| from.lsn > left) {
            return Err(changed(format!(
                "the server's log went on from timeline {there} to {here} before the position {} was written",
                from.lsn
            )));
        }
    }
    if identity.flushed < from.lsn {
        return Err(changed(format!(
            "the server's log ends at {}, before the position {} that was read from it",
            identity.flushed, from.lsn
        )));
    }
    Ok(identity)
}

pub(crate) fn same_system(identity: &ServerIdentity, from: &Place) -> Result<()> {
    if identity.log.system == from.log.system {
        return Ok(());
    }
    Err(changed(format!("the source is system {}, the position was taken on system {}", identity.log.system, from.log.system)))
}

fn changed(what: String) -> Error {
    Error::new(&codes::SOURCE_CHANGED, what)
        .remedy("name the server that was read before, or `run --resync` to make the target equal to this one")
}

/// Where the log left timeline `there` on its way to `here`.
async fn left_timeline(replication: &mut Replication, here: u32, there: u32) -> Result<Option<Lsn>> {
    let rows = replication.query(&format!("TIMELINE_HISTORY {here}")).await?;
    let history = rows.first().and_then(|row| row.get(1)?.as_deref()).unwrap_or_default();
    Ok(history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next()?.parse::<u32>().ok()? == there).then(|| Lsn::parse(fields.next()?)).flatten()
    }))
}
