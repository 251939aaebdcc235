//! Signals, and two processes for one task.

use crate::shop::Shop;

#[test]
fn a_signal_is_a_clean_stop_and_the_same_command_goes_on() {
    let shop = Shop::new();
    for name in ["INT", "TERM"] {
        let writers = shop.writers();
        let run = shop.running();
        run.signal(name);
        let ended = run.end().with(0);
        assert!(
            ended.stdout.contains("stopped by a signal") && ended.stdout.contains("go on        godwit run shop.yaml"),
            "{}",
            ended.stdout
        );
        writers.end();
    }
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    shop.assert_equal();
}

#[test]
fn a_signal_before_the_goal_is_3() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    // the target does not let anyone write, so that the goal is not reached
    let holder = shop.new_one();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut run = shop.start(&["run", "shop.yaml", "--until", "caught-up", "--output", "json"]);
    // its socket is there before it writes anything
    while !shop.state().join("socket").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    run.signal("INT");
    drop(holder);
    let ended = run.end();
    assert_eq!(ended.status, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("GW6006"), "{}", ended.stderr);
    run = shop.running();
    run.signal("INT");
    run.end().with(0);
}

#[test]
fn the_second_process_names_the_first() {
    let shop = Shop::new();
    let run = shop.running();
    let second = shop.godwit(&["run", "shop.yaml"]).with(3);
    assert!(second.stderr.contains("GW6001") && second.stderr.contains(&format!("process {} ", run.id())), "{}", second.stderr);
    // another state folder is no way around it
    let elsewhere = shop.godwit(&["run", "shop.yaml", "--state", "elsewhere"]).with(3);
    assert!(elsewhere.stderr.contains("GW6001") && elsewhere.stderr.contains(&format!("process {} ", run.id())), "{}", elsewhere.stderr);
    run.signal("INT");
    run.end().with(0);
}
