//! A task at work, seen from outside: what can be waited for, asked and ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use godwit_model::{Error, Examiner, Lease, Look, Phase, Result, TableName, codes};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::coalesce::Reread;
use crate::examine::VerifyReport;
use crate::job::{Job, origin};
use crate::load::Route;
use crate::passages::{Passages, Passed};
use crate::patience::answered;
use crate::replay::{MARK_AGAIN, new_marker};
use crate::stillness::{Asked, Stillness};

/// A target this little behind is caught up.
const CAUGHT_UP: Duration = Duration::from_secs(1);

/// When a `run` is over by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Stopped,
    Consistent,
    CaughtUp,
}

/// What can be seen of a running task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Counts attempts; `consistent` speaks of the present one.
    pub attempt: u64,
    pub phase: Option<Phase>,
    pub consistent: bool,
    /// The task only loads, and the load is complete.
    pub loaded: bool,
    pub lease: Option<Lease>,
}

/// A task at work in the background. Dropping it ends the work where it stands, as a crash would.
pub struct Running {
    pub(crate) job: Arc<Job>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) passages: Arc<Passages>,
    pub(crate) stillness: Arc<Stillness>,
    pub(crate) stop: CancellationToken,
    pub(crate) again: Arc<Notify>,
    /// Rows that the next attempt reads again.
    pub(crate) asked: Arc<Mutex<Vec<Reread>>>,
    /// None: it has said why it ended.
    pub(crate) supervisor: Option<AbortOnDropHandle<Result<()>>>,
}

/// Both sides at one place of the source's log, for as long as it lives.
pub(crate) struct Still {
    pub source: Box<dyn Examiner>,
    _target: Asked,
}

impl Running {
    pub fn job(&self) -> &Job {
        &self.job
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Whether the work has ended, by itself or by an error.
    pub fn is_over(&self) -> bool {
        self.supervisor.as_ref().is_none_or(AbortOnDropHandle::is_finished)
    }

    /// Waits for the goal, or for the error that ends the task before. Safe to drop.
    pub async fn reach(&mut self, until: Until) -> Result<()> {
        let reached = |status: &Status| match until {
            Until::Stopped => status.loaded,
            Until::Consistent | Until::CaughtUp => status.consistent || status.loaded,
        };
        self.wait(reached).await?;
        if until != Until::CaughtUp || self.status().loaded {
            return Ok(());
        }
        loop {
            let began = Instant::now();
            self.pass().await?;
            if began.elapsed() < CAUGHT_UP {
                return Ok(());
            }
        }
    }

    async fn wait(&mut self, reached: impl Fn(&Status) -> bool) -> Result<()> {
        let mut status = self.status.clone();
        let met = async { status.wait_for(|status| reached(status)).await.is_ok() };
        tokio::select! {
            biased;
            // the last status outlives the supervisor: what was reached stays reached
            met = met => if met { Ok(()) } else { Err(self.ended().await) },
            ended = self.ended() => Err(ended),
        }
    }

    /// Why the work is over. The reason is given once.
    async fn ended(&mut self) -> Error {
        let over = || Error::new(&codes::INTERRUPTED, "the task is over");
        let Some(supervisor) = &mut self.supervisor else { return over() };
        let done = supervisor.await;
        self.supervisor = None;
        match done {
            Ok(Ok(())) => over(),
            Ok(Err(error)) => error,
            Err(panic) => died(panic),
        }
    }

    /// Waits until everything that users committed at the source before this call is durable in the target.
    pub async fn pass(&mut self) -> Result<()> {
        self.passed().await.map(|_| ())
    }

    /// As `pass`; says how many changes that was since this process began.
    pub(crate) async fn passed(&mut self) -> Result<Passed> {
        // a task that only loads has nothing under way
        if !self.job.task.phases.changes {
            return Ok(Passed { changes: 0 });
        }
        loop {
            let marker = new_marker(&origin(&self.job.task));
            let mut passed = self.passages.expect(marker.clone());
            match answered(self.job.source.mark(&marker)).await {
                Err(error) if !error.is_transient() => return Err(error),
                _ => {}
            }
            tokio::select! {
                Ok(passed) = &mut passed => return Ok(passed),
                ended = self.ended() => return Err(ended),
                () = tokio::time::sleep(MARK_AGAIN) => {}
            }
        }
    }

    /// Holds the target where a look at the source was taken. None: the source cannot be looked at so.
    pub(crate) async fn still(&mut self) -> Result<Option<Still>> {
        if !self.job.task.phases.changes {
            return Ok(None);
        }
        let asked = self.stillness.ask();
        let Some(Look { position, examiner }) = self.job.source.look().await? else { return Ok(None) };
        asked.until(position);
        loop {
            // on an idle source nothing else comes behind the place
            match self.job.source.mark(&new_marker(&origin(&self.job.task))).await {
                Err(error) if !error.is_transient() => return Err(error),
                _ => {}
            }
            tokio::select! {
                () = asked.is_reached() => return Ok(Some(Still { source: examiner, _target: asked })),
                ended = self.ended() => return Err(ended),
                () = tokio::time::sleep(MARK_AGAIN) => {}
            }
        }
    }

    /// Puts what a report found on the re-read list and begins a convergent window over it.
    pub(crate) async fn reread(&mut self, routes: &[Route], report: &VerifyReport) -> Result<()> {
        let mut list = Vec::new();
        let by_name: HashMap<&TableName, &Route> = routes.iter().map(|route| (&route.table.name, route)).collect();
        for table in &report.tables {
            let Some(route) = by_name.get(&table.source) else { continue };
            let keys = table.differences.iter().filter(|difference| !difference.key.is_empty());
            list.extend(keys.map(|difference| Reread { mapping: route.mapping.clone(), key: difference.key.clone() }));
        }
        // the attempt at work lists keys of its own: the next one notes both
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(list);
        self.begin_again().await
    }

    /// Another attempt, which takes the ledger as it is now.
    pub(crate) async fn begin_again(&mut self) -> Result<()> {
        let before = self.status().attempt;
        self.again.notify_one();
        self.wait(|status| status.attempt > before).await
    }

    /// Ends the work and gives the lease back. The error that had ended it before, if any.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        match self.supervisor {
            Some(supervisor) => supervisor.await.map_err(died)?,
            None => Ok(()),
        }
    }
}

fn died(error: tokio::task::JoinError) -> Error {
    Error::internal("the task's supervisor died").caused_by(error)
}
