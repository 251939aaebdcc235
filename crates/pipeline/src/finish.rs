//! The end of a migration, and giving a task up.

use std::sync::Arc;

use godwit_model::{DdlPolicy, Error, Event, Lease, Phase, Result, Table, TableName, Trace, codes, failpoint};

use crate::carry;
use crate::examine::{self, Settle, VerifyReport};
use crate::facts::{self, Facts};
use crate::job::Job;
use crate::load::Route;
use crate::running::{Running, Still, Until};
use crate::setup::{self, Setup};
use crate::tenure;

/// How often the source is drained, and both sides compared, while users write on.
const MOST_DRAINS: u32 = 3;

/// What became of everything that the task needed on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub removed: Vec<Trace>,
    /// Made by others, who alone remove it.
    pub stays: Vec<Trace>,
}

struct Drain<'a>(&'a mut Running);

impl Settle for Drain<'_> {
    async fn settle(&mut self) -> Result<()> {
        self.0.pass().await
    }

    async fn still(&mut self) -> Result<Option<Still>> {
        self.0.still().await
    }
}

impl Running {
    /// A schema change that no change of a row has followed shows in the catalog alone: the next attempt begins with it.
    async fn follow_catalog(&mut self) -> Result<()> {
        loop {
            self.reach(Until::Consistent).await?;
            let job = self.job().clone();
            if !job.task.phases.changes || job.task.schema.changes == DdlPolicy::Ignore {
                return Ok(());
            }
            let facts = Facts::from_entries(job.target.ledger(&job.task.name).await?);
            let names: Vec<TableName> = job.routes_of(&facts)?.into_iter().map(|route| route.table.name.clone()).collect();
            if !carry::has_news(&facts, &names, &job.source.appearances(&names).await?)? {
                return Ok(());
            }
            self.begin_again().await?;
        }
    }

    /// Compares both sides while they live.
    pub async fn verify(&mut self) -> Result<VerifyReport> {
        self.follow_catalog().await?;
        let routes = self.job().routes().await?;
        let (source, target) = (self.job().source.clone(), self.job().target.clone());
        examine::verify(&*source, &*target, &routes, &mut Drain(self)).await
    }

    /// Copies the rows that differ anew, in the apply's order; gives how many. Without a key a row cannot be copied anew.
    pub async fn repair(&mut self, report: &VerifyReport) -> Result<u64> {
        let routes = self.job().routes().await?;
        self.reread(&routes, report).await?;
        self.reach(Until::Consistent).await?;
        let keyed = report.tables.iter().flat_map(|table| &table.differences).filter(|difference| !difference.key.is_empty());
        Ok(keyed.count() as u64)
    }

    /// Everything but the removal of what Godwit left: drains, verifies, moves sequences, makes what waited. With
    /// differences found, or users who write on, nothing is removed later and the task may go on. What waited is made only
    /// behind a proof and when nobody writes: from then on triggers and policies may stand between us and the rows.
    pub async fn complete(&mut self, read_only_source: bool) -> Result<Option<VerifyReport>> {
        self.follow_catalog().await?;
        let job = self.job().clone();
        let routes = job.routes().await?;
        job.observer.event(Event::Phase(Phase::Finish));
        if read_only_source {
            let tables: Vec<Arc<Table>> = routes.iter().map(|route| route.table.clone()).collect();
            job.source.set_read_only(&tables, true).await?;
        }
        for drained in 1..=MOST_DRAINS {
            self.follow_catalog().await?;
            let before = self.passed().await?;
            failpoint("finish.drained");
            let report = self.prove().await?;
            if report.as_ref().is_some_and(|report| !report.is_equal()) {
                return Ok(report);
            }
            // a writer that did not stop shows in the log behind the drain
            let mut after = self.passed().await?;
            if before == after {
                if let Some(differences) = self.make_what_waited(&routes).await? {
                    return Ok(Some(differences));
                }
                after = self.passed().await?;
            }
            if before == after {
                let lease = self.held_lease()?;
                job.target.record(&lease, &[facts::done_entry("finished")]).await?;
                return Ok(report);
            }
            let what = format!("users wrote {} changes at the source after it was drained", after.changes.abs_diff(before.changes));
            if drained < MOST_DRAINS {
                job.observer.event(Event::Warning(format!("{what}; draining again")));
            } else {
                return Err(writers_left(&what, &job));
            }
        }
        Err(Error::internal("a finish without an end"))
    }

