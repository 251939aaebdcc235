//! Wrong use and bad input: each with its own code, exit status 2, and nothing changed.

use crate::process::godwit;
use crate::shop::{Shop, TASK};

#[test]
fn explain_knows_every_field_and_code() {
    let folder = tempfile::tempdir().unwrap();
    let field = godwit(folder.path(), &["explain", "target.existing"]).with(0);
    assert!(field.stdout.contains("refuse"), "{}", field.stdout);
    let code = godwit(folder.path(), &["explain", "GW1003"]).with(0);
    assert!(code.stdout.contains("GW1003"), "{}", code.stdout);
    let all = godwit(folder.path(), &["explain"]).with(0);
    assert!(all.stdout.contains("source.tls.mode"), "{}", all.stdout);
    let schema = godwit(folder.path(), &["explain", "--json-schema"]).with(0).json();
    assert!(schema.get("properties").is_some());
    for code in godwit_codes() {
        godwit(folder.path(), &["explain", &code]).with(0);
    }
}

fn godwit_codes() -> Vec<String> {
    ["GW1001", "gw2001", "5002", "GW9001"].map(str::to_owned).into()
}

#[test]
fn explain_of_what_is_not_there_says_what_is_near() {
    let folder = tempfile::tempdir().unwrap();
    let near = godwit(folder.path(), &["explain", "target.exsting"]).with(2);
    assert!(near.stderr.contains("GW1010") && near.stderr.contains("target.existing"), "{}", near.stderr);
    godwit(folder.path(), &["explain", "GW0007"]).with(2);
}

#[test]
fn wrong_options_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["run"][..], &["run", "x.yaml", "--until", "never"], &["walk"], &["run", "x.yaml", "--faster"], &[]] {
        godwit(folder.path(), arguments).with(2);
    }
    godwit(folder.path(), &["--help"]).with(0);
    godwit(folder.path(), &["--version"]).with(0);
}

#[test]
fn a_task_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "check", "plan", "verify", "finish", "clean"] {
        let ended = godwit(folder.path(), &[command, "nowhere.yaml"]).with(2);
        assert!(ended.stderr.starts_with("error GW1001: ") && ended.stderr.contains("nowhere.yaml"), "{}", ended.stderr);
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_line() {
    let shop = Shop::new();
    shop.write("shop.yaml", &format!("{TASK}limts: {{memory: 1GiB}}\n"));
    let ended = shop.godwit(&["run", "shop.yaml"]).with(2);
    assert!(ended.stderr.contains("error GW1003: ") && ended.stderr.contains("shop.yaml:7:1"), "{}", ended.stderr);
    assert!(ended.stderr.contains("limts"), "{}", ended.stderr);
    assert!(!shop.path().join("new.db").exists() && !shop.path().join("godwit-state").exists());
}

#[test]
fn an_unknown_engine_is_refused() {
    let shop = Shop::new();
    shop.write("shop.yaml", "name: shop\nmode: migrate\nsource: sqlite:old.db\ntarget: oracle://h/d\n");
    let ended = shop.godwit(&["check", "shop.yaml"]).with(2);
    assert!(ended.stderr.contains("GW1009"), "{}", ended.stderr);
}

#[test]
fn source_and_target_may_not_be_one_file() {
    let shop = Shop::new();
    std::fs::hard_link(shop.path().join("old.db"), shop.path().join("same.db")).unwrap();
    for target in ["old.db", "same.db"] {
        shop.write("shop.yaml", &format!("name: shop\nmode: migrate\nsource: sqlite:old.db\ntarget: sqlite:{target}\n"));
        let ended = shop.godwit(&["run", "shop.yaml"]).with(2);
        assert!(ended.stderr.contains("GW1011"), "{}", ended.stderr);
    }
    assert!(!shop.path().join("godwit-state").exists());
}

#[test]
fn a_task_that_changed_is_refused_with_the_difference() {
    let shop = Shop::new();
    shop.godwit(&["run", "shop.yaml", "--until", "consistent"]).with(0);
    shop.write("shop.yaml", &TASK.replace("holder", "keeper"));
    let ended = shop.godwit(&["run", "shop.yaml"]).with(2);
    assert!(ended.stderr.contains("GW5002") && ended.stderr.contains("keeper") && ended.stderr.contains("holder"), "{}", ended.stderr);
    // giving it up needs only its name and its stores
    shop.godwit(&["clean", "shop.yaml", "--yes"]).with(0);
    assert_eq!(shop.traces(), 0);
    assert!(!shop.state().exists());
}

#[test]
fn a_target_with_rows_blocks_before_anything_is_changed() {
    let shop = Shop::new();
    shop.new_one()
        .execute_batch(
            "CREATE TABLE journal (writer INTEGER, number INTEGER, PRIMARY KEY (writer, number)); INSERT INTO journal VALUES (9, 9)",
        )
        .unwrap();
    let ended = shop.godwit(&["run", "shop.yaml"]).with(1);
    assert!(ended.stdout.contains("GW3002") && ended.stdout.contains("NOT CLEAR"), "{}", ended.stdout);
    assert_eq!(shop.traces(), 0);
    assert!(!shop.path().join("godwit-state").exists());
}

#[test]
fn what_has_not_begun_can_be_neither_verified_nor_finished() {
    let shop = Shop::new();
    for arguments in [&["verify", "shop.yaml"][..], &["finish", "shop.yaml", "--yes"]] {
        let ended = shop.godwit(arguments).with(3);
        assert!(ended.stderr.contains("GW6004"), "{}", ended.stderr);
    }
    assert_eq!(shop.traces(), 0);
}
