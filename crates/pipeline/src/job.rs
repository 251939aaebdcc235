//! One task, running: attempts in a row until it is stopped, done or needs a person.
//!
//! An attempt takes what is durable (lease, ledger, checkpoint, change log) and goes on from there; nothing else is
//! carried from one attempt to the next, so that going on after a crash and going on after a lost connection are the same.

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use godwit_model::{
    Checkpoint, DdlPolicy, Description, Error, Event, Holder, Lease, Observer, Phase, Position, Result, Sequence, Source, Table, TableName,
    Target, Task, codes, failpoint,
};
use godwit_store::ChangeLog;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::beginning::Beginning;
use crate::capture::Capture;
use crate::coalesce::Reread;
use crate::examine;
use crate::facts::{self, Facts, Start};
use crate::load::{Loader, Route};
use crate::passages::Passages;
use crate::patience::answered;
use crate::replay::{Outcome, Pass, Replay, new_marker};
use crate::reread;
use crate::running::{Running, Status};
use crate::setup::Setup;
use crate::steps::Waiting;
use crate::stillness::Stillness;
use crate::storage::Storage;
use crate::structure;
use crate::tenure::{self, Life};
use crate::torn;
use crate::upkeep::Upkeep;

/// Between attempts after a transient error: doubled from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Everything one task needs.
#[derive(Clone)]
pub struct Job {
    pub task: Arc<Task>,
    pub source: Arc<dyn Source>,
    pub target: Arc<dyn Target>,
    pub storage: Arc<dyn Storage>,
    pub observer: Arc<dyn Observer>,
    pub holder: Holder,
    /// What the check before a first run found at the source, which is then not asked again.
    pub described: Described,
    /// What this machine says of another holder.
    pub life: fn(&Holder) -> Life,
    /// About how much of a table one chunk of the load holds; `CHUNK_BYTES` outside of tests.
    pub chunk_bytes: u64,
}

/// A description that is used once, at the very beginning: later the source may hold something else.
#[derive(Clone, Default)]
pub struct Described(Arc<Mutex<Option<Description>>>);

impl Described {
    pub fn now(description: Description) -> Self {
        Described(Arc::new(Mutex::new(Some(description))))
    }

