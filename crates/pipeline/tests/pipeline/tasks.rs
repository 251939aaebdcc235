//! Whole tasks without chance: what each command promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use godwit_model::{Event, Existing, PipelineStage, Value, codes};
use godwit_pipeline::{DifferenceKind, Until};
use godwit_testkit::faults::{self, FaultPlan};
use godwit_testkit::memory::{self, TableSpec};

use crate::world::{Users, World, accounts, events, int, purses, text};

fn world() -> (World, Users) {
    let world = World::new(1);
    for spec in [accounts(), purses(), events()] {
        world.first.create_table(spec);
    }
    let mut users = Users::new(1, true);
    users.settle_in(&world.first);
    (world, users)
}

#[tokio::test(start_paused = true)]
async fn a_task_copies_follows_and_goes_on_after_a_stop() {
    let (world, mut users) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    users.step(&world.first);
    running.pass().await.unwrap();
    world.assert_equal("while running");
    running.stop().await.unwrap();

    users.step(&world.first);
    let mut running = world.start();
    running.reach(Until::CaughtUp).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after a stop");
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn verify_names_what_differs_and_repair_mends_it() {
    let (world, mut users) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    users.step(&world.first);
    running.pass().await.unwrap();
    let view = world.second.view();
    let rows = view.sorted_rows(&accounts().name);
    world
        .second
        .transaction(|tx| {
            tx.delete(&accounts().name, &[rows[0][0].clone()])?;
            tx.update(&accounts().name, &[rows[1][0].clone()], &[("amount", int(-1))])?;
            tx.insert(&accounts().name, vec![int(77), int(0), text("planted")])
        })
        .unwrap();
    let report = running.verify().await.unwrap();
    let kinds: Vec<DifferenceKind> = report.tables.iter().flat_map(|table| &table.differences).map(|found| found.kind).collect();
    assert_eq!(kinds, [DifferenceKind::Missing, DifferenceKind::Surplus, DifferenceKind::Different]);

    assert_eq!(running.repair(&report).await.unwrap(), 3);
    assert!(running.verify().await.unwrap().is_equal());
    world.assert_equal("after repair");
    users.step(&world.first);
    running.pass().await.unwrap();
    world.assert_equal("after repair and a change");
}

#[tokio::test(start_paused = true)]
async fn a_row_missing_at_the_target_stops_the_task_with_a_conflict() {
    let (world, _) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    world.second.transaction(|tx| tx.delete(&accounts().name, &[int(0)])).unwrap();
    world.first.transaction(|tx| tx.update(&accounts().name, &[int(0)], &[("amount", int(5))])).unwrap();
    let error = running.pass().await.unwrap_err();
    assert!(error.is(&codes::CONFLICT), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_position_stops_the_task_and_resync_makes_the_target_equal_again() {
    let (world, mut users) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    running.stop().await.unwrap();
    users.step(&world.first);
    for slot in ["godwit_shop", "shop"] {
        world.first.lose_position(slot);
    }
    let error = world.start().reach(Until::CaughtUp).await.unwrap_err();
    assert!(error.is(&codes::POSITION_LOST), "{error:?}");

    world.first.transaction(|tx| tx.delete(&purses().name, &[text("p0")])).unwrap();
    let mut running = world.job().resync();
    running.reach(Until::Consistent).await.unwrap();
    running.pass().await.unwrap();
    world.assert_equal("after resync");
    users.step(&world.first);
    running.pass().await.unwrap();
    world.assert_equal("after resync and a change");
}

#[tokio::test(start_paused = true)]
async fn finish_proves_and_clean_leaves_nothing() {
    let (world, mut users) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    users.step(&world.first);
    let report = running.complete(false).await.unwrap().rows.unwrap();
    assert!(report.is_equal());
    running.stop().await.unwrap();
    let job = world.job();
    assert!(job.is_complete().await.unwrap());
    assert!(!job.remove(true).await.unwrap().removed.is_empty());
    assert_eq!(job.traces().await.unwrap(), []);
    world.assert_equal("after finish");
}

#[tokio::test(start_paused = true)]
async fn a_second_process_is_told_who_holds_the_task() {
    let (world, _) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    let mut second = world.job();
    second.life = |_| godwit_pipeline::Life::Alive;
    let error = second.start().reach(Until::Consistent).await.unwrap_err();
    assert!(error.is(&codes::HELD), "{error:?}");
    running.pass().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_lost_its_lease_stops_and_writes_nothing_more() {
    let (world, mut users) = world();
    let mut old = world.start();
    old.reach(Until::Consistent).await.unwrap();
    // the second is sure that the first is dead, although it is not
    let target = memory::target(&world.second);
    let seen = target.lease(&world.task.name).await.unwrap();
    target.take_lease(&world.task.name, &godwit_pipeline::this_process(), seen.as_ref()).await.unwrap().unwrap();
    let before = world.second.view().sorted_rows(&accounts().name);
    users.step(&world.first);
    let error = old.pass().await.unwrap_err();
    assert!(error.is(&codes::LEASE_LOST), "{error:?}");
    assert_eq!(world.second.view().sorted_rows(&accounts().name), before);
}

#[tokio::test(start_paused = true)]
async fn a_target_table_with_rows_is_refused_and_left_alone() {
    let (mut world, _) = world();
    world.second.create_table(accounts());
    world.second.transaction(|tx| tx.insert(&accounts().name, vec![int(5), int(1), Value::Null])).unwrap();
    let error = world.start().reach(Until::Consistent).await.unwrap_err();
    assert!(error.is(&codes::TARGET_NOT_EMPTY), "{error:?}");
    assert_eq!(world.second.view().count(&accounts().name), 1);

    world.task.existing = Existing::Truncate;
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    world.assert_equal("after truncate");
}

#[tokio::test(start_paused = true)]
async fn an_idle_task_goes_on_without_its_state_folder() {
    let (mut world, _) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    let before = world.second.view().checkpoint(&world.task.name).unwrap();
    // what the task does not follow moves the source's log on
    let other = memory::TableSpec::new("shop", "other").column("id", "int").key(&["id"]);
    let name = other.name.clone();
    world.first.create_table(other);
    world.first.transaction(|tx| tx.insert(&name, vec![int(1)])).unwrap();
    while world.second.view().checkpoint(&world.task.name).unwrap().position == before.position {
        tokio::task::yield_now().await;
    }
    running.stop().await.unwrap();

    world.storage = World::new(2).storage;
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    world.first.transaction(|tx| tx.insert(&events().name, vec![text("later"), int(1)])).unwrap();
    running.pass().await.unwrap();
    world.assert_equal("without the old state");
}

/// Writes one row each time a finish has drained, `rounds` times.
async fn finish_while_someone_writes(world: &World, rounds: usize) -> godwit_model::Result<bool> {
    let plan = Arc::new(FaultPlan::new(0));
    let mut job = world.job();
    job.target = faults::target(job.target, &plan);
    let mut running = job.start();
    running.reach(Until::Consistent).await.unwrap();
    let writes = async {
        for round in 0..rounds {
            // comes after the drain and before the comparison
            plan.hold("target.analyze").reached().await;
            world.first.transaction(|tx| tx.insert(&events().name, vec![text("late"), int(round as i64)])).unwrap();
        }
    };
    let (_, finished) = tokio::join!(writes, running.complete(false));
    finished.map(|found| found.is_equal())
}

#[tokio::test(start_paused = true)]
async fn what_users_write_after_the_drain_is_drained_too() {
    let (world, _) = world();
    assert!(finish_while_someone_writes(&world, 1).await.unwrap());
    world.assert_equal("after finish");
    assert!(world.job().is_complete().await.unwrap());
    let warned = |event: &Event| matches!(event, Event::Warning(what) if what.contains("after it was drained"));
    assert_eq!(world.recorder.events().iter().filter(|event| warned(event)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_finish_says_that_users_write_on_and_removes_nothing() {
    let (world, _) = world();
    let error = finish_while_someone_writes(&world, 3).await.unwrap_err();
    assert!(error.is(&codes::WRITERS_LEFT), "{error:?}");
    assert!(!world.job().is_complete().await.unwrap());
    world.assert_equal("what they wrote is applied");
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    assert!(running.complete(false).await.unwrap().is_equal());
}

#[tokio::test(start_paused = true)]
async fn a_table_without_a_key_is_compared_while_users_write_all_the_time() {
    let (world, _) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    let busy = AtomicBool::new(true);
    let writes = async {
        let mut number = 0;
        while busy.load(Ordering::Relaxed) {
            number += 1;
            world.first.transaction(|tx| tx.insert(&events().name, vec![text("again"), int(number)])).unwrap();
            tokio::task::yield_now().await;
        }
    };
    let verify = async {
        let equal = running.verify().await.unwrap();
        world.second.transaction(|tx| tx.insert(&events().name, vec![text("planted"), int(0)])).unwrap();
        let surplus = running.verify().await.unwrap();
        busy.store(false, Ordering::Relaxed);
        (equal, surplus)
    };
    let ((), (equal, surplus)) = tokio::join!(writes, verify);
    assert!(equal.is_equal(), "{equal:?}");
    assert!(equal.rows() > 0);
    let kinds: Vec<DifferenceKind> = surplus.tables.iter().flat_map(|table| &table.differences).map(|found| found.kind).collect();
    assert_eq!(kinds, [DifferenceKind::Surplus]);
    // the target goes on from where it was held
    running.pass().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_lost_its_rows_or_has_many_more_is_listed_in_blocks() {
    let (world, _) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    // the task knows these tables as almost empty ones
    let rows = 20_000;
    world.first.transaction(|tx| (100..rows).try_for_each(|id| tx.insert(&accounts().name, vec![int(id), int(0), text("n")]))).unwrap();
    running.pass().await.unwrap();
    world.second.transaction(|tx| (100..rows).try_for_each(|id| tx.delete(&accounts().name, &[int(id)]))).unwrap();
    world.second.transaction(|tx| (0..rows).try_for_each(|n| tx.insert(&events().name, vec![text("surplus"), int(n)]))).unwrap();
    let report = running.verify().await.unwrap();
    let of = |table: usize, kind| report.tables[table].differences.iter().filter(|found| found.kind == kind).count() as i64;
    let place = |spec: TableSpec| report.tables.iter().position(|table| table.source == spec.name).unwrap();
    assert_eq!(of(place(accounts()), DifferenceKind::Missing), rows - 100);
    assert_eq!(of(place(events()), DifferenceKind::Surplus), rows);
    assert!(report.tables.iter().all(|table| table.unlisted == 0 && table.unsettled == 0));
}

#[tokio::test(start_paused = true)]
async fn every_stage_says_how_long_its_batches_took() {
    let (world, _) = world();
    let mut running = world.start();
    running.reach(Until::Consistent).await.unwrap();
    world.first.transaction(|tx| tx.insert(&events().name, vec![text("one"), int(1)])).unwrap();
    running.pass().await.unwrap();
    for stage in [PipelineStage::Read, PipelineStage::Logged, PipelineStage::Mapped, PipelineStage::Applied, PipelineStage::Committed] {
        let told = |event: &Event| matches!(event, Event::Timing { stage: of, changes, .. } if *of == stage && *changes > 0);
        assert!(world.recorder.events().iter().any(told), "{stage:?}");
    }
}
