//! Commands carried out inside a run that is alive.

use std::os::unix::fs::PermissionsExt as _;

use crate::shop::{Shop, TASK};

#[test]
fn finish_works_through_a_run_that_is_alive() {
    let shop = Shop::new();
    let writers = shop.writers();
    let run = shop.running();
    let socket = std::fs::metadata(shop.state().join("socket")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let verified = shop.godwit(&["verify", "shop.yaml"]).with(0);
    assert!(verified.stdout.contains("main.purse") && verified.stdout.ends_with("equal\n"), "{}", verified.stdout);
    writers.end();
    let finished = shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    assert!(finished.stdout.contains("source and target are equal"), "{}", finished.stdout);
    assert!(finished.stderr.contains("phase: finish"), "{}", finished.stderr);
    assert!(!shop.state().exists());
    let ended = run.end().with(0);
    assert!(ended.stdout.contains("source and target are equal"), "{}", ended.stdout);
    shop.assert_equal();
    assert_eq!(shop.traces(), 0);
}

#[test]
fn a_finish_with_differences_lets_the_run_go_on() {
    let shop = Shop::new();
    let run = shop.running();
    shop.new_one().execute("DELETE FROM \"Order\" WHERE code = 'sesame-5'", []).unwrap();
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(1);
    let repaired = shop.godwit(&["verify", "shop.yaml", "--repair"]).with(0);
    assert!(repaired.stdout.contains("repaired: 1 row"), "{}", repaired.stdout);
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    run.end().with(0);
    shop.assert_equal();
}

#[test]
fn clean_ends_a_run_that_is_alive() {
    let shop = Shop::new();
    let run = shop.running();
    let cleaned = shop.godwit(&["clean", "shop.yaml", "--yes"]).with(0);
    assert!(cleaned.stdout.contains("cleaned"), "{}", cleaned.stdout);
    run.end().with(0);
    assert_eq!(shop.traces(), 0);
    assert!(!shop.state().exists());
}

#[test]
fn a_run_takes_no_orders_for_another_task() {
    let shop = Shop::new();
    let run = shop.running();
    shop.write("other.yaml", &TASK.replace("holder", "keeper"));
    let refused = shop.godwit(&["verify", "other.yaml"]).with(2);
    assert!(refused.stderr.contains("GW5002") && refused.stderr.contains("keeper"), "{}", refused.stderr);
    run.signal("INT");
    run.end().with(0);
}

#[test]
fn a_long_path_has_a_socket_too() {
    let shop = Shop::new();
    let long = format!("{}/state", "a-folder-with-a-long-name/".repeat(8));
    let mut run = shop.start(&["run", "shop.yaml", "--state", &long]);
    run.wait_for("consistent:");
    shop.godwit(&["finish", "shop.yaml", "--yes", "--state", &long]).with(0);
    run.end().with(0);
    shop.assert_equal();
}
