//! Random histories with faults: whatever happens, the target ends equal, and from `consistent` on it never shows a torn
//! state. A failing seed is printed; `GODWIT_SEED=n` runs it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use godwit_model::{ByteCount, Error, Event, Existing, codes};
use godwit_pipeline::{Running, Until};
use godwit_testkit::faults::FaultPlan;
use godwit_testkit::memory::{LostCommit, SourceOptions};

use crate::world::{Users, World, accounts, badges, events, purses, total};

/// Of each of two faults, per call.
const CHANCE: f64 = 0.01;

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("GODWIT_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("GODWIT_TEST_LONG").is_some() => 0..100_000,
        None => 0..10_000,
    }
}

#[test]
fn random_histories_with_faults_end_equal_and_never_torn() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mine = seeds.clone().filter(move |seed| seed % threads == thread);
            scope.spawn(move || mine.for_each(run));
        }
    });
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    // by the runtime's own clock, which runs ahead whenever all wait
    let bounded = async { tokio::time::timeout(Duration::from_secs(3600), history(seed)).await.expect("the task makes progress") };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(bounded)));
    if let Err(panic) = result {
        eprintln!("GODWIT_SEED={seed} fails");
        std::panic::resume_unwind(panic);
    }
}

async fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(seed);
    let keyless = random.u8(0..4) == 0;
    world.options = SourceOptions {
        // a table without a key cannot do without
        exact_snapshot: keyless || random.bool(),
        stream_after: random.bool().then_some(2),
        batch_changes: random.usize(1..5),
        idle: true,
        // renewed between the chunks of one table
        chunks_per_snapshot: random.bool().then(|| random.usize(1..6)),
        writes: random.u8(0..3) > 0,
    };
    // from a chunk for each row or two to one for the table
    world.chunk_bytes = [50, 200, 400, u64::MAX][random.usize(0..4)];
    world.task.limits.source_connections = random.usize(1..5);
    if random.bool() {
        // every other transaction is handed over in parts
        world.task.limits.memory = ByteCount(5_000);
    }
    if random.bool() {
        // any call may fail, before it did anything or after it did everything
        world.faults = Arc::new(FaultPlan::new(seed).reject(CHANCE).lose_answers(CHANCE));
    }
    world.first.create_table(accounts());
    world.first.create_table(purses());
    if keyless {
        world.first.create_table(events());
    }
    let altering = !keyless && random.bool();
    let mut users = Users::new(seed ^ 0x5eed, keyless);
    users.badges = random.bool();
    if users.badges {
        world.first.create_table(badges());
    }
    if random.u8(0..3) == 0 {
        // the owner's tables stay, with their unique constraints from the first row on
        world.task.existing = Existing::Truncate;
        [purses(), badges()][..1 + usize::from(users.badges)].iter().for_each(|spec| world.second.create_table(spec.clone()));
    }
    users.settle_in(&world.first);
    let money = total(&world.first.view());
    let consistent = Arc::new(AtomicBool::new(false));
    let watched = consistent.clone();
    world.second.on_commit(move |view| match total(view) {
        seen if seen != money && watched.load(Ordering::SeqCst) => Err(format!("{seen} instead of {money}")),
        _ => Ok(()),
    });

    world.recorder.on_event({
        let consistent = consistent.clone();
        move |event| match event {
            Event::Consistent => consistent.store(true, Ordering::SeqCst),
            Event::Reopened { .. } => consistent.store(false, Ordering::SeqCst),
            _ => {}
        }
    });
    let mut running = world.start();
    for _ in 0..random.usize(5..40) {
        users.step(&world.first);
        if altering && random.u8(0..4) == 0 {
            users.alter(&world.first);
        }
        for _ in 0..random.usize(0..60) {
            tokio::task::yield_now().await;
        }
        if running.is_over() {
            let ended = running.stop().await;
            if altering && ended.as_ref().is_err_and(|error| stops_by_design(&world, error)) {
                return;
            }
            assert!(ended.as_ref().is_err_and(Error::is_transient), "{ended:?}");
            running = world.start();
        }
        if random.u8(0..4) == 0 {
            running = fault(&mut random, &world, running).await;
        }
    }
    world.faults.calm();
    // a process that could not even begin says "try again": so does whoever supervises it
    while let Err(error) = running.reach(Until::Consistent).await {
        if altering && stops_by_design(&world, &error) {
            return;
        }
        assert!(error.is_transient(), "{error:?}");
        running = world.start();
    }
    if !altering {
        running.pass().await.unwrap_or_else(|error| panic!("{error:?}"));
        world.assert_equal(&format!("seed {seed}"));
    }
    let report = match running.verify().await {
        Err(error) if altering && stops_by_design(&world, &error) => return,
        report => report.unwrap(),
    };
    world.assert_equal(&format!("seed {seed}"));
    assert!(report.is_equal(), "{report:?}");
    assert_eq!(world.second.violation(), None);
    running.stop().await.unwrap();
}

/// Columns that came and went several times before the task saw it may look like a rename, and names that changed more than
/// once, or during the load, are not told apart. A table that is its owner's at
/// the target need not have what came to the source before the task looked at it.
fn stops_by_design(world: &World, error: &Error) -> bool {
    let renamed = error.is(&codes::DDL_STOPPED)
        && ["may have been renamed", "took each other's names", "were renamed before the table was whole"]
            .iter()
            .any(|why| error.what().contains(why));
    renamed || (error.is(&codes::SCHEMA_MISMATCH) && world.task.existing == Existing::Truncate)
}

async fn fault(random: &mut fastrand::Rng, world: &World, running: Running) -> Running {
    match random.u8(0..7) {
        0 => world.first.cut(),
        1 => world.second.cut(),
        2 => world.first.crash(),
        3 => world.second.lose_next_commit(if random.bool() { LostCommit::Before } else { LostCommit::After }),
        4 => world.first.rewrite(&accounts().name).unwrap(),
        5 => world.second.crash(),
        _ => {
            drop(running);
            // a killed process is gone at once; here its tasks, and those they own, must first be dropped in turn
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            world.storage.crash();
            return world.start();
        }
    }
    running
}
