//! Interleavings and crash points that once lost, doubled or stopped something, each by itself.

use std::sync::Arc;
use std::time::Duration;

use godwit_model::{ByteCount, DdlPolicy, Event, Existing, Phases, PipelineStage, Sequence, codes};
use godwit_pipeline::{Job, Storage as _, Until};
use godwit_testkit::faults::{self, Fault, FaultPlan};
use godwit_testkit::memory::{self, SourceOptions, TableSpec};

use crate::world::{MemoryStorage, Users, World, accounts, events, int, purses, text};

async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

fn world(seed: u64, keyless: bool) -> (World, Users) {
    let world = World::new(seed);
    world.first.create_table(accounts());
    world.first.create_table(purses());
    if keyless {
        world.first.create_table(events());
    }
    let mut users = Users::new(seed, keyless);
    users.settle_in(&world.first);
    (world, users)
}

/// Each row of a table without a key comes in a chunk of its own, one after another.
fn in_chunks(seed: u64) -> (World, Users) {
    let (mut world, users) = world(seed, true);
    world.chunk_bytes = 1;
    world.task.limits.target_connections = 1;
    (world, users)
}

/// A task whose position is lost, with a row at the target that is gone at the source.
async fn lost(seed: u64, keyless: bool) -> World {
    let (world, _) = world(seed, keyless);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.stop().await.unwrap();
    world.first.lose_position("godwit_shop");
    world.first.transaction(|tx| tx.delete(&purses().name, &[text("p0")])).unwrap();
    world
}

/// The same job with faults in front of its stores.
fn with_faults(mut job: Job, plan: &Arc<FaultPlan>) -> Job {
    job.source = faults::source(job.source, plan);
    job.target = faults::target(job.target, plan);
    job
}

