//! The full load: tables cut into chunks, chunks copied side by side, each recorded in the transaction that wrote it.
//!
//! While every chunk comes from the one snapshot that shows the source exactly at P0, chunks are plain inserts and replay
//! may be strict from P0 on. As soon as another snapshot is needed (age, a crash, a lost connection) the fact `inexact` is
//! recorded first; from then on chunks are upserts and replay is convergent up to P1.

use std::sync::Arc;
use std::time::Duration;

use godwit_model::{
    Chunk, ChunkMode, ChunkWrite, ChunkWritten, Error, Event, Lease, Observer, ReadSpec, Result, Snapshot, Source, Table, TableMapping,
    TableName, Target, codes, failpoint,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::facts::{self, Facts, Plan};

/// A chunk is small enough to be copied again after a crash and large enough that its commit costs nothing beside it.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// Blocks travel one at a time per worker; small enough that all workers together stay far below the memory limit.
const BLOCK_BYTES: usize = 256 << 10;
/// How often a table is planned anew because its rows stand in each other's way: by then it is no matter of snapshots.
const MOST_GENERATIONS: u64 = 20;

/// A selected table and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub table: Arc<Table>,
    pub mapping: Arc<TableMapping>,
}

pub(crate) struct Loader {
    pub source: Arc<dyn Source>,
    pub target: Arc<dyn Target>,
    pub lease: Lease,
    pub routes: Vec<Route>,
    pub workers: usize,
    /// About how much of a table one chunk holds.
    pub chunk_bytes: u64,
    pub snapshot_age: Duration,
    /// Whether native blocks may pass unread.
    pub native: bool,
    /// Rows may be there already, from before.
    pub over_old_rows: bool,
    /// Rows that are not the source's are there and stay: only inserts leave them alone.
    pub beside_strangers: bool,
    /// Nothing is replayed over this copy: any one snapshot is as good as an exact one.
    pub alone: bool,
    pub tasks: TaskTracker,
    pub observer: Arc<dyn Observer>,
}

/// The snapshot in use; replaced when it grows too old.
struct View {
    snapshot: Arc<dyn Snapshot>,
    /// Every row so far came from this one, and no change is replayed from before it: chunks are plain inserts.
    fresh: bool,
    /// The fact `inexact` is recorded.
    inexact: bool,
}

struct Job {
    route: Route,
    generation: u64,
    number: usize,
    chunk: Chunk,
}

/// What one round left to do.
type StaleTables = Vec<Route>;

impl Loader {
    /// Copies what is not copied yet. `exact` is the snapshot of a P0 made just now. On success every chunk of every
    /// table is durable in the target.
    pub async fn run(self, facts: &mut Facts, exact: Option<Box<dyn Snapshot>>) -> Result<()> {
        let loader = Arc::new(self);
        let given = exact.is_some();
        let snapshot = match exact {
            Some(snapshot) => snapshot,
            None => {
                loader.refuse_torn_tables(facts)?;
                loader.source.snapshot().await?
            }
        };
        let fresh = given && (snapshot.is_exact() || loader.alone);
        let mut view = View { snapshot: Arc::from(snapshot), fresh, inexact: facts.is_done("inexact") };
        loader.note_exactness(&mut view).await?;
        failpoint("load.snapshot.opened");
        let view = Arc::new(Mutex::new(view));

        let (keyed, keyless): (Vec<_>, Vec<_>) = loader.routes.iter().partition(|route| route.mapping.has_key());
        let mut jobs = Vec::new();
        for route in keyless {
            jobs.extend(loader.plan(facts, route, &view).await?);
        }
        // first and alone: the exact snapshot may not be renewed before they are whole
        let torn = loader.clone().round(std::mem::take(&mut jobs), view.clone()).await?;
        torn.first().map_or(Ok(()), |route| Err(torn_copy(&route.table.name)))?;
        for route in keyed {
            jobs.extend(loader.plan(facts, route, &view).await?);
        }
        loop {
            let stale = loader.clone().round(std::mem::take(&mut jobs), view.clone()).await?;
            if stale.is_empty() {
                break;
            }
            // an older snapshot may see a rewritten table as empty
            loader.renew(&mut *view.lock().await).await?;
            for route in stale {
                jobs.extend(loader.plan_anew(facts, &route, &view).await?);
            }
        }
        if view.lock().await.inexact {
            facts.apply(&[facts::done_entry("inexact")]);
        }
        Ok(())
    }

