//! What a following task does from time to time: keeps sequences ahead at the target, and watches how much log it causes.
//!
//! When the target stalls, the change log grows to its budget; then capture pauses and the source's own log grows, to the
//! budget that the task gives it. People are told at half and at four fifths of each. At the end of the source's budget
//! `stop` goes on telling (the position is protected, not the disk), `release` lets the source forget (the disk is
//! protected, not the position).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_model::{BudgetEnd, Error, Event, Lease, LogBudget, Observer, Result, Source, TableName, Target, Task, codes};
use godwit_store::ChangeLog;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::patience::answered;

/// A log that grows by 100 MB/s has grown by 1 GB between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const SEQUENCES_EVERY: Duration = Duration::from_secs(60);
/// How often tables are looked for that came to the source.
const NEWCOMERS_EVERY: Duration = Duration::from_secs(60);
/// How often an exhausted budget is repeated to whoever should act.
const REMIND_EVERY: Duration = Duration::from_secs(60);
const MARKS: [f64; 2] = [0.5, 0.8];

pub(crate) struct Upkeep<'a> {
    pub task: &'a Task,
    pub source: &'a dyn Source,
    pub target: &'a dyn Target,
    pub lease: &'a Lease,
    pub log: Arc<dyn ChangeLog>,
    pub observer: &'a Arc<dyn Observer>,
    /// Those that the task moves.
    pub known: HashSet<TableName>,
    /// Tables that people were told of.
    pub told: &'a Mutex<HashSet<TableName>>,
    /// Set before the source is made to forget, so that the capture's end by it is not taken for the reason.
    pub releasing: &'a AtomicBool,
}

/// Which marks of a budget have been told of.
#[derive(Default)]
struct Told {
    marks: usize,
    full_at: Option<Instant>,
}

/// What a fill level calls for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Nothing,
    Warn,
    Full,
}

impl Told {
    /// Each mark is told once on the way up, a full budget again and again; on the way down marks may be told anew.
    fn of(&mut self, fill: f64, now: Instant) -> Call {
        if fill >= 1.0 {
            if self.full_at.is_some_and(|told| now.duration_since(told) < REMIND_EVERY) {
                return Call::Nothing;
            }
            self.full_at = Some(now);
            return Call::Full;
        }
        self.full_at = None;
        let passed = MARKS.iter().filter(|mark| fill >= **mark).count();
        let news = passed > self.marks;
        self.marks = passed;
        if news { Call::Warn } else { Call::Nothing }
    }
}

impl Upkeep<'_> {
    /// Runs until the source's budget ends in `release`, or an error that is not a passing one.
    pub async fn run(self) -> Result<()> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sequences_at, mut newcomers_at) = (Instant::now(), None::<Instant>);
        let (mut change_log, mut source_log) = (Told::default(), Told::default());
        loop {
            look.tick().await;
            self.change_log(&mut change_log);
            self.source_log(&mut source_log).await?;
            if newcomers_at.is_none_or(|at| at.elapsed() >= NEWCOMERS_EVERY) {
                newcomers_at = Some(Instant::now());
                passing(self.newcomers().await)?;
            }
            if sequences_at.elapsed() >= SEQUENCES_EVERY {
                sequences_at = Instant::now();
                passing(self.sequences().await)?;
            }
        }
    }

    async fn sequences(&self) -> Result<()> {
        let values = answered(self.source.sequences(self.task)).await?;
        answered(self.target.set_sequences(self.lease, &values)).await
    }

    /// A table that came after the task began is not moved: that is said once.
    async fn newcomers(&self) -> Result<()> {
        for table in answered(self.source.selected(self.task)).await? {
            let is_new = !self.known.contains(&table) && self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone());
            if is_new {
                self.warn(format!(
                    "table {table} came to the source after the task began, and is not moved: move it by a task of its own, or begin anew with `run --resync`"
                ));
            }
        }
        Ok(())
    }

    fn change_log(&self, told: &mut Told) {
        let fill = self.log.fill();
        let percent = fill * 100.0;
        match told.of(fill, Instant::now()) {
            Call::Nothing => {}
            Call::Warn => {
                self.warn(format!("the change log has reached {percent:.0} % of its budget (limits.change_log): the target is behind"))
            }
            Call::Full => self.warn("the change log has reached its budget: capture pauses, and the source's own log grows".to_owned()),
        }
    }

    async fn source_log(&self, told: &mut Told) -> Result<()> {
        let LogBudget { size: Some(budget), then } = self.task.log_budget else { return Ok(()) };
        let held = match answered(self.source.backlog()).await {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(()),
            Err(error) => return passing(Err(error)),
        };
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let fill = held as f64 / budget.0.max(1) as f64;
        let percent = fill * 100.0;
        match (told.of(fill, Instant::now()), then) {
            (Call::Nothing, _) => Ok(()),
            (Call::Warn, _) => {
                self.warn(format!("the source keeps {held} bytes of log for this task, {percent:.0} % of source.log_budget"));
                Ok(())
            }
            (Call::Full, BudgetEnd::Stop) => {
                self.warn(format!(
                    "the source keeps {held} bytes of log for this task, more than source.log_budget, and goes on: make room there, mend the target, or give up with `godwit clean`"
                ));
                Ok(())
            }
            (Call::Full, BudgetEnd::Release) => self.release(held).await,
        }
    }

    async fn release(&self, held: u64) -> Result<()> {
        self.releasing.store(true, Ordering::SeqCst);
        self.source.remove_traces().await?;
        Err(Error::new(&codes::SOURCE_BUDGET, format!("the source kept {held} bytes of log for this task, more than its budget"))
            .at(self.task.source.display())
            .remedy("mend what held the target up, then make it equal again with `godwit run --resync`")
            .effect("what kept the log on the source was removed, as `log_budget: {then: release}` says; the target stays as it is"))
    }

    fn warn(&self, what: String) {
        tracing::warn!("{what}");
        self.observer.event(Event::Warning(what));
    }
}

/// A passing failure is tried again at the next turn.
fn passing(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_transient() && !error.is(&codes::LEASE_LOST) => {
            tracing::info!(%error, "upkeep failed, trying again later");
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn marks_are_told_once_and_a_full_budget_again_and_again() {
        let mut told = Told::default();
        let now = Instant::now();
        let calls: Vec<Call> = [0.1, 0.5, 0.6, 0.85, 0.9].into_iter().map(|fill| told.of(fill, now)).collect();
        assert_eq!(calls, [Call::Nothing, Call::Warn, Call::Nothing, Call::Warn, Call::Nothing]);
        assert_eq!(told.of(1.2, now), Call::Full);
        assert_eq!(told.of(1.2, now + REMIND_EVERY / 2), Call::Nothing);
        assert_eq!(told.of(1.2, now + REMIND_EVERY), Call::Full);
        assert_eq!(told.of(0.1, now), Call::Nothing);
        assert_eq!(told.of(0.6, now), Call::Warn);
    }
}