    fn held_lease(&self) -> Result<Lease> {
        self.status().lease.ok_or_else(|| Error::internal("a consistent task holds no lease"))
    }

    /// None: the task asks for no proof.
    async fn prove(&mut self) -> Result<Option<VerifyReport>> {
        let report = match self.job().task.verify_at_finish {
            true => Some(self.verify().await?),
            false => None,
        };
        failpoint("finish.verified");
        Ok(report)
    }

    /// Gives the differences that a step met.
    async fn make_what_waited(&mut self, routes: &[Route]) -> Result<Option<VerifyReport>> {
        let job = self.job().clone();
        let lease = self.held_lease()?;
        let values = job.source.sequences(&job.task).await?;
        job.target.set_sequences(&lease, &values).await?;
        failpoint("finish.sequences");
        let mut facts = Facts::from_entries(job.target.ledger(&job.task.name).await?);
        if let Err(error) = job.setup(&lease).at_finish(&mut facts).await {
            return self.explained(error).await.map(Some);
        }
        failpoint("finish.schema");
        let names: Vec<TableName> = routes.iter().map(|route| route.mapping.target.clone()).collect();
        job.target.analyze(&names).await?;
        Ok(None)
    }

    /// A step that the target refuses, a foreign key above all, most likely met a difference: then that is the answer.
    async fn explained(&mut self, error: Error) -> Result<VerifyReport> {
        if error.is_transient() {
            return Err(error);
        }
        match self.verify().await {
            Ok(report) if !report.is_equal() => Ok(report),
            _ => Err(error),
        }
    }
}

fn writers_left(what: &str, job: &Job) -> Error {
    Error::new(&codes::WRITERS_LEFT, what)
        .at(job.task.source.display())
        .remedy("stop whoever still writes there, or shut them out with `--read-only-source`, then finish again")
        .effect("what they wrote is applied and nothing was removed: the task can go on")
}

impl Job {
    pub(crate) fn setup<'a>(&'a self, lease: &'a Lease) -> Setup<'a> {
        let Job { task, source, target, observer, described, .. } = self;
        Setup { task, source: &**source, target: &**target, lease, observer, described }
    }

    pub(crate) async fn routes(&self) -> Result<Vec<Route>> {
        self.routes_of(&Facts::from_entries(self.target.ledger(&self.task.name).await?))
    }

    pub(crate) fn routes_of(&self, facts: &Facts) -> Result<Vec<Route>> {
        let tables = facts.tables()?.ok_or_else(|| {
            Error::new(&codes::STATE_LOST, "the target knows nothing of this task")
                .remedy("was it finished or cleaned? start it with `run`")
        })?;
        setup::routes(&self.task, tables)
    }

    /// Whether `complete` has found both sides equal, so that only the removal is left.
    pub async fn is_complete(&self) -> Result<bool> {
        Ok(Facts::from_entries(self.target.ledger(&self.task.name).await?).is_done("finished"))
    }

    /// What Godwit left on both sides.
    pub async fn traces(&self) -> Result<Vec<Trace>> {
        let mut traces = self.source.traces().await?;
        traces.extend(self.target.traces(&self.task.name).await?);
        Ok(traces)
    }

    /// Removes what Godwit left on both sides, under the lease so that no other process is at work. The source first:
    /// there it costs. Then the log here, then the target's memory of the task.
    pub async fn remove(&self, after_finish: bool) -> Result<Removal> {
        if self.target.lease(&self.task.name).await?.is_some() {
            tenure::take(&*self.target, &self.task.name, &self.holder, self.life).await?;
        }
        let (removed, stays) = (self.traces().await?, self.source.left_to_others().await?);
        self.source.remove_traces().await?;
        failpoint(if after_finish { "finish.removed.source" } else { "clean.source" });
        self.storage.wipe().await?;
        self.target.remove_traces(&self.task.name).await?;
        failpoint(if after_finish { "finish.removed.target" } else { "clean.target" });
        Ok(Removal { removed, stays })
    }
}
