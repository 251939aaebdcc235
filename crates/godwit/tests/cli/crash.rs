//! `kill -9` at random moments, under load.

use std::time::Duration;

use crate::process::{Godwit, command};
use crate::shop::Shop;

const KILLS: usize = 8;

#[test]
fn a_killed_run_goes_on_and_nothing_is_lost_or_doubled() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for shop in [Shop::new(), Shop::with_a_table_without_a_key()] {
        kill_loop(&shop, &mut random);
    }
}

fn kill_loop(shop: &Shop, random: &mut fastrand::Rng) {
    let writers = shop.writers();
    for _ in 0..KILLS {
        let run = shop.start(&["run", "shop.yaml"]);
        std::thread::sleep(Duration::from_millis(random.u64(0..900)));
        run.kill();
    }
    let run = shop.running();
    assert!(writers.end() > 100);
    run.kill();
    // a socket that nobody answers at is no run
    assert!(shop.state().join("socket").exists());
    shop.godwit(&["verify", "shop.yaml"]).with(0);
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    shop.assert_equal();
    assert_eq!(shop.traces(), 0);
}

#[test]
fn a_killed_copy_of_a_table_without_a_key_begins_again() {
    for point in ["load.snapshot.opened", "load.plan.recorded"] {
        let shop = Shop::with_a_table_without_a_key();
        let writers = shop.writers();
        let mut dying = command(shop.path(), &["run", "shop.yaml"]);
        dying.env("GODWIT_FAILPOINT", point);
        let died = Godwit::of(dying).end();
        assert!(died.stderr.contains(&format!("failpoint {point} fired")), "{point}: {}", died.stderr);
        let gone_on = shop.godwit(&["run", "shop.yaml", "--until", "caught-up"]).with(0);
        assert!(gone_on.stderr.contains("the copy of main.journal was interrupted"), "{}", gone_on.stderr);
        writers.end();
        shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
        shop.assert_equal();
    }
}

#[test]
fn a_killed_run_may_be_cleaned() {
    let shop = Shop::new();
    shop.running().kill();
    shop.godwit(&["clean", "shop.yaml", "--yes"]).with(0);
    assert_eq!(shop.traces(), 0);
    assert!(!shop.state().exists());
}

#[test]
fn without_its_state_folder_an_idle_task_goes_on_from_the_target() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "caught-up"]).with(0);
    std::fs::remove_dir_all(shop.state()).unwrap();
    let writers = shop.writers();
    shop.godwit(&["run", "shop.yaml", "--until", "caught-up"]).with(0);
    writers.end();
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    shop.assert_equal();
}

#[test]
fn a_lost_position_is_said_and_resync_makes_the_target_equal_again() {
    let shop = Shop::new();
    let writers = shop.writers();
    shop.running().kill();
    std::fs::remove_dir_all(shop.state()).unwrap();
    // what the lost folder alone held is gone from the source
    let name = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'godwit_change%'";
    let log: String = shop.old().query_row(name, [], |row| row.get(0)).unwrap();
    shop.old().execute(&format!("DELETE FROM {log} WHERE n < (SELECT max(n) FROM {log})"), []).unwrap();
    let lost = shop.godwit(&["run", "shop.yaml"]).with(4);
    assert!(lost.stderr.contains("GW4001") && lost.stderr.contains("--resync"), "{}", lost.stderr);
    shop.godwit(&["run", "shop.yaml", "--resync", "--until", "caught-up"]).with(0);
    writers.end();
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    shop.assert_equal();
}
