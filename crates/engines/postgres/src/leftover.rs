//! Transactions that whoever had the task before has left open on a server, and their end.
//!
//! A connection that is lost on its way takes the news of its end with it: behind a balancer that forgot it, or after a
//! power cut on our side, the server's process keeps its transaction, its locks and its horizon for hours. So each
//! transaction of a task that lasts says whose it is, by an advisory lock that it shares until its end: at a target the
//! task and the epoch, at a source the task. Whoever holds the task now ends the processes of those before: at a target
//! none of them could commit any more, and at a source nobody is left who reads.
//!
//! The lock is the transaction's and not the session's, because a pooler may hand a server process to somebody else, but
//! never inside a transaction; for the same reason a process number that is another's by now is not met.

use godwit_model::{Lease, Result, TaskName};
use tokio_postgres::Client;

use crate::error;

/// Whose a transaction is: the two numbers of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    task: u32,
    number: u32,
}

impl Claim {
    /// A transaction that writes to a target.
    pub(crate) fn of_writer(lease: &Lease) -> Claim {
        Claim::of_epoch(&lease.task, lease.epoch)
    }

    fn of_epoch(task: &TaskName, epoch: u64) -> Claim {
        // more epochs than a task can see; the sign is left alone, so that greater is later
        Claim { task: hash(&format!("godwit writes {task}")), number: (epoch & 0x7fff_ffff) as u32 }
    }

    /// A transaction that reads chunks, or keeps the snapshot that others read them under.
    pub(crate) fn of_reader(task: &TaskName) -> Claim {
        Claim { task: hash(&format!("godwit reads {task}")), number: 0 }
    }

    /// An expression, to be computed inside the transaction.
    pub(crate) fn sql(self) -> String {
        format!("pg_advisory_xact_lock_shared('{}'::int4, {})", self.task as i32, self.number)
    }
}

/// FNV-1a: two processes of any version have to come to the same number.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Two tasks whose numbers are equal by chance are told apart by nothing: the worst is a lost connection that is made anew.
/// A process of another role may not be ended, and one error would spare them all.
const END: &str = "
SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = $1 AND l.objid < $2 AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND a.usename = session_user
  AND (a.wait_event_type = 'Client' OR $3)";

/// Ends the transactions of epochs before this one, which the caller holds.
pub(crate) async fn end_older(client: &Client, task: &TaskName, epoch: u64) -> Result<()> {
    end_before(client, Claim::of_epoch(task, epoch), true).await
}

/// Of epochs before one that the caller is about to take, only those that wait for a word of ours: a commit under way, which
/// may wait for a standby, shows that their holder lives.
pub(crate) async fn end_silent(client: &Client, task: &TaskName, epoch: u64) -> Result<()> {
    end_before(client, Claim::of_epoch(task, epoch), false).await
}

/// Ends all that read chunks for the task.
pub(crate) async fn end_readers(client: &Client, task: &TaskName) -> Result<()> {
    let Claim { task, number } = Claim::of_reader(task);
    end_before(client, Claim { task, number: number + 1 }, true).await
}

/// They are told to end, and not waited for: whoever needs their locks waits for these. A server that lets nobody do so
/// does not keep the task from going on.
async fn end_before(client: &Client, claim: Claim, also_busy: bool) -> Result<()> {
    match client.query(END, &[&claim.task, &claim.number, &also_busy]).await {
        Ok(ended) if ended.is_empty() => {}
        Ok(ended) => tracing::info!(transactions = ended.len(), "transactions of an earlier attempt were still open and were ended"),
        Err(problem) if problem.code().is_some() => {
            let error = error::from_server(problem);
            tracing::warn!(%error, "transactions of an earlier attempt cannot be ended: they may hold locks");
        }
        Err(problem) => return Err(error::from_server(problem)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other processes, also of other versions, know these numbers.
    #[test]
    fn claims_are_told_apart_and_stay_what_they_are() {
        let (shop, other) = (TaskName::parse("shop").unwrap(), TaskName::parse("other").unwrap());
        let lease = |task: &TaskName, epoch| Claim::of_writer(&Lease { task: task.clone(), epoch });
        assert_eq!(lease(&shop, 7).sql(), "pg_advisory_xact_lock_shared('1628384103'::int4, 7)");
        assert_ne!(lease(&shop, 7), lease(&shop, 8));
        assert_ne!(lease(&shop, 7).task, lease(&other, 7).task);
        assert_ne!(lease(&shop, 0), Claim::of_reader(&shop));
    }
}
