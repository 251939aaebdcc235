//! The newcomer's first command.

use crate::process::godwit;

#[test]
fn the_demo_proves_its_move_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let demo = godwit(folder.path(), &["demo"]).with(0);
        let last = demo.stdout.lines().last().unwrap();
        assert!(last.starts_with("demo: equal, ") && last.ends_with(" changes, 0 lost"), "{}", demo.stdout);
    }
    assert!(folder.path().join("godwit-demo/shop-new.db").exists());
}

#[test]
fn the_demo_touches_no_file_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("godwit-demo/thesis.txt");
    std::fs::create_dir(folder.path().join("godwit-demo")).unwrap();
    std::fs::write(&other, "all my work").unwrap();
    std::fs::write(folder.path().join("godwit-demo/shop.db"), "mine too").unwrap();
    let refused = godwit(folder.path(), &["demo"]).with(2);
    assert!(refused.stderr.contains("thesis.txt"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(folder.path().join("godwit-demo/shop.db")).unwrap(), "mine too");
}
