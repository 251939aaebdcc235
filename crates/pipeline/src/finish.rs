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
use crate::structure::{Leftover, Part};
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

/// What a finish found before it removes anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// None: the task asks for no comparison of rows.
    pub rows: Option<VerifyReport>,
    /// What of the target's structure is not as at the source.
    pub left: Vec<Leftover>,
    /// Tables whose structure was not compared, because it is their owner's.
    pub owned_by_others: usize,
}

impl Completion {
    /// Whether no row was found to differ.
    pub fn is_equal(&self) -> bool {
        self.rows.as_ref().is_none_or(VerifyReport::is_equal)
    }
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

    /// Everything but the removal of what Godwit left: drains, makes tables what the source's are, verifies,
    /// moves sequences, makes what waited. With differences found, or users who write on, nothing is removed later and the
    /// task may go on. What waited is made only behind a proof and when nobody writes: from then on triggers and policies
    /// may stand between us and the rows.
    pub async fn complete(&mut self, read_only_source: bool) -> Result<Completion> {
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
            let routes = job.routes().await?;
            let before = self.passed().await?;
            failpoint("finish.drained");
            let refused = self.settle_rows(&routes).await?;
            let rows = self.prove().await?;
            if rows.as_ref().is_some_and(|rows| !rows.is_equal()) {
                return Ok(Completion { rows, ..Completion::default() });
            }
            // a writer that did not stop shows in the log behind the drain
            let mut after = self.passed().await?;
            let mut found = Completion { rows, ..Completion::default() };
            if before == after {
                let made = self.make_what_waited(&routes, refused).await?;
                if !made.is_equal() {
                    return Ok(made);
                }
                found = Completion { rows: found.rows, ..made };
                after = self.passed().await?;
            }
            if before == after {
                let lease = self.held_lease()?;
                job.target.record(&lease, &[facts::done_entry("finished")]).await?;
                return Ok(found);
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

    /// What bears on rows is made alike before they are compared; gives what the target refused.
    async fn settle_rows(&self, routes: &[Route]) -> Result<Vec<Leftover>> {
        let job = self.job();
        let lease = self.held_lease()?;
        let mut facts = Facts::from_entries(job.target.ledger(&job.task.name).await?);
        let setup = job.setup(&lease);
        let mut refused = setup.make_new(&mut facts).await?;
        refused.extend(setup.settle(&facts, routes, Part::OfRows).await?);
        Ok(refused)
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

    /// Gives what is not alike then, or the differences of rows that a step met.
    async fn make_what_waited(&mut self, routes: &[Route], refused: Vec<Leftover>) -> Result<Completion> {
        let job = self.job().clone();
        let lease = self.held_lease()?;
        let values = job.source.sequences(&job.task).await?;
        job.target.set_sequences(&lease, &values).await?;
        failpoint("finish.sequences");
        let (left, owned_by_others) = match self.build(&job, &lease, routes, refused).await {
            Ok(built) => built,
            Err(error) => return self.explained(error).await,
        };
        // a column that came meanwhile may have brought a sequence
        job.target.set_sequences(&lease, &values).await?;
        failpoint("finish.schema");
        let names: Vec<TableName> = routes.iter().map(|route| route.mapping.target.clone()).collect();
        job.target.analyze(&names).await?;
        Ok(Completion { rows: None, left, owned_by_others })
    }

    /// What waited, and what of the structure bears on no row; gives what is left, and how many tables were not looked at.
    async fn build(&self, job: &Job, lease: &Lease, routes: &[Route], mut refused: Vec<Leftover>) -> Result<(Vec<Leftover>, usize)> {
        let mut facts = Facts::from_entries(job.target.ledger(&job.task.name).await?);
        let setup = job.setup(lease);
        if let Err(error) = setup.at_finish(&mut facts).await {
            if error.is_transient() {
                return Err(error);
            }
            // it may lean on what came to a table since
            setup.settle(&facts, routes, Part::Rest).await?;
            setup.at_finish(&mut facts).await?;
        }
        refused.extend(setup.settle(&facts, routes, Part::Rest).await?);
        let mut left = setup.leftovers(&facts, routes, refused).await?;
        left.extend(setup.newcomers(&facts).await?.into_iter().map(newcomer));
        for leftover in &left {
            job.observer.event(Event::Warning(format!("{}: {}", leftover.what, leftover.why)));
        }
        Ok((left, setup.owned_by_others(&facts, routes)?))
    }

    /// A step that the target refuses, a foreign key above all, most likely met a difference: then that is the answer.
    async fn explained(&mut self, error: Error) -> Result<Completion> {
        if error.is_transient() {
            return Err(error);
        }
        match self.verify().await {
            Ok(report) if !report.is_equal() => Ok(Completion { rows: Some(report), ..Completion::default() }),
            _ => Err(error),
        }
    }
}

fn newcomer(table: TableName) -> Leftover {
    let why = "the table came after the task began, and was not taken in".to_owned();
    Leftover { what: format!("TABLE {table}"), why, statements: Vec::new() }
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
