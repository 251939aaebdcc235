//! From the first row to the proof, and a finish that dies at any of its steps.

use crate::process::{Godwit, command};
use crate::shop::{Shop, TASK, number};

#[test]
fn a_live_database_moves_and_the_end_is_proved() {
    let shop = Shop::new();
    let writers = shop.writers();
    let caught_up = shop.godwit(&["run", "shop.yaml", "--until", "caught-up"]).with(0);
    assert!(
        caught_up.stdout.contains("godwit finish shop.yaml") && caught_up.stdout.contains("godwit clean shop.yaml"),
        "{}",
        caught_up.stdout
    );
    // the next process goes on where this one stopped
    let run = shop.running();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(writers.end() > 50);
    run.signal("TERM");
    run.end().with(0);
    let finished = shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    assert!(finished.stdout.contains("source and target are equal"), "{}", finished.stdout);
    shop.assert_equal();
    assert_eq!(shop.traces(), 0);
    assert!(!shop.state().exists());
    assert_eq!(number(&shop.new_one(), "SELECT count(*) FROM sqlite_schema WHERE name = 'by_account'"), 1);
    assert_eq!(number(&shop.new_one(), "SELECT count(*) FROM pragma_table_info('purse') WHERE name = 'secret'"), 0);
}

#[test]
fn finish_asks_and_without_a_terminal_refuses() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    let asked = shop.godwit(&["finish", "shop.yaml"]).with(2);
    assert!(asked.stderr.contains("GW6007") && asked.stderr.contains("--yes"), "{}", asked.stderr);
    assert!(shop.traces() > 0);
}

#[test]
fn with_differences_nothing_is_removed() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    shop.new_one().execute("UPDATE purse SET balance = balance + 1 WHERE id = 77", []).unwrap();
    let refused = shop.godwit(&["finish", "shop.yaml", "--yes"]).with(1);
    assert!(refused.stdout.contains("NOT EQUAL") && refused.stdout.contains("1 different"), "{}", refused.stdout);
    assert!(shop.traces() > 0 && shop.state().exists());
    shop.godwit(&["verify", "shop.yaml", "--repair"]).with(0);
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    shop.assert_equal();
}

#[test]
fn a_source_shut_for_a_finish_is_opened_again_if_it_fails() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    shop.new_one().execute("UPDATE purse SET balance = balance + 1 WHERE id = 77", []).unwrap();
    shop.godwit(&["finish", "shop.yaml", "--read-only-source"]).with(1);
    shop.old().execute("UPDATE account SET balance = balance + 0 WHERE id = 77", []).unwrap();
    shop.godwit(&["verify", "shop.yaml", "--repair"]).with(0);
    shop.godwit(&["finish", "shop.yaml", "--read-only-source"]).with(0);
    shop.assert_equal();
    assert_eq!(shop.traces(), 0);
}

#[test]
fn a_finish_that_dies_at_any_step_is_completed_by_the_next() {
    for point in
        ["finish.drained", "finish.sequences", "finish.schema", "finish.verified", "finish.removed.source", "finish.removed.target"]
    {
        let shop = Shop::new();
        shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
        let mut dying = command(shop.path(), &["finish", "shop.yaml", "--yes"]);
        dying.env("GODWIT_FAILPOINT", point);
        let died = Godwit::of(dying).end();
        assert!(died.stderr.contains(&format!("failpoint {point} fired")), "{point}: {}", died.stderr);
        let finished = shop.godwit(&["finish", "shop.yaml", "--yes"]);
        assert_eq!(finished.status, 0, "{point}: {}", finished.stderr);
        shop.assert_equal();
        assert_eq!(shop.traces(), 0, "{point}");
        assert!(!shop.state().exists(), "{point}");
    }
}

#[test]
fn a_task_that_only_loads_ends_by_itself_and_is_verified_and_finished() {
    let shop = Shop::new();
    shop.write("shop.yaml", &format!("{TASK}phases: [schema, load]\n"));
    let loaded = shop.godwit(&["run", "shop.yaml"]).with(0);
    assert!(loaded.stdout.starts_with("loaded"), "{}", loaded.stdout);
    shop.godwit(&["verify", "shop.yaml"]).with(0);
    shop.new_one().execute("UPDATE purse SET balance = 0 WHERE id = 1", []).unwrap();
    shop.godwit(&["verify", "shop.yaml"]).with(1);
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(1);
    shop.old().execute("UPDATE account SET balance = 0 WHERE id = 1", []).unwrap();
    shop.godwit(&["finish", "shop.yaml", "--yes"]).with(0);
    assert_eq!(shop.traces(), 0);
    assert!(!shop.state().exists());
}
