//! Whose folder it is.

use godwit_model::{TaskName, codes};

use crate::{Fingerprint, StateFolder};

fn fingerprint(source: &str) -> Fingerprint {
    let facts = vec![("source".to_owned(), source.to_owned()), ("mode".to_owned(), "migrate".to_owned())];
    Fingerprint { task: TaskName::parse("shop").unwrap(), facts }
}

#[test]
fn the_same_task_opens_its_state_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states/shop");
    assert!(!StateFolder::exists(&path));
    assert!(StateFolder::open(&path, &fingerprint("a\nb")).unwrap().created());
    assert!(StateFolder::exists(&path));
    assert!(!StateFolder::open(&path, &fingerprint("a\nb")).unwrap().created());
}

#[test]
fn another_task_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    drop(StateFolder::open(folder.path(), &fingerprint("a")).unwrap());
    let error = StateFolder::open(folder.path(), &fingerprint("b")).unwrap_err();
    assert!(error.is(&codes::STATE_OTHER));
    assert_eq!(error.detail_text(), Some("- source: a\n+ source: b"));
}

#[test]
fn a_held_folder_and_another_form_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(folder.path(), &fingerprint("a")).unwrap();
    assert!(StateFolder::open(folder.path(), &fingerprint("a")).unwrap_err().is(&codes::HELD));
    drop(state);
    std::fs::write(folder.path().join("state"), "format: 2\n").unwrap();
    assert!(StateFolder::open(folder.path(), &fingerprint("a")).unwrap_err().is(&codes::STATE_VERSION));
}

#[test]
fn a_log_without_a_name_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("log")).unwrap();
    assert!(StateFolder::open(folder.path(), &fingerprint("a")).unwrap_err().is(&codes::STATE_LOST));
}

#[test]
fn removing_leaves_only_what_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop");
    let state = StateFolder::open(&path, &fingerprint("a")).unwrap();
    std::fs::create_dir(state.log()).unwrap();
    std::fs::write(state.log().join("x.log"), "x").unwrap();
    state.remove().unwrap();
    assert!(!path.exists());
    let state = StateFolder::open(&path, &fingerprint("a")).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    state.remove().unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
}