/// A life of the task that ends when it makes this call for the nth time.
async fn killed_at(job: Job, call: &'static str, nth: usize) {
    let plan = Arc::new(FaultPlan::new(0));
    let mut hold = plan.hold(call);
    let running = with_faults(job, &plan).start();
    hold.reached().await;
    for _ in 1..nth {
        let next = plan.hold(call);
        hold.release();
        hold = next;
        hold.reached().await;
    }
    drop(running);
    yields(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_resync_ends_equal_whichever_of_its_records_fails() {
    for number in 0..12 {
        for fault in [Fault::Reject, Fault::LostAnswer] {
            let world = lost(number, false).await;
            let plan = Arc::new(FaultPlan::new(0));
            (0..number).for_each(|_| plan.order("target.record", Fault::Slow(Duration::ZERO)));
            plan.order("target.record", fault);
            let mut running = with_faults(world.job(), &plan).resync();
            running.reach(Until::Consistent).await.unwrap();
            running.pass().await.unwrap();
            world.assert_equal(&format!("record {number}: {fault:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_resync_killed_before_it_empties_a_table_without_a_key_doubles_no_row() {
    let world = lost(1, true).await;
    let plan = Arc::new(FaultPlan::new(0));
    let mut hold = plan.hold("target.empty");
    let running = with_faults(world.job(), &plan).resync();
    hold.reached().await;
    drop(running);
    tokio::task::yield_now().await;
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after another run");
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_table_without_a_key_begins_again_when_a_connection_is_lost() {
    for number in 0..4 {
        for fault in [Fault::Reject, Fault::LostAnswer] {
            let (world, mut users) = in_chunks(number);
            let plan = Arc::new(FaultPlan::new(0));
            (0..number).for_each(|_| plan.order("target.write_chunk", Fault::Slow(Duration::ZERO)));
            plan.order("target.write_chunk", fault);
            let mut running = with_faults(world.job(), &plan).start();
            running.reach(Until::Consistent).await.unwrap();
            users.step(&world.first);
            running.pass().await.unwrap();
            world.assert_equal(&format!("chunk {number}: {fault:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_table_without_a_key_begins_again_in_another_process() {
    for (changes, nth) in [(true, 1), (true, 3), (false, 1), (false, 3)] {
        let (mut world, mut users) = in_chunks(1);
        world.task.phases = Phases { schema: true, load: true, changes };
        killed_at(world.job(), "target.write_chunk", nth).await;
        assert_eq!(world.second.view().rows(&events().name).len(), nth - 1);
        users.step(&world.first);
        let mut running = world.start();
        running.reach(if changes { Until::Consistent } else { Until::CaughtUp }).await.unwrap();
        if changes {
            running.pass().await.unwrap();
        }
        world.assert_equal(&format!("changes: {changes}, in chunk {nth}"));
    }
}

#[tokio::test(start_paused = true)]
async fn many_tables_without_a_key_begin_again_whichever_of_them_were_emptied() {
    for fault in [None, Some(Fault::Reject), Some(Fault::LostAnswer)] {
        let mut world = World::new(1);
        world.task.limits.target_connections = 1;
        // more than are emptied in one transaction
        let specs: Vec<TableSpec> = (0..150)
            .map(|number| TableSpec::new("shop", &format!("event{number}")).column("what", "text").column("number", "int"))
            .collect();
        for spec in &specs {
            world.first.create_table(spec.clone());
            world.first.transaction(|tx| (0..2).try_for_each(|_| tx.insert(&spec.name, vec![text("same"), int(1)]))).unwrap();
        }
        killed_at(world.job(), "target.write_chunk", specs.len()).await;
        let plan = Arc::new(FaultPlan::new(0));
        plan.order("target.empty", Fault::Slow(Duration::ZERO));
        fault.into_iter().for_each(|fault| plan.order("target.empty", fault));
        let mut running = with_faults(world.job(), &plan).start();
        running.reach(Until::Consistent).await.unwrap();
        assert!(plan.calls("target.empty") > 1, "in one transaction");
        for spec in &specs {
            world.first.transaction(|tx| tx.insert(&spec.name, vec![text("later"), int(2)])).unwrap();
        }
        running.pass().await.unwrap();
        for spec in &specs {
            let rows = |view: memory::View| view.sorted_rows(&spec.name);
            assert_eq!(rows(world.first.view()), rows(world.second.view()), "{}: {fault:?}", spec.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beside_rows_of_others_no_copy_begins_again() {
    let mine = vec![text("mine"), int(0)];
    for is_there_before in [true, false] {
        let (mut world, _) = world(1, true);
        world.task.existing = Existing::Append;
        world.second.create_table(events());
        let insert = || world.second.transaction(|tx| tx.insert(&events().name, mine.clone())).unwrap();
        if is_there_before {
            insert();
        }
        killed_at(world.job(), "target.write_chunk", 1).await;
        if !is_there_before {
            insert();
        }
        let error = world.start().reach(Until::Consistent).await.unwrap_err();
        assert!(error.is(&codes::LOAD_TORN), "{error:?}");
        assert_eq!(world.second.view().sorted_rows(&events().name), std::slice::from_ref(&mine));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_begins_again_takes_its_tables_as_they_were_described() {
    let (mut world, _) = world(1, true);
    world.task.existing = Existing::Refuse;
    killed_at(world.job(), "target.write_chunk", 1).await;
    // a table of the owner's at the target, and one of its name that came to the source
    let other = TableSpec::new("shop", "other").column("what", "text");
    for (store, what) in [(&world.first, "new"), (&world.second, "the owner's")] {
        store.create_table(other.clone());
        store.transaction(|tx| tx.insert(&other.name, vec![text(what)])).unwrap();
    }
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    assert_eq!(world.second.view().sorted_rows(&other.name), [vec![text("the owner's")]]);
    assert_eq!(world.first.view().sorted_rows(&events().name), world.second.view().sorted_rows(&events().name));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_altered_while_it_is_compared_is_followed() {
    let (world, mut users) = world(1, false);
    world.first.add_column(&accounts().name, "more", "int", &int(1)).unwrap();
    let plan = Arc::new(FaultPlan::new(0));
    let mut running = with_faults(world.job(), &plan).start();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    let mut hold = plan.hold("source.digest");
    world.first.rewrite(&accounts().name).unwrap();
    hold.reached().await;
    world.first.drop_column(&accounts().name, "more").unwrap();
    hold.release();
    users.step(&world.first);
    tokio::time::sleep(Duration::from_secs(60)).await;
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after the drop");
    assert!(running.verify().await.unwrap().is_equal());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_came_back_does_not_keep_a_copy_from_beginning_again() {
    let (world, mut users) = world(1, true);
    let plan = Arc::new(FaultPlan::new(0));
    let mut hold = plan.hold("target.write_chunk");
    let running = with_faults(world.job(), &plan).start();
    hold.reached().await;
    users.step(&world.first);
    // the clock goes on when all that can be done is done
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(running);
    yields(1).await;
    assert!(world.storage.log().await.unwrap().durable().sequence > Sequence(0));
    // a life with another folder takes the task back and ends before its new place in the log is recorded
    killed_at(Job { storage: Arc::new(MemoryStorage::new()), ..world.job() }, "source.establish", 1).await;
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("with a log of before");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_the_target_refuses_does_not_begin_again_for_ever() {
    let world = World::new(1);
    world.first.create_table(events());
    world.first.transaction(|tx| (0..2).try_for_each(|number| tx.insert(&events().name, vec![text("twice"), int(number)]))).unwrap();
    // the owner's own
    world.second.create_table(events().unique("once", &["what"]));
    for resync in [false, true] {
        let mut running = if resync { world.job().resync() } else { world.start() };
        let ended = tokio::time::timeout(Duration::from_secs(3600), running.reach(Until::Consistent)).await;
        let error = ended.expect("it ends").unwrap_err();
        assert!(error.is(&codes::KEY_EXISTS), "{error:?}");
        drop(running);
        yields(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_altered_before_its_copy_is_whole_is_not_copied_by_what_it_was() {
    for (changes, policy) in [(false, DdlPolicy::Carry), (true, DdlPolicy::Ignore)] {
        let (mut world, _) = world(1, true);
        world.task.phases = Phases { schema: true, load: true, changes };
        world.task.schema.changes = policy;
        killed_at(world.job(), "target.write_chunk", 1).await;
        world.first.drop_column(&events().name, "number").unwrap();
        let error = world.start().reach(Until::CaughtUp).await.unwrap_err();
        assert!(error.is(&codes::DDL_STOPPED) && error.what().contains("number"), "{changes}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_names_that_read_alike_with_their_dot_are_two_tables() {
    let world = World::new(1);
    let specs = [
        TableSpec::new("a.b", "c").column("id", "int").column("text", "text").key(&["id"]),
        TableSpec::new("a", "b.c").column("id", "int").column("other", "text").key(&["id"]),
    ];
    for (spec, rows) in specs.iter().zip([1, 30]) {
        world.first.create_table(spec.clone());
        let fill = |tx: &mut memory::Transaction| (0..rows).try_for_each(|id| tx.insert(&spec.name, vec![int(id), text("x")]));
        world.first.transaction(fill).unwrap();
    }
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    for id in [98, 99] {
        for spec in &specs {
            world.first.transaction(|tx| tx.insert(&spec.name, vec![int(id), text("y")])).unwrap();
        }
        running.pass().await.unwrap();
        running.stop().await.unwrap();
        running = world.start();
        running.reach(Until::Consistent).await.unwrap();
    }
    running.pass().await.unwrap();
    for spec in &specs {
        assert_eq!(world.first.view().sorted_rows(&spec.name), world.second.view().sorted_rows(&spec.name), "{}", spec.name);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_before_a_schema_change_is_applied_before_the_stop() {
    let (mut world, mut users) = world(3, false);
    world.task.schema.changes = DdlPolicy::Stop;
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.stop().await.unwrap();
    for _ in 0..5 {
        users.step(&world.first);
    }
    world.first.transaction(|tx| tx.insert(&purses().name, vec![text("last"), int(0), int(77)])).unwrap();
    let before = world.first.view().sorted_rows(&purses().name);
    world.first.alter(purses().column("more", "text"), "added more", |row| [&row[..], &[text("z")]].concat()).unwrap();
    let plan = Arc::new(FaultPlan::new(0).slow(1.0, Duration::from_secs(2)).only("applier.commit"));
    let mut running = with_faults(world.job(), &plan).start();
    let error = loop {
        match running.reach(Until::CaughtUp).await {
            Ok(()) => yields(10).await,
            Err(error) => break error,
        }
    };
    assert!(error.is(&codes::DDL_STOPPED), "{error:?}");
    assert_eq!(world.second.view().sorted_rows(&purses().name), before);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_update_survives_the_way_transaction_by_transaction() {
    // the target keeps a unique constraint that the users' order of changes breaks when each table is written set by set
    for seed in 0..20 {
        let mut world = World::new(seed);
        let spec = TableSpec::new("shop", "doc").column("id", "int").column("tag", "int").large("body", "text").key(&["id"]);
        let spec = spec.unique("doc_tag", &["tag"]);
        world.options = SourceOptions { exact_snapshot: false, ..SourceOptions::default() };
        world.task.existing = Existing::Append;
        world.first.create_table(spec.clone());
        world.second.create_table(spec.clone());
        let name = &spec.name;
        world.first.transaction(|tx| (0..4).try_for_each(|id| tx.insert(name, vec![int(id), int(id), text("old")]))).unwrap();
        let mut running = world.start();
        running.reach(Until::Consistent).await.unwrap();
        // rows of a report that is out of date: any key does
        world.second.transaction(|tx| tx.update(name, &[int(0)], &[("body", text("broken"))])).unwrap();
        let report = running.verify().await.unwrap();
        world
            .first
            .transaction(|tx| {
                // complete, then incomplete, of one key; beside it two unique values that swap through a third
                tx.insert(name, vec![int(9), int(9), text("new")])?;
                tx.update(name, &[int(9)], &[("tag", int(10))])?;
                tx.update(name, &[int(1)], &[("tag", int(50)), ("body", text("one"))])?;
                tx.update(name, &[int(2)], &[("tag", int(1)), ("body", text("two"))])?;
                tx.update(name, &[int(1)], &[("tag", int(2)), ("body", text("three"))])
            })
            .unwrap();
        running.repair(&report).await.unwrap();
        running.pass().await.unwrap();
        assert_eq!(world.first.view().sorted_rows(name), world.second.view().sorted_rows(name), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_alone_takes_a_table_without_a_key() {
    let (mut world, _) = world(1, true);
    world.task.phases = Phases { schema: true, load: true, changes: false };
    let mut running = world.start();
    running.reach(Until::Stopped).await.unwrap();
    world.assert_equal("loaded");
}

#[tokio::test(start_paused = true)]
async fn a_load_alone_beside_other_rows_keeps_them_and_stops_at_a_key_that_is_there() {
    let (mut world, _) = world(1, false);
    world.task.phases = Phases { schema: true, load: true, changes: false };
    world.task.existing = Existing::Append;
    world.second.create_table(accounts());
    let mine = vec![int(500), int(1), text("mine")];
    world.second.transaction(|tx| tx.insert(&accounts().name, mine.clone())).unwrap();
    let mut running = world.start();
    running.reach(Until::Stopped).await.unwrap();
    let view = world.second.view();
    assert_eq!(view.get(&accounts().name, &[int(500)]), Some(mine));
    assert_eq!(view.count(&accounts().name), world.first.view().count(&accounts().name) + 1);

    let (mut world, _) = self::world(2, false);
    world.task.phases = Phases { schema: true, load: true, changes: false };
    world.task.existing = Existing::Append;
    world.second.create_table(accounts());
    let taken = vec![int(0), int(1), text("mine")];
    world.second.transaction(|tx| tx.insert(&accounts().name, taken.clone())).unwrap();
    let error = world.start().reach(Until::Stopped).await.unwrap_err();
    assert!(error.is(&codes::KEY_EXISTS), "{error:?}");
    assert_eq!(world.second.view().get(&accounts().name, &[int(0)]), Some(taken));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_an_epoch_of_its_own() {
    let (world, _) = world(1, false);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    let epoch = || async { memory::target(&world.second).lease(&world.task.name).await.unwrap().unwrap().epoch };
    let first = epoch().await;
    world.second.cut();
    tokio::time::sleep(Duration::from_secs(10)).await;
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    assert!(epoch().await > first, "what the earlier attempt still has under way could take effect");
}

#[tokio::test(start_paused = true)]
async fn huge_transactions_arrive_whole_whatever_the_memory() {
    for seed in 0..200 {
        let (mut world, mut users) = world(seed, false);
        world.task.limits.memory = ByteCount(16 * 300);
        world.options = SourceOptions { batch_changes: 2, stream_after: (seed % 2 == 0).then_some(3), ..SourceOptions::default() };
        let mut running = world.start();
        running.reach(Until::Consistent).await.unwrap();
        for _ in 0..4 {
            users.step(&world.first);
            world
                .first
                .transaction(|tx| (100..130).try_for_each(|id| tx.insert(&accounts().name, vec![int(id), int(0), text("n")])))
                .unwrap();
            yields(seed as usize % 37).await;
            if seed % 3 == 0 {
                world.first.cut();
            }
            world.first.transaction(|tx| (100..130).try_for_each(|id| tx.delete(&accounts().name, &[int(id)]))).unwrap();
        }
        running.pass().await.unwrap();
        world.assert_equal(&format!("seed {seed}"));
        running.stop().await.unwrap();
    }
}

/// Until replay has gathered a part of a transaction that has not ended.
async fn begun_ahead(world: &World) -> bool {
    let is_part = |event: &Event| matches!(event, Event::Timing { stage: PipelineStage::Mapped, changes: 0, .. });
    let parts = || world.recorder.events().iter().filter(|event| is_part(event)).count();
    let before = parts();
    for _ in 0..1_000 {
        if parts() > before {
            return true;
        }
        yields(1).await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn a_large_transaction_is_applied_ahead_of_its_commit_and_taken_back_when_that_was_wrong() {
    for seed in 0..60 {
        let (mut world, mut users) = world(seed, false);
        world.task.limits.memory = ByteCount(16 * 300);
        world.options = SourceOptions { batch_changes: 2, stream_after: Some(3), ..SourceOptions::default() };
        let mut running = world.start();
        running.reach(Until::Consistent).await.unwrap();
        let table = accounts().name;
        // whose layout is news stays out
        world.first.transaction(|tx| tx.insert(&table, vec![int(99), int(0), text("n")])).unwrap();
        running.pass().await.unwrap();
        let mut large = world.first.begin().unwrap();
        (100..130).try_for_each(|id| large.insert(&table, vec![int(id), int(0), text("n")])).unwrap();
        assert!(begun_ahead(&world).await, "seed {seed}");
        assert!(!world.second.view().sorted_rows(&table).iter().any(|row| row[0] == int(100)), "nothing of it is seen");
        if seed % 2 == 0 {
            users.step(&world.first);
            yields(seed as usize).await;
        }
        if seed % 3 == 0 {
            large.savepoint().unwrap();
            (130..150).try_for_each(|id| large.insert(&table, vec![int(id), int(0), text("void")])).unwrap();
            yields(seed as usize).await;
            large.roll_back_to_savepoint().unwrap();
        }
        (150..160).try_for_each(|id| large.insert(&table, vec![int(id), int(0), text("n")])).unwrap();
        if seed % 5 == 0 {
            // users lose their connections too
            world.first.cut();
            assert!(large.commit().is_err());
        } else if seed % 7 == 0 {
            large.roll_back();
        } else {
            large.commit().unwrap();
        }
        running.pass().await.unwrap();
        world.assert_equal(&format!("seed {seed}"));
        running.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_resync_takes_a_unique_value_from_a_row_that_is_gone() {
    let (world, _) = world(1, false);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.stop().await.unwrap();
    world.first.lose_position("godwit_shop");
    world
        .first
        .transaction(|tx| {
            tx.delete(&purses().name, &[text("p0")])?;
            tx.insert(&purses().name, vec![text("p9"), int(0), int(0)])
        })
        .unwrap();
    let mut running = world.job().resync();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after resync");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_can_be_mended_without_a_resync() {
    let (world, _) = world(1, false);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    world.second.transaction(|tx| tx.delete(&accounts().name, &[int(0)])).unwrap();
    world.first.transaction(|tx| tx.update(&accounts().name, &[int(0)], &[("amount", int(5))])).unwrap();
    let error = running.pass().await.unwrap_err();
    assert!(error.is(&codes::CONFLICT), "{error:?}");
    let mut running = world.job().mend();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after mending");
}

#[tokio::test(start_paused = true)]
async fn append_without_an_exact_snapshot_is_refused_and_overwrites_no_row() {
    let (mut world, _) = world(1, false);
    world.options = SourceOptions { exact_snapshot: false, ..SourceOptions::default() };
    world.task.existing = Existing::Append;
    world.second.create_table(accounts());
    world.second.transaction(|tx| tx.insert(&accounts().name, vec![int(0), int(1), text("mine")])).unwrap();
    let mut running = world.start();
    let error = running.reach(Until::Consistent).await.unwrap_err();
    assert!(error.is(&codes::LOAD_TORN), "{error:?}");
    assert_eq!(world.second.view().sorted_rows(&accounts().name), [vec![int(0), int(1), text("mine")]]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_of_more_incomplete_rows_than_a_list_holds_ends_equal() {
    const ROWS: i64 = 20_100;
    let mut world = World::new(1);
    world.options = SourceOptions { exact_snapshot: false, ..SourceOptions::default() };
    world.first.create_table(accounts());
    let name = accounts().name;
    world.first.transaction(|tx| (0..ROWS).try_for_each(|id| tx.insert(&name, vec![int(id), int(0), text("large")]))).unwrap();
    let plan = Arc::new(FaultPlan::new(0));
    let mut hold = plan.hold("target.write_chunk");
    let mut running = with_faults(world.job(), &plan).start();
    hold.reached().await;
    // the chunks show the rows as they were, and the notes are not sent
    world.first.transaction(|tx| (0..ROWS).try_for_each(|id| tx.update(&name, &[int(id)], &[("amount", int(1))]))).unwrap();
    hold.release();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    assert_eq!(world.first.view().sorted_rows(&name), world.second.view().sorted_rows(&name));
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_rows_are_all_there_stays_exact_whichever_step_behind_them_fails() {
    // the first step makes the tables; behind the rows come keys, indexes and unique constraints
    for number in 1..=3 {
        for fault in [Fault::Reject, Fault::LostAnswer] {
            let (world, _) = world(number, false);
            let plan = Arc::new(FaultPlan::new(0));
            (0..number).for_each(|_| plan.order("target.perform", Fault::Slow(Duration::ZERO)));
            plan.order("target.perform", fault);
            let mut running = with_faults(world.job(), &plan).start();
            running.reach(Until::Consistent).await.unwrap();
            assert!(running.status().attempt > 1, "step {number} did not fail");
            running.pass().await.unwrap();
            world.assert_equal(&format!("step {number}: {fault:?}"));
            let ledger = memory::target(&world.second).ledger(&world.task.name).await.unwrap();
            assert!(!ledger.iter().any(|entry| entry.key == "inexact"), "step {number}: {fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_of_someone_else_is_noticed_when_the_key_is_made() {
    let (world, _) = world(1, false);
    let plan = Arc::new(FaultPlan::new(0));
    let mut hold = plan.hold("target.write_chunk");
    let mut running = with_faults(world.job(), &plan).start();
    hold.reached().await;
    let mine = vec![int(0), int(1), text("mine")];
    world.second.transaction(|tx| tx.insert(&accounts().name, mine)).unwrap();
    hold.release();
    let error = running.reach(Until::Consistent).await.unwrap_err();
    assert!(error.is(&codes::KEY_EXISTS), "{error:?}");
    assert!(error.place().is_some_and(|place| place.contains("account")), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_listed_while_a_repair_begins_are_read_again() {
    let (world, _) = world(1, false);
    let plan = Arc::new(FaultPlan::new(0));
    let mut running = with_faults(world.job(), &plan).start();
    running.reach(Until::Consistent).await.unwrap();
    world.second.transaction(|tx| tx.update(&accounts().name, &[int(0)], &[("amount", int(-1))])).unwrap();
    let report = running.verify().await.unwrap();
    assert!(!report.is_equal());
    let mut record = plan.hold("target.record");
    // what is listed stays listed
    let rows = plan.hold("source.rows");
    let listing = async {
        record.reached().await;
        // a window opens, and a key changes in it whose row is not told in full
        world.first.alter(purses().column("more", "text"), "added more", |row| [&row[..], &[text("z")]].concat()).unwrap();
        world.first.transaction(|tx| tx.update(&accounts().name, &[int(1)], &[("id", int(77))])).unwrap();
        for _ in 0..2_000 {
            let ledger = memory::target(&world.second).ledger(&world.task.name).await.unwrap();
            if ledger.iter().any(|entry| entry.key == "reread") {
                break;
            }
            yields(1).await;
        }
        record.release();
        rows.release();
    };
    let ((), repaired) = tokio::join!(listing, running.repair(&report));
    repaired.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after the repair");
}

#[tokio::test(start_paused = true)]
async fn a_target_gives_way_to_rows_that_the_source_takes_by_now() {
    let (world, _) = world(1, false);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    let mut spec = world.first.spec(&purses().name);
    spec.uniques.clear();
    world.first.bound(spec).unwrap();
    let insert = |name: &str| vec![text(name), int(0), int(700)];
    world.first.transaction(|tx| ["q1", "q2"].iter().try_for_each(|name| tx.insert(&purses().name, insert(name)))).unwrap();
    running.pass().await.unwrap();
    world.assert_equal("the constraint is gone on both sides");
    assert!(world.second.spec(&purses().name).uniques.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_constraint_of_the_targets_owner_is_not_given_up() {
    let (world, _) = world(1, false);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.second.bound(world.second.spec(&purses().name).unique("own", &["name", "amount"])).unwrap();
    world.second.transaction(|tx| tx.insert(&purses().name, vec![text("mine"), int(5), int(901)])).unwrap();
    world.first.transaction(|tx| tx.insert(&purses().name, vec![text("mine"), int(5), int(902)])).unwrap();
    let error = running.pass().await.unwrap_err();
    assert!(error.is(&codes::CONFLICT), "{error:?}");
    assert!(world.second.spec(&purses().name).uniques.iter().any(|unique| unique.name == "own"));
}

#[tokio::test(start_paused = true)]
async fn a_finish_makes_the_structure_alike_and_names_what_is_the_owners() {
    let (world, _) = world(1, false);
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    let mut spec = world.first.spec(&accounts().name).nullable("amount", false).index("later");
    spec.indexes.retain(|name| name != "account_amount");
    world.first.bound(spec.clone()).unwrap();
    let mut other = world.first.spec(&purses().name);
    other.uniques[0].columns = vec![0, 2];
    world.first.bound(other.clone()).unwrap();
    world.second.bound(world.second.spec(&accounts().name).index("own")).unwrap();
    let found = running.complete(false).await.unwrap();
    assert!(found.is_equal());
    let left: Vec<&str> = found.left.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left, ["shop.account: INDEX own"]);
    let made = world.second.spec(&accounts().name);
    assert_eq!((made.columns, made.indexes), (spec.columns, vec!["own".to_owned(), "later".to_owned()]));
    assert_eq!(world.second.spec(&purses().name).uniques, other.uniques);
    let warned = |event: &Event| matches!(event, Event::Warning(what) if what.contains("INDEX own"));
    assert!(world.recorder.events().iter().any(warned));
}