    /// A table without a key cannot be mended by upserts: it counts only if one exact snapshot showed all of it.
    fn refuse_torn_tables(&self, facts: &Facts) -> Result<()> {
        for route in self.routes.iter().filter(|route| !route.mapping.has_key()) {
            let plan = facts.plan(&route.table.name)?;
            let whole = match &plan {
                Some(plan) => self.missing(facts, &route.table.name, plan)?.is_empty(),
                None => false,
            };
            if !whole {
                return Err(torn_copy(&route.table.name));
            }
        }
        Ok(())
    }

    fn missing(&self, facts: &Facts, table: &TableName, plan: &Plan) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for number in 0..plan.chunks.len() {
            if facts.chunk_rows(table, plan.generation, number)?.is_none() {
                missing.push(number);
            }
        }
        Ok(missing)
    }

    async fn plan(&self, facts: &mut Facts, route: &Route, view: &Mutex<View>) -> Result<Vec<Job>> {
        let plan = match facts.plan(&route.table.name)? {
            Some(plan) => plan,
            None => self.make_plan(facts, route, view, 1).await?,
        };
        let missing = self.missing(facts, &route.table.name, &plan)?;
        Ok(jobs(route, &plan, &missing))
    }

    async fn plan_anew(&self, facts: &mut Facts, route: &Route, view: &Mutex<View>) -> Result<Vec<Job>> {
        let generation = facts.plan(&route.table.name)?.map_or(1, |plan| plan.generation + 1);
        let plan = self.make_plan(facts, route, view, generation).await?;
        let all: Vec<usize> = (0..plan.chunks.len()).collect();
        Ok(jobs(route, &plan, &all))
    }

    /// A chunk over rows of an earlier moment may meet one whose unique value has moved to another key since: then those
    /// rows must go, and the whole table is copied anew from one snapshot.
    fn is_blocked(&self, job: &Job, mode: ChunkMode, error: &Error) -> bool {
        let earlier = self.over_old_rows || (mode == ChunkMode::Upsert && !self.beside_strangers);
        earlier && job.generation < MOST_GENERATIONS && [&codes::KEY_EXISTS, &codes::CONFLICT].into_iter().any(|code| error.is(code))
    }

    async fn make_plan(&self, facts: &mut Facts, route: &Route, view: &Mutex<View>, generation: u64) -> Result<Plan> {
        let snapshot = view.lock().await.snapshot.clone();
        let plan = Plan { generation, chunks: snapshot.plan(&route.table, self.chunk_bytes).await? };
        let entry = facts::plan_entry(&route.table.name, &plan);
        if generation > 1 && (self.over_old_rows || (route.mapping.has_uniques && !self.beside_strangers)) {
            self.target.empty(&self.lease, std::slice::from_ref(&route.mapping.target), false, &entry).await?;
        } else {
            self.target.record(&self.lease, std::slice::from_ref(&entry)).await?;
        }
        facts.apply(&[entry]);
        failpoint("load.plan.recorded");
        let estimated_rows = plan.chunks.iter().map(|chunk| chunk.estimated_rows).sum();
        self.observer.event(Event::TablePlanned { table: route.table.name.clone(), chunks: plan.chunks.len() as u64, estimated_rows });
        Ok(plan)
    }

    /// Copies these chunks with as many workers as connections allow; gives the tables that were rewritten meanwhile.
    async fn round(self: Arc<Self>, mut jobs: Vec<Job>, view: Arc<Mutex<View>>) -> Result<StaleTables> {
        jobs.reverse();
        let mut workers = JoinSet::new();
        let mut stale: StaleTables = Vec::new();
        loop {
            while workers.len() < self.workers {
                let Some(job) = jobs.pop() else { break };
                if stale.iter().any(|route| route.table.name == job.route.table.name) {
                    continue;
                }
                let (loader, view) = (self.clone(), view.clone());
                let copy = async move { loader.copy(&job, &view).await.map(|written| (job.route, written)) };
                workers.spawn(self.tasks.track_future(copy));
            }
            let Some(done) = workers.join_next().await else { return Ok(stale) };
            let (route, written) = done.map_err(|error| Error::internal("a load worker died").caused_by(error))??;
            if written == ChunkWritten::Stale && !stale.iter().any(|there| there.table.name == route.table.name) {
                stale.push(route);
            }
        }
    }

    async fn copy(&self, job: &Job, view: &Mutex<View>) -> Result<ChunkWritten> {
        let (snapshot, fresh) = self.snapshot(view, job.route.mapping.has_key()).await?;
        let mapping = &*job.route.mapping;
        let spec = ReadSpec { mapping, chunk: &job.chunk, native: self.native, block_bytes: BLOCK_BYTES };
        let mut rows = snapshot.read(&spec).await?;
        let new = fresh && job.generation == 1 && !self.over_old_rows;
        let mode = if new || !mapping.has_key() { ChunkMode::Insert } else { ChunkMode::Upsert };
        let done = facts::chunk_entry(&job.route.table.name, job.generation, job.number, job.chunk.estimated_rows);
        failpoint("load.chunk.written");
        let write = ChunkWrite { mapping, mode, done: &done };
        let written = match self.target.write_chunk(&self.lease, &write, rows.as_mut()).await {
            Err(error) if self.is_blocked(job, mode, &error) => ChunkWritten::Stale,
            written => written?,
        };
        failpoint("load.chunk.committed");
        if let ChunkWritten::Written { rows } = written {
            self.observer.event(Event::ChunkLoaded { table: job.route.table.name.clone(), rows });
        }
        Ok(written)
    }

    /// The snapshot to read from and whether it is fresh, renewed when it is too old.
    async fn snapshot(&self, view: &Mutex<View>, may_renew: bool) -> Result<(Arc<dyn Snapshot>, bool)> {
        let mut view = view.lock().await;
        if may_renew && !self.beside_strangers && view.snapshot.taken_at().elapsed() > self.snapshot_age {
            self.renew(&mut view).await?;
        }
        Ok((view.snapshot.clone(), view.fresh))
    }

    async fn renew(&self, view: &mut View) -> Result<()> {
        view.snapshot = Arc::from(self.source.snapshot().await?);
        view.fresh = false;
        self.note_exactness(view).await
    }

    /// Recorded before the first row of an inexact snapshot is written.
    async fn note_exactness(&self, view: &mut View) -> Result<()> {
        if !view.fresh && self.beside_strangers {
            return Err(Error::new(&codes::LOAD_TORN, "a copy beside rows that were there before cannot be continued")
                .at("target.existing: append")
                .remedy("what was copied can no longer be told from what was there: restore the target's tables and begin anew (`clean`, `run`)")
                .effect("what was copied so far stays in the target"));
        }
        if !view.snapshot.is_exact() && !view.inexact {
            self.target.record(&self.lease, &[facts::done_entry("inexact")]).await?;
            view.inexact = true;
        }
        Ok(())
    }
}

/// The open-ended last chunk first: new rows gather there, and the sooner it is read the fewer they are.
fn jobs(route: &Route, plan: &Plan, missing: &[usize]) -> Vec<Job> {
    let job =
        |number: &usize| Job { route: route.clone(), generation: plan.generation, number: *number, chunk: plan.chunks[*number].clone() };
    missing.iter().rev().map(job).collect()
}

fn torn_copy(table: &TableName) -> Error {
    Error::new(&codes::LOAD_TORN, "the copy of a table without a key was interrupted and cannot be continued")
        .at(format!("table {table}"))
        .remedy("start anew with `run --resync`, or give the table a key")
        .effect("what was copied so far stays in the target")
}
