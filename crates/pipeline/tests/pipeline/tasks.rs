//! Whole tasks without chance: what each command promises.

use godwit_model::{Existing, Value, codes};
use godwit_pipeline::{DifferenceKind, Until};
use godwit_testkit::memory;

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
    let report = running.complete(false).await.unwrap().unwrap();
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
