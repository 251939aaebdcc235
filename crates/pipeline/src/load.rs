//! The full load: tables cut into chunks, chunks copied side by side, each recorded in the transaction that wrote it.
//!
//! While every chunk comes from the one snapshot that shows the source exactly at P0, chunks are plain inserts into tables
//! without keys, a table's key and indexes are made when its last chunk is written, and replay may be strict from P0 on. As
//! soon as another snapshot is needed (age, a crash, a lost connection) all keys are made and the fact `inexact` is
//! recorded, in this order; from then on chunks are upserts and replay is convergent up to P1 (decision 0010).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use godwit_model::{
    Chunk, ChunkMode, ChunkWrite, ChunkWritten, Error, Event, Existing, Lease, Observer, ReadSpec, Result, SchemaItem, Snapshot, Source,
    Table, TableMapping, TableName, Target, codes, failpoint,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::facts::{self, Facts, Plan};
use crate::steps::{Builder, Waiting};
use crate::torn;

/// A chunk is small enough to be copied again after a crash and large enough that its commit costs nothing beside it.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// Tables below this size travel together, so that what each table costs by itself is paid once for many.
const SMALL_TABLE: u64 = 1 << 20;
/// Small tables that travel together: few enough that all workers have something to do, and that their keys and indexes
/// fit into one transaction.
const SMALL_TOGETHER: usize = 20;
/// Plans in one entry of the ledger's transaction.
const PLANS_AT_ONCE: usize = 100;
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
    /// Largest first.
    pub routes: Vec<Route>,
    /// Chunks under way at once.
    pub readers: usize,
    /// Chunks and steps under way at once.
    pub writers: usize,
    pub waiting: Waiting,
    /// About how much of a table one chunk holds.
    pub chunk_bytes: u64,
    pub snapshot_age: Duration,
    /// Whether native blocks may pass unread; tables of `other_types` travel as rows all the same.
    pub native: bool,
    /// Target tables with columns of other types than the source's: a person's own.
    pub other_types: HashSet<TableName>,
    /// Rows may be there already, from before.
    pub over_old_rows: bool,
    /// Rows that are not the source's are there and stay: only inserts leave them alone.
    pub beside_strangers: bool,
    pub existing: Existing,
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

#[derive(Clone)]
struct Job {
    route: Route,
    generation: u64,
    number: usize,
    chunk: Chunk,
}

/// What one connection to the target does at a time.
enum Work {
    /// One chunk, or the only chunks of some small tables.
    Copy(Vec<Job>),
    /// Keys of tables that are whole; of small ones their indexes too.
    Keys(Vec<TableName>),
    Index(SchemaItem),
}

enum Done {
    Copied {
        jobs: Vec<Job>,
        stale: StaleTables,
    },
    /// What can be done next.
    Built(Vec<Work>),
}

/// What one round left to do.
type StaleTables = Vec<Route>;

impl Loader {
    /// Copies what is not copied yet. `exact` is the snapshot of a P0 made just now. On success every chunk of every
    /// table is durable in the target, and all tables have their keys. True: they have everything that waited for rows.
    pub async fn run(self, facts: &mut Facts, exact: Option<Box<dyn Snapshot>>) -> Result<bool> {
        let loader = Arc::new(self);
        // rows that all came from an exact snapshot stay exact, whatever happened since the last of them was written
        let whole = exact.is_none() && !facts.is_done("inexact") && !loader.over_old_rows && loader.is_whole(facts)?;
        let plain = whole || loader.copy_all(facts, exact).await?;
        if plain {
            loader.waiting.make_rest(loader.builder(), loader.writers).await?;
        }
        facts.apply(&loader.waiting.made());
        failpoint("load.indexed");
        Ok(plain)
    }