    pub(crate) fn take(&self) -> Option<Description> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Job {
    pub fn start(self) -> Running {
        self.start_as(Beginning::GoOn)
    }

    /// Goes on, but first looks for rows that differ and copies them anew: a way out of a conflict.
    pub fn mend(self) -> Running {
        self.start_as(Beginning::Mend)
    }

    /// Begins anew over a target that stays as it is and readable, and makes it equal again: a new P0, every row copied
    /// over the one that is there, what is not at the source any more deleted. Tables without a key are emptied first.
    pub fn resync(self) -> Running {
        self.start_as(Beginning::Anew)
    }

    fn start_as(self, beginning: Beginning) -> Running {
        let job = Arc::new(self);
        let (status, receiver) = watch::channel(Status::default());
        let passages = Arc::new(Passages::default());
        let stillness = Arc::new(Stillness::default());
        let stop = CancellationToken::new();
        let again = Arc::new(Notify::new());
        let asked: Arc<Mutex<Vec<Reread>>> = Arc::default();
        let shared = Shared {
            job: job.clone(),
            status,
            passages: passages.clone(),
            stillness: stillness.clone(),
            stop: stop.clone(),
            again: again.clone(),
            asked: asked.clone(),
            told: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        let supervisor = AbortOnDropHandle::new(tokio::spawn(shared.supervise(beginning)));
        Running { job, status: receiver, passages, stillness, stop, again, asked, supervisor: Some(supervisor) }
    }
}

/// The name under which Godwit marks what it writes for a task.
pub(crate) fn origin(task: &Task) -> String {
    format!("godwit_{}", task.name)
}

struct Shared {
    job: Arc<Job>,
    status: watch::Sender<Status>,
    passages: Arc<Passages>,
    stillness: Arc<Stillness>,
    stop: CancellationToken,
    /// The ledger was changed from outside of the attempt: begin another.
    again: Arc<Notify>,
    /// Rows that someone wants read again.
    asked: Arc<Mutex<Vec<Reread>>>,
    /// Tables that came to the source and that people were told of.
    told: Mutex<HashSet<TableName>>,
    /// Everything an attempt spawned. The next one begins when all of it is gone: it holds the log and the spool.
    tasks: TaskTracker,
}

impl Shared {
    async fn supervise(self, beginning: Beginning) -> Result<()> {
        let mut lease = None;
        let result = tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(()),
            result = self.attempts(&mut lease, beginning) => result,
        };
        self.quiet().await;
        if let Some(lease) = &lease
            && let Err(error) = self.job.target.release(lease).await
        {
            tracing::info!(%error, "the lease was not given back; the next process finds this one gone");
        }
        result
    }

    async fn attempts(&self, lease: &mut Option<Lease>, mut beginning: Beginning) -> Result<()> {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            self.quiet().await;
            self.status.send_modify(|status| {
                status.attempt += 1;
                status.consistent = false;
            });
            let error = tokio::select! {
                done = self.attempt(lease, &mut beginning) => match done {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                () = self.again.notified() => continue,
            };
            let error = self.given_way(lease.as_ref(), error).await;
            // before the task ever held its lease, nothing is under way that would be worth waiting for
            let final_word = !error.is_transient() || error.is(&codes::HELD) || error.is(&codes::LEASE_LOST) || lease.is_none();
            if final_word {
                return Err(error);
            }
            if began.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            tracing::warn!(%error, "trying again");
            self.job.observer.event(Event::Retrying { what: error.to_string(), wait });
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Where the target refused something that the source holds, its structure may be older than the source's: then it is
    /// altered, and the attempt is made again.
    async fn given_way(&self, lease: Option<&Lease>, error: Error) -> Error {
        let Some(lease) = lease.filter(|_| structure::may_give_way(&error)) else { return error };
        self.quiet().await;
        match self.give_way(lease, &error).await {
            Ok(true) => Error::new(&codes::RETRYABLE, "the target did not take what the source holds, and was altered").caused_by(error),
            Err(problem) if problem.is_transient() => problem,
            Err(problem) => {
                tracing::info!(error = %problem, "structures were not compared");
                error
            }
            Ok(false) => error,
        }
    }

    async fn give_way(&self, lease: &Lease, error: &Error) -> Result<bool> {
        let setup = self.job.setup(lease);
        let mut facts = Facts::from_entries(self.job.target.ledger(&self.job.task.name).await?);
        if error.is(&codes::DDL_STOPPED) {
            return setup.bring_new(&mut facts).await;
        }
        setup.give_way(&facts, &self.job.routes_of(&facts)?, error).await
    }

    /// Waits until nothing is left of the last attempt.
    async fn quiet(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    async fn attempt(&self, lease: &mut Option<Lease>, beginning: &mut Beginning) -> Result<()> {
        let Job { task, target, holder, life, .. } = &*self.job;
        answered(target.install()).await?;
        let (taken, record) = match lease {
            None => tenure::take(&**target, &task.name, holder, life).await?,
            Some(lease) => tenure::resume(&**target, lease, holder).await?,
        };
        let checkpoint = record.checkpoint;
        self.status.send_modify(|status| status.lease = Some(taken.clone()));
        *lease = Some(taken);
        let lease = lease.as_ref().expect("taken or resumed just now");
        self.job.begin_as(*beginning, lease).await?;
        *beginning = Beginning::GoOn;
        self.job.note_asked(lease, &self.asked).await?;
        tokio::select! {
            biased;
            lost = tenure::keep(&**target, lease) => Err(lost),
            done = self.begin_again_and_work(lease, checkpoint) => done,
        }
    }

    async fn begin_again_and_work(&self, lease: &Lease, checkpoint: Option<Checkpoint>) -> Result<()> {
        self.job.begin_again_if_torn(lease).await?;
        self.work(lease, checkpoint).await
    }

    async fn work(&self, lease: &Lease, checkpoint: Option<Checkpoint>) -> Result<()> {
        let Job { task, source, target, observer, .. } = &*self.job;
        let mut facts = Facts::from_entries(target.ledger(&task.name).await?);
        if facts.is_done("finished") {
            return Err(Error::new(&codes::FINISHED, format!("task `{}` is finished", task.name))
                .remedy("run `godwit finish` again to remove what is left of it"));
        }
        crate::setup::refuse_unbuilt(task, &source.capabilities(), &target.capabilities())?;
        let setup = self.job.setup(lease);
        self.refuse_lost_ledger(&facts).await?;
        self.phase(Phase::Schema);
        let routes = setup.run(&mut facts).await?;
        if !task.phases.changes {
            return self.load_only(&setup, &mut facts, &routes).await;
        }
        let tables: Vec<Arc<Table>> = routes.iter().map(|route| route.table.clone()).collect();
        let begun = self.begin(&setup, &mut facts, &tables, checkpoint.as_ref()).await?;
        let capture = Capture {
            source: source.clone(),
            tables,
            log: begun.log.clone(),
            spool: self.job.storage.spool().await?,
            start: begun.from,
            memory: task.limits.memory.0,
            observer: observer.clone(),
        };
        let releasing = AtomicBool::new(false);
        let upkeep = Upkeep {
            task,
            source: &**source,
            target: &**target,
            lease,
            log: begun.log.clone(),
            observer,
            known: routes.iter().map(|route| route.table.name.clone()).collect(),
            told: &self.told,
            releasing: &releasing,
        };
        let flow = async {
            self.load(&setup, &mut facts, &begun.log, begun.snapshot).await?;
            self.follow(&setup, &mut facts, begun.log, checkpoint).await
        };
        let flow = async {
            tokio::select! {
                done = flow => done,
                ended = upkeep.run() => ended,
            }
        };
        beside(&self.tasks, capture.run(), flow, &releasing).await
    }

    /// A log with records says that the task had begun; then the target must know of it. Else it is another store, an
    /// older state of it, or the task was finished or cleaned: nothing that may be begun anew by itself.
    async fn refuse_lost_ledger(&self, facts: &Facts) -> Result<()> {
        // where it begins again, a log of before may have come back
        let knows = facts.start()?.is_some() || facts.is_done("again") || facts.is_done("resync");
        if knows || !self.job.task.phases.changes {
            return Ok(());
        }
        if self.job.storage.log().await?.durable().sequence > Sequence(0) {
            return Err(Error::new(&codes::TARGET_CHANGED, "the state folder holds changes of this task, but the target knows nothing of it")
                .at(self.job.task.target.display())
                .remedy("if the task was finished or cleaned, remove the state folder; if the target was restored from a backup, start anew with `run --resync`")
                .effect("nothing was changed"));
        }
        Ok(())
    }

    /// Makes P0, or goes on from where the log ends.
    async fn begin(&self, setup: &Setup<'_>, facts: &mut Facts, tables: &[Arc<Table>], checkpoint: Option<&Checkpoint>) -> Result<Begun> {
        let storage = &self.job.storage;
        let Some(start) = facts.start()? else {
            storage.wipe().await?;
            let log = storage.log().await?;
            failpoint("establish.slot.before");
            // a target that is made equal again begins where its source is now
            let from = setup.task.from.as_ref().filter(|_| !facts.is_done("resync"));
            let established = setup.source.establish(tables, from).await.map_err(|error| match from {
                Some(_) => error.at_least_at(|| "from".to_owned()),
                None => error,
            })?;
            failpoint("establish.slot.after");
            let start = Start { position: established.position, log: log.id() };
            setup.record(facts, vec![facts::start_entry(&start)]).await?;
            return Ok(Begun { log, from: start.position, snapshot: established.snapshot });
        };
        let log = storage.log().await?;
        // a checkpoint made with another log than the task's present one says nothing of it
        let checkpoint = checkpoint.filter(|checkpoint| checkpoint.log == start.log);
        let from = checkpoint.map_or(start.position, |checkpoint| checkpoint.position.clone());
        if log.id() != start.log {
            adopt(setup, facts, &*log, &from).await?;
        }
        let known = log.last_position().unwrap_or_else(|| from.clone());
        setup.source.establish(tables, Some(&known)).await?;
        Ok(Begun { log, from, snapshot: None })
    }

    async fn load(
        &self,
        setup: &Setup<'_>,
        facts: &mut Facts,
        log: &Arc<dyn ChangeLog>,
        mut exact: Option<Box<dyn godwit_model::Snapshot>>,
    ) -> Result<()> {
        if facts.is_done("loaded") {
            return Ok(());
        }
        let mut entries = vec![facts::done_entry("loaded"), facts::marker_entry(&new_marker(&origin(setup.task)))];
        if setup.task.phases.load {
            self.phase(Phase::Load);
            torn::empty_all(setup, facts, &self.job.routes_of(facts)?).await?;
            loop {
                if exact.is_none() {
                    torn::refuse(setup.task.existing, facts, &self.job.routes_of(facts)?)?;
                    // before a column of a key gets another name
                    setup.make_keys(facts).await?;
                }
                // what was altered and changed before P0 is in no log: the copy must hold it
                let replay = self.replay(setup.lease, self.job.routes_of(facts)?, log.clone());
                if replay.follow_in_load(facts).await? {
                    // P0's snapshot may not have the columns
                    exact = None;
                }
                let routes = self.job.routes_of(facts)?;
                if setup.task.schema.changes == DdlPolicy::Ignore {
                    setup.refuse_altered(facts, &routes).await?;
                }
                match self.loader(setup, &routes, facts).await?.run(facts, exact.take()).await {
                    Ok(indexed) => {
                        if indexed {
                            entries.push(facts::done_entry("indexed"));
                        }
                        break;
                    }
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => {
                        *facts = Facts::from_entries(setup.target.ledger(&setup.task.name).await?);
                        setup.make_keys(facts).await?;
                        let replay = self.replay(setup.lease, routes, log.clone());
                        if !replay.follow_in_load(facts).await? {
                            return Err(error);
                        }
                    }
                }
                // chunks that other workers have written are marked in the ledger alone
                *facts = Facts::from_entries(setup.target.ledger(&setup.task.name).await?);
            }
        }
        setup.record(facts, entries).await?;
        failpoint("load.done.recorded");
        Ok(())
    }

    async fn load_only(&self, setup: &Setup<'_>, facts: &mut Facts, routes: &[Route]) -> Result<()> {
        if setup.task.phases.load && !facts.is_done("loaded") {
            self.phase(Phase::Load);
            torn::empty_all(setup, facts, routes).await?;
            // nothing is replayed over this copy: any one snapshot will do, as long as it is one
            let exact = match facts.has_plans() {
                true => None,
                false => Some(setup.source.snapshot().await?),
            };
            setup.refuse_altered(facts, routes).await?;
            self.loader(setup, routes, facts).await?.run(facts, exact).await?;
            setup.record(facts, vec![facts::done_entry("loaded")]).await?;
        }
        setup.after_load(facts).await?;
        setup.at_finish(facts).await?;
        self.status.send_modify(|status| status.loaded = true);
        Ok(())
    }

    /// From the end of the load to the end of the task.
    async fn follow(
        &self,
        setup: &Setup<'_>,
        facts: &mut Facts,
        log: Arc<dyn ChangeLog>,
        mut checkpoint: Option<Checkpoint>,
    ) -> Result<()> {
        let mut replay = self.replay(setup.lease, self.job.routes_of(facts)?, log);
        loop {
            self.status.send_modify(|status| status.consistent = false);
            self.phase(Phase::CatchUp);
            self.reach_p1(setup, facts, &mut replay, &mut checkpoint).await?;
            self.stream(setup, facts, &replay, &mut checkpoint).await?;
        }
    }

    /// To a moment at which every table is past its P1, nothing is left to compare, and the catalog agrees with the stream.
    async fn reach_p1(&self, setup: &Setup<'_>, facts: &mut Facts, replay: &mut Replay, checkpoint: &mut Option<Checkpoint>) -> Result<()> {
        let mut compared = false;
        // P1 may be passed and what follows it not be done: an attempt can end in between
        loop {
            replay.routes = self.job.routes_of(facts)?;
            if facts.is_done("passed") && facts.reread().is_some() {
                // listed on the way to a place behind P1 while tables were still to be swept: P1 moves behind them
                setup.record(facts, vec![facts::marker_entry(&new_marker(&origin(setup.task))), facts::removal("passed")]).await?;
            }
            if !facts.is_done("passed") {
                let marker = facts.marker()?.ok_or_else(|| Error::internal("a loaded task has no marker for P1"))?;
                // written again after every restart: the first one may have been lost, a second does no harm
                answered(setup.source.mark(&marker)).await?;
                failpoint("p1.marked");
                let pass = Pass { convergent: facts.is_done("inexact"), until: Some(marker), closes: true };
                if replay.run(facts, checkpoint, pass).await? == Outcome::CatalogAhead {
                    replay.follow_catalog(facts, checkpoint).await?;
                }
            } else if facts.has_sweeps() || !compared {
                // what is said while tables are still to be swept is no last word
                compared = !facts.has_sweeps();
                if !replay.follow_catalog(facts, checkpoint).await? && facts.has_sweeps() {
                    self.sweep(setup, facts, replay).await?;
                }
            } else {
                return Ok(());
            }
        }
    }

    /// For as long as no table is altered.
    async fn stream(&self, setup: &Setup<'_>, facts: &mut Facts, replay: &Replay, checkpoint: &mut Option<Checkpoint>) -> Result<()> {
        self.sequences(setup).await?;
        if !facts.is_done("indexed") {
            setup.after_load(facts).await?;
            setup.record(facts, vec![facts::done_entry("indexed")]).await?;
        }
        if facts.objects()?.is_none() {
            let objects = setup.objects(facts, &replay.routes).await?;
            setup.record(facts, vec![objects]).await?;
        }
        self.phase(Phase::Streaming);
        self.status.send_modify(|status| status.consistent = true);
        setup.observer.event(Event::Consistent);
        replay.run(facts, checkpoint, Pass { convergent: false, until: None, closes: false }).await.map(drop)
    }

    /// After a load over old rows: what still looks different, rows gone from the source above all, is read again.
    async fn sweep(&self, setup: &Setup<'_>, facts: &mut Facts, replay: &Replay) -> Result<()> {
        let routes: Vec<Route> = replay.routes.iter().filter(|route| facts.is_to_be_swept(&route.table.name)).cloned().collect();
        let names: Vec<TableName> = routes.iter().map(|route| route.table.name.clone()).collect();
        let suspects = match examine::suspects(setup.source, setup.target, &routes).await {
            // altered again: the next look at the catalog tells
            Err(error) if !error.is_transient() && !replay.agrees(facts, &names).await? => return Ok(()),
            suspects => suspects?,
        };
        let mut entries = Vec::new();
        if suspects.complete {
            entries.extend(facts.all_swept());
        }
        if let Some(list) = reread::more(facts, &replay.routes, suspects.keys)? {
            entries.extend([list, facts::marker_entry(&new_marker(&origin(setup.task))), facts::removal("passed")]);
        }
        setup.record(facts, entries).await
    }

    async fn sequences(&self, setup: &Setup<'_>) -> Result<()> {
        let values = setup.source.sequences(setup.task).await?;
        setup.target.set_sequences(setup.lease, &values).await
    }

    async fn loader(&self, setup: &Setup<'_>, routes: &[Route], facts: &Facts) -> Result<Loader> {
        let Job { task, source, target, observer, .. } = &*self.job;
        let other_types = setup.other_types(routes).await?;
        let mut routes = routes.to_vec();
        routes.sort_by_key(|route| std::cmp::Reverse(route.table.estimated_bytes));
        Ok(Loader {
            source: source.clone(),
            target: target.clone(),
            lease: setup.lease.clone(),
            routes,
            readers: task.limits.source_connections.min(task.limits.target_connections).max(1),
            writers: task.limits.target_connections.max(1),
            waiting: Waiting::of(facts)?,
            chunk_bytes: self.job.chunk_bytes,
            snapshot_age: task.limits.snapshot_age,
            over_old_rows: facts.is_done("resync"),
            beside_strangers: facts.is_beside_strangers()?,
            existing: task.existing,
            alone: !task.phases.changes,
            tasks: self.tasks.clone(),
            native: source.capabilities().dialect == target.capabilities().dialect,
            other_types,
            observer: observer.clone(),
        })
    }

    fn replay(&self, lease: &Lease, routes: Vec<Route>, log: Arc<dyn ChangeLog>) -> Replay {
        let Job { task, source, target, observer, .. } = &*self.job;
        Replay {
            source: source.clone(),
            target: target.clone(),
            log,
            lease: lease.clone(),
            routes,
            policy: task.schema.changes,
            rules: task.map.clone(),
            memory: task.limits.memory.0,
            observer: observer.clone(),
            passages: self.passages.clone(),
            stillness: self.stillness.clone(),
            tasks: self.tasks.clone(),
            origin: origin(task),
        }
    }

    fn phase(&self, phase: Phase) {
        self.status.send_modify(|status| status.phase = Some(phase));
        self.job.observer.event(Event::Phase(phase));
    }
}

struct Begun {
    log: Arc<dyn ChangeLog>,
    /// Where capture begins if the log is empty.
    from: Position,
    snapshot: Option<Box<dyn godwit_model::Snapshot>>,
}

/// An empty change log takes the place of one that was lost: the source says whether it still keeps what is needed.
async fn adopt(setup: &Setup<'_>, facts: &mut Facts, log: &dyn ChangeLog, from: &Position) -> Result<()> {
    if log.durable().sequence > Sequence(0) {
        return Err(Error::new(&codes::STATE_OTHER, "the change log in the state folder is not the one this task went on with")
            .remedy("name the right state folder with --state, or remove this one to go on from the target's checkpoint")
            .effect("nothing was changed"));
    }
    tracing::warn!("the change log is not here, going on from the target's checkpoint");
    setup.record(facts, vec![facts::start_entry(&Start { position: from.clone(), log: log.id() })]).await
}

/// Runs the capture as a task of its own, for as long as the flow runs; the first to fail ends both.
async fn beside(
    tracker: &TaskTracker,
    capture: impl Future<Output = Result<()>> + Send + 'static,
    flow: impl Future<Output = Result<()>>,
    releasing: &AtomicBool,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(tracker.track_future(capture));
    let mut flow = std::pin::pin!(flow);
    let captured = tokio::select! {
        done = &mut flow => return done,
        Some(captured) = tasks.join_next() => captured,
    };
    // the reason is known there
    if releasing.load(Ordering::SeqCst) {
        return flow.await;
    }
    match captured {
        Ok(Ok(())) => Err(Error::internal("capture ended by itself")),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(Error::internal("capture died").caused_by(error)),
    }
}
