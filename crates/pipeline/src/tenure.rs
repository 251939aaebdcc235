//! Holding a task: taking its lease, keeping it, giving it up.
//!
//! The lease row lies in the target. Whether a lease may be taken is decided here, on data alone; what it protects is
//! enforced by the target, which lets no write of an older epoch take effect.

use std::time::Duration;

use godwit_model::{Error, Holder, Lease, LeaseRecord, Result, Target, TaskName, codes};
use tokio::time::Instant;

use crate::patience::answered;

/// A lease whose counter has not moved for this long, seen by the taker's own clock, is free.
pub(crate) const STILL_FOR: Duration = Duration::from_secs(15);
/// How often the counter is raised while nothing else raises it; a fifth of `STILL_FOR`, so that four may be missed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How often a taker looks at another's counter. A store offers nothing to wait on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What this machine says of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Certainly gone: this boot, and that process is no more.
    Gone,
    /// Certainly there: this boot, and that process lives.
    Alive,
    /// Another machine, another boot or another process space.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    Held,
    Watch,
}

fn judge(record: Option<&LeaseRecord>, life: impl Fn(&Holder) -> Life, still_for: Duration) -> Verdict {
    let Some(holder) = record.and_then(|record| record.holder.as_ref()) else { return Verdict::Take };
    match life(holder) {
        Life::Gone => Verdict::Take,
        Life::Alive => Verdict::Held,
        Life::Unknown if still_for >= STILL_FOR => Verdict::Take,
        Life::Unknown => Verdict::Watch,
    }
}

/// Takes the task's lease, or says who holds it. Writes nothing while another may be alive.
pub(crate) async fn take(
    target: &dyn Target,
    task: &TaskName,
    me: &Holder,
    life: impl Fn(&Holder) -> Life,
) -> Result<(Lease, LeaseRecord)> {
    let mut seen = answered(target.lease(task)).await?;
    let mut since = Instant::now();
    loop {
        match judge(seen.as_ref(), &life, since.elapsed()) {
            Verdict::Held => return Err(held(task, seen.as_ref())),
            Verdict::Take => match answered(target.take_lease(task, me, seen.as_ref())).await? {
                Some(record) => return Ok((Lease { task: task.clone(), epoch: record.epoch }, record)),
                None => return Err(held(task, answered(target.lease(task)).await?.as_ref())),
            },
            Verdict::Watch => tokio::time::sleep(LOOK_EVERY).await,
        }
        let now = answered(target.lease(task)).await?;
        let moved = match (&now, &seen) {
            (Some(now), Some(seen)) => (now.epoch, now.counter) != (seen.epoch, seen.counter),
            _ => true,
        };
        if moved && now.as_ref().is_some_and(|record| record.holder.is_some()) {
            return Err(held(task, now.as_ref()));
        }
        if moved {
            since = Instant::now();
        }
        seen = now;
    }
}

/// Takes the lease anew that this process holds already. Raising the epoch waits for a commit of the last attempt that is
/// still under way and shuts out any that comes later, so that the checkpoint read here is the true one.
pub(crate) async fn resume(target: &dyn Target, lease: &Lease, me: &Holder) -> Result<(Lease, LeaseRecord)> {
    loop {
        let seen = match answered(target.lease(&lease.task)).await? {
            Some(record) if record.epoch == lease.epoch => record,
            // the answer to an earlier raise was lost
            Some(record) if record.holder.as_ref() == Some(me) => record,
            _ => {
                return Err(Error::new(&codes::LEASE_LOST, format!("task `{}` was taken over by another process", lease.task))
                    .effect("this process has written nothing since"));
            }
        };
        if let Some(record) = answered(target.take_lease(&lease.task, me, Some(&seen))).await? {
            return Ok((Lease { task: lease.task.clone(), epoch: record.epoch }, record));
        }
    }
}

fn held(task: &TaskName, record: Option<&LeaseRecord>) -> Error {
    let who = match record.and_then(|record| record.holder.as_ref()) {
        Some(holder) => format!("process {} on {}", holder.pid, holder.host),
        None => "another process".to_owned(),
    };
    Error::new(&codes::HELD, format!("task `{task}` is run by {who}"))
        .remedy("let it run, or end it and start again")
        .effect("nothing was changed")
}

/// Raises the counter for as long as it is polled; returns only when the lease is lost, or the target
/// no longer answers.
pub(crate) async fn keep(target: &dyn Target, lease: &Lease) -> Error {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let asked = Instant::now();
        match answered(target.renew(lease)).await {
            Ok(()) => {}
            Err(error) if error.is(&codes::LEASE_LOST) => return error,
            // so are those that write, most likely: all of them are made anew
            Err(error) if asked.elapsed() > STILL_FOR => return error,
            // whoever is cut off from the target cannot write there either; the epoch decides when it comes back
            Err(error) => tracing::warn!(%error, "the lease could not be renewed, trying again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: Option<u32>) -> LeaseRecord {
        let holder = holder.map(|pid| Holder { host: "h".into(), boot: "b".into(), pid, started: 1 });
        LeaseRecord { holder, counter: 1, epoch: 1, checkpoint: None }
    }

    #[test]
    fn a_lease_is_taken_only_from_the_dead_the_silent_and_the_willing() {
        let moment = Duration::ZERO;
        assert_eq!(judge(None, |_| Life::Unknown, moment), Verdict::Take);
        assert_eq!(judge(Some(&record(None)), |_| Life::Alive, moment), Verdict::Take);
        assert_eq!(judge(Some(&record(Some(7))), |_| Life::Gone, moment), Verdict::Take);
        assert_eq!(judge(Some(&record(Some(7))), |_| Life::Unknown, moment), Verdict::Watch);
        assert_eq!(judge(Some(&record(Some(7))), |_| Life::Unknown, STILL_FOR), Verdict::Take);
        assert_eq!(judge(Some(&record(Some(7))), |_| Life::Alive, STILL_FOR * 9), Verdict::Held);
    }
}