    fn is_whole(&self, facts: &Facts) -> Result<bool> {
        for route in &self.routes {
            if !facts.is_copied(&route.table.name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn builder(&self) -> Builder<'_> {
        Builder { target: &*self.target, lease: &self.lease, observer: &self.observer }
    }

    /// Whether all of it was plain inserts.
    async fn copy_all(self: &Arc<Self>, facts: &mut Facts, exact: Option<Box<dyn Snapshot>>) -> Result<bool> {
        let loader = self;
        let given = exact.is_some();
        let snapshot = match exact {
            Some(snapshot) => snapshot,
            None => {
                torn::refuse(loader.existing, facts, &loader.routes)?;
                loader.source.snapshot().await?
            }
        };
        let fresh = given && (snapshot.is_exact() || loader.alone);
        let mut view = View { snapshot: Arc::from(snapshot), fresh, inexact: facts.is_done("inexact") };
        loader.note_exactness(&mut view).await?;
        failpoint("load.snapshot.opened");
        let view = Arc::new(Mutex::new(view));

        let (keyed, keyless): (Vec<Route>, Vec<Route>) = loader.routes.iter().cloned().partition(|route| route.mapping.has_key());
        let jobs = loader.plan(facts, &keyless, &view).await?;
        // first and alone: the exact snapshot may not be renewed before they are whole
        let torn = loader.clone().round(jobs, view.clone()).await?;
        torn.first().map_or(Ok(()), |route| Err(torn::rewritten(&route.table.name)))?;
        let mut jobs = loader.plan(facts, &keyed, &view).await?;
        loop {
            let stale = loader.clone().round(std::mem::take(&mut jobs), view.clone()).await?;
            if stale.is_empty() {
                break;
            }
            // an older snapshot may see a rewritten table as empty
            loader.renew(&mut *view.lock().await).await?;
            jobs = loader.plan_anew(facts, &stale, &view).await?;
        }
        let view = view.lock().await;
        if view.inexact {
            facts.apply(&[facts::done_entry("inexact")]);
        }
        Ok(loader.is_plain(&view))
    }

    /// Whether rows can only be new.
    fn is_plain(&self, view: &View) -> bool {
        view.fresh && !self.over_old_rows
    }

    async fn plan(&self, facts: &mut Facts, routes: &[Route], view: &Mutex<View>) -> Result<Vec<Job>> {
        let mut unplanned = Vec::new();
        for route in routes {
            if facts.plan(&route.table.name)?.is_none() {
                unplanned.push((route.clone(), 1));
            }
        }
        self.make_plans(facts, &unplanned, view).await?;
        self.jobs(facts, routes)
    }

    async fn plan_anew(&self, facts: &mut Facts, routes: &[Route], view: &Mutex<View>) -> Result<Vec<Job>> {
        let mut next = Vec::new();
        for route in routes {
            next.push((route.clone(), facts.plan(&route.table.name)?.map_or(1, |plan| plan.generation + 1)));
        }
        self.make_plans(facts, &next, view).await?;
        self.jobs(facts, routes)
    }

    /// Chunks of these tables that are not copied yet. The open-ended last chunk of each first: new rows gather there, and
    /// the sooner it is read the fewer they are.
    fn jobs(&self, facts: &Facts, routes: &[Route]) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for route in routes {
            let Some(plan) = facts.plan(&route.table.name)? else { continue };
            let job = |number: usize| Job { route: route.clone(), generation: plan.generation, number, chunk: plan.chunks[number].clone() };
            jobs.extend(facts.missing(&route.table.name, &plan)?.into_iter().rev().map(job));
        }
        Ok(jobs)
    }

    /// A chunk over rows of an earlier moment may meet one whose unique value has moved to another key since: then those
    /// rows must go, and the whole table is copied anew from one snapshot.
    fn is_blocked(&self, job: &Job, mode: ChunkMode, error: &Error) -> bool {
        let earlier = self.over_old_rows || (mode == ChunkMode::Upsert && !self.beside_strangers);
        // a table without a key was emptied: its copy would meet the same again
        let may_pass = job.route.mapping.has_key() && job.generation < MOST_GENERATIONS;
        earlier && may_pass && [&codes::KEY_EXISTS, &codes::CONFLICT].into_iter().any(|code| error.is(code))
    }

    /// Cuts tables, each with the number of its plan.
    async fn make_plans(&self, facts: &mut Facts, tables: &[(Route, u64)], view: &Mutex<View>) -> Result<()> {
        let snapshot = view.lock().await.snapshot.clone();
        for some in tables.chunks(PLANS_AT_ONCE) {
            let mut entries = Vec::with_capacity(some.len());
            for (route, generation) in some {
                let plan = Plan { generation: *generation, chunks: snapshot.plan(&route.table, self.chunk_bytes).await? };
                let entry = facts::plan_entry(&route.table.name, &plan);
                if *generation > 1 && (self.over_old_rows || (route.mapping.has_uniques && !self.beside_strangers)) {
                    // what the marks of the last plan speak of goes with the plan
                    self.target
                        .empty(&self.lease, std::slice::from_ref(&route.mapping.target), false, std::slice::from_ref(&entry))
                        .await?;
                    facts.apply(&[entry]);
                } else {
                    entries.push(entry);
                }
                let estimated_rows = plan.chunks.iter().map(|chunk| chunk.estimated_rows).sum();
                let chunks = plan.chunks.len() as u64;
                self.observer.event(Event::TablePlanned { table: route.table.name.clone(), chunks, estimated_rows });
            }
            self.target.record(&self.lease, &entries).await?;
            facts.apply(&entries);
            failpoint("load.plan.recorded");
        }
        Ok(())
    }

    /// Copies these chunks, and makes keys and indexes of tables that become whole by them, with as many workers as
    /// connections allow; gives the tables that were rewritten meanwhile.
    async fn round(self: Arc<Self>, jobs: Vec<Job>, view: Arc<Mutex<View>>) -> Result<StaleTables> {
        let mut left: HashMap<TableName, usize> = HashMap::new();
        for job in &jobs {
            *left.entry(job.route.table.name.clone()).or_default() += 1;
        }
        let mut copies = bundled(jobs, &left);
        let mut builds: VecDeque<Work> = VecDeque::new();
        let mut workers = JoinSet::new();
        let (mut copying, mut stale): (usize, HashMap<TableName, Route>) = Default::default();
        loop {
            while workers.len() < self.writers {
                // what is in memory still is built first
                let work = match builds.pop_front() {
                    Some(build) => build,
                    None if copying < self.readers => match copies.pop_front() {
                        Some(jobs) if jobs.iter().any(|job| stale.contains_key(&job.route.table.name)) => continue,
                        Some(jobs) => Work::Copy(jobs),
                        None => break,
                    },
                    None => break,
                };
                copying += usize::from(matches!(work, Work::Copy(_)));
                let (loader, view) = (self.clone(), view.clone());
                workers.spawn(self.tasks.track_future(async move { loader.work(work, &view).await }));
            }
            let Some(done) = workers.join_next().await else { return Ok(largest_first(stale)) };
            match done.map_err(|error| Error::internal("a load worker died").caused_by(error))?? {
                Done::Built(next) => builds.extend(next),
                Done::Copied { jobs, stale: more } => {
                    copying -= 1;
                    stale.extend(more.into_iter().map(|route| (route.table.name.clone(), route)));
                    builds.extend(whole_now(&jobs, &mut left, &stale));
                }
            }
        }
    }

    async fn work(&self, work: Work, view: &Mutex<View>) -> Result<Done> {
        match work {
            Work::Copy(jobs) => {
                let mut stale = Vec::new();
                for job in &jobs {
                    if self.copy(job, view).await? == ChunkWritten::Stale {
                        stale.push(job.route.clone());
                    }
                }
                Ok(Done::Copied { jobs, stale })
            }
            Work::Keys(tables) => self.keys(&tables, view).await.map(Done::Built),
            Work::Index(item) => {
                // once rows may be there already, what is not made yet waits for P1
                if self.is_plain(&*view.lock().await) {
                    self.waiting.make(self.builder(), &[&item]).await?;
                }
                Ok(Done::Built(Vec::new()))
            }
        }
    }

    /// Makes the keys of tables that are whole; gives the indexes that can be made now, side by side.
    async fn keys(&self, tables: &[TableName], view: &Mutex<View>) -> Result<Vec<Work>> {
        failpoint("load.table.whole");
        if !self.is_plain(&*view.lock().await) {
            return Ok(Vec::new());
        }
        self.waiting.make_keys(self.builder(), tables).await?;
        let indexes = self.waiting.take_indexes(tables);
        if tables.len() == 1 {
            return Ok(indexes.into_iter().map(Work::Index).collect());
        }
        self.waiting.make(self.builder(), &indexes.iter().collect::<Vec<_>>()).await?;
        Ok(Vec::new())
    }

    async fn copy(&self, job: &Job, view: &Mutex<View>) -> Result<ChunkWritten> {
        let (snapshot, plain) = self.snapshot(view, job.route.mapping.has_key()).await?;
        let mapping = &*job.route.mapping;
        let native = self.native && !self.other_types.contains(&mapping.target);
        let spec = ReadSpec { mapping, chunk: &job.chunk, native, block_bytes: BLOCK_BYTES };
        let mut rows = snapshot.read(&spec).await?;
        let new = plain && job.generation == 1;
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

    /// The snapshot to read from, renewed when it is too old, and whether its rows can only be new.
    async fn snapshot(&self, view: &Mutex<View>, may_renew: bool) -> Result<(Arc<dyn Snapshot>, bool)> {
        let mut view = view.lock().await;
        if may_renew && !self.beside_strangers && view.snapshot.taken_at().elapsed() > self.snapshot_age {
            self.renew(&mut view).await?;
        }
        Ok((view.snapshot.clone(), self.is_plain(&view)))
    }

    async fn renew(&self, view: &mut View) -> Result<()> {
        view.snapshot = Arc::from(self.source.snapshot().await?);
        view.fresh = false;
        self.note_exactness(view).await
    }

    /// Before the first row that may be there already is written all keys are made; before the first row of an inexact
    /// snapshot that is recorded.
    async fn note_exactness(&self, view: &mut View) -> Result<()> {
        if !view.fresh && self.beside_strangers {
            return Err(torn::beside_others());
        }
        if !self.is_plain(view) {
            self.waiting.make_all_keys(self.builder(), self.writers).await?;
        }
        if !view.snapshot.is_exact() && !view.inexact {
            self.target.record(&self.lease, &[facts::done_entry("inexact")]).await?;
            view.inexact = true;
        }
        Ok(())
    }
}

fn largest_first(tables: HashMap<TableName, Route>) -> Vec<Route> {
    let mut routes: Vec<Route> = tables.into_values().collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.table.estimated_bytes));
    routes
}

/// Chunks of large tables by themselves and in their order, then small tables some at a time.
fn bundled(jobs: Vec<Job>, chunks: &HashMap<TableName, usize>) -> VecDeque<Vec<Job>> {
    let is_small = |job: &Job| job.route.table.estimated_bytes < SMALL_TABLE && chunks[&job.route.table.name] == 1;
    let (small, large): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_small);
    let mut bundles: VecDeque<Vec<Job>> = large.into_iter().map(|job| vec![job]).collect();
    bundles.extend(small.chunks(SMALL_TOGETHER).map(<[Job]>::to_vec));
    bundles
}

/// The tables that have become whole by these chunks.
fn whole_now(jobs: &[Job], left: &mut HashMap<TableName, usize>, stale: &HashMap<TableName, Route>) -> Option<Work> {
    let mut whole = Vec::new();
    for job in jobs {
        let Some(count) = left.get_mut(&job.route.table.name) else { continue };
        *count -= 1;
        if *count == 0 && !stale.contains_key(&job.route.table.name) {
            whole.push(job.route.mapping.target.clone());
        }
    }
    (!whole.is_empty()).then_some(Work::Keys(whole))
}
