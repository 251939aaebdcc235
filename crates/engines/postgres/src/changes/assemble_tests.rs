use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};
use godwit_model::TableName;
use proptest::prelude::*;

use super::*;

const RELATION: &[u8] = b"R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff";
const INSERT: &[u8] = b"I\0\0\0\x07N\0\x02t\0\0\0\x011t\0\0\0\x01a";

fn relations(columns: &[(&str, bool)]) -> Relations {
    Relations::of_plain(7, TableName::new("public", "t"), columns)
}

fn assembler(from: u64) -> Assembler {
    awaiting(from, Arc::default())
}

fn awaiting(from: u64, awaited: Arc<Awaited>) -> Assembler {
    let relations = relations(&[("id", false), ("v", false)]);
    let log = Log { system: "1".to_owned(), timeline: 1 };
    Assembler::new(Lsn(from), log, relations, &TaskName::parse("t").unwrap(), awaited)
}

fn begin(commit: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"B"[..]);
    bytes.put_u64(commit);
    bytes.put_bytes(0, 12);
    bytes.freeze()
}

fn commit(end: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"C\0"[..]);
    bytes.put_u64(end - 1);
    bytes.put_u64(end);
    bytes.put_u64(0);
    bytes.freeze()
}

fn items(assembler: &mut Assembler, messages: &[Bytes]) -> Vec<Captured> {
    let now = Instant::now();
    for message in messages {
        assert_eq!(assembler.push(&LogMessage::Data(message.clone()), now).unwrap(), Step::Done);
    }
    std::iter::from_fn(|| assembler.take()).collect()
}

#[tokio::test]
async fn a_transaction_the_position_covers_is_passed_over_but_its_layout_is_kept() {
    let mut assembler = assembler(100);
    let relation = Bytes::from_static(RELATION);
    let insert = Bytes::from_static(INSERT);
    let covered = items(&mut assembler, &[begin(99), relation, insert.clone(), commit(100)]);
    assert!(matches!(&covered[..], [Captured::Layout(_)]), "{covered:?}");
    let next = items(&mut assembler, &[begin(100), insert, commit(150)]);
    assert!(matches!(&next[..], [Captured::Begin, Captured::Changes(_), Captured::Commit { .. }]), "{next:?}");
}

#[tokio::test]
async fn a_column_that_is_computed_is_left_out_of_layouts_and_rows() {
    let mut assembler = assembler(1);
    assembler.learn(relations(&[("id", true), ("v", false)]));
    let all = items(&mut assembler, &[begin(10), Bytes::from_static(RELATION), Bytes::from_static(INSERT), commit(11)]);
    let [Captured::Layout(layout), Captured::Begin, Captured::Changes(changes), Captured::Commit { .. }] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!(layout.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["v"]);
    assert_eq!(changes.images(&changes.changes[0]).new, [Value::Native(Bytes::from_static(b"a"))]);
    // described once more, it may have become an ordinary column: the catalog is asked again
    let again = LogMessage::Data(Bytes::from_static(RELATION));
    assert_eq!(assembler.push(&again, Instant::now()).unwrap(), Step::UnknownRelation(None));
    assembler.learn(relations(&[("id", false), ("v", false)]));
    assert_eq!(assembler.push(&again, Instant::now()).unwrap(), Step::Done);
    assert!(matches!(assembler.take(), Some(Captured::Layout(layout)) if layout.columns.len() == 2));
}

/// Whether the stream has described the table before or not, and whatever its width was.
#[tokio::test]
async fn the_catalog_is_asked_of_a_column_it_did_not_name() {
    for described in [false, true] {
        let mut assembler = assembler(1);
        assembler.learn(relations(&[("id", false), ("old", false)]));
        if described {
            let before = [&RELATION[..30], b"old", &RELATION[31..]].concat();
            let seen = items(&mut assembler, &[Bytes::from(before)]);
            assert!(matches!(&seen[..], [Captured::Layout(layout)] if layout.columns.len() == 2), "{seen:?}");
        } else {
            assembler.layouts.relations_are_used();
        }
        // `old` went and `v` came, computed
        let now = LogMessage::Data(Bytes::from_static(RELATION));
        assert_eq!(assembler.push(&now, Instant::now()).unwrap(), Step::UnknownRelation(None));
        assembler.learn(relations(&[("id", false), ("v", true)]));
        assert_eq!(assembler.push(&now, Instant::now()).unwrap(), Step::Done);
        let Some(Captured::Layout(layout)) = assembler.take() else { panic!("a layout") };
        assert_eq!(layout.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id"]);
    }
}

/// The log may speak of columns that are gone: asked once, the catalog has said what it knows.
#[tokio::test]
async fn a_column_that_the_catalog_no_longer_names_is_an_ordinary_one() {
    let mut assembler = assembler(1);
    assembler.learn(relations(&[("id", false)]));
    assembler.layouts.relations_are_used();
    let described = LogMessage::Data(Bytes::from_static(RELATION));
    assert_eq!(assembler.push(&described, Instant::now()).unwrap(), Step::UnknownRelation(None));
    assembler.learn(relations(&[("id", false)]));
    let seen = items(&mut assembler, &[Bytes::from_static(RELATION)]);
    assert!(matches!(&seen[..], [Captured::Layout(layout)] if layout.columns.len() == 2), "{seen:?}");
}

/// In a block of transaction 9.
fn streamed(message: &[u8]) -> Bytes {
    Bytes::from([&message[..1], &[0, 0, 0, 9], &message[1..]].concat())
}

fn stream_commit(commit: u64, end: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"c\0\0\0\x09\0"[..]);
    bytes.put_u64(commit);
    bytes.put_u64(end);
    bytes.put_u64(0);
    bytes.freeze()
}

const STREAM_START: &[u8] = b"S\0\0\0\x09\x01";

/// Nobody else sees before its commit what a transaction under way did.
#[tokio::test]
async fn what_a_large_transaction_altered_is_asked_for_again_at_its_commit() {
    for computed in [false, true] {
        let mut assembler = assembler(1);
        assembler.learn(relations(&[("id", false)]));
        assembler.layouts.relations_are_used();
        items(&mut assembler, &[Bytes::from_static(STREAM_START)]);
        let described = LogMessage::Data(streamed(RELATION));
        assert_eq!(assembler.push(&described, Instant::now()).unwrap(), Step::UnknownRelation(None), "others go on");
        assembler.learn(relations(&[("id", false)]));
        let told = items(&mut assembler, &[streamed(RELATION), streamed(INSERT), Bytes::from_static(b"E")]);
        assert!(matches!(&told[..], [Captured::Layout(layout), Captured::StreamedChanges { .. }] if layout.columns.len() == 2), "{told:?}");
        let commit = LogMessage::Data(stream_commit(10, 20));
        assert_eq!(assembler.push(&commit, Instant::now()).unwrap(), Step::UnknownRelation(Some(Unseen::committed(Xid(9)))));
        assembler.learn(relations(&[("id", false), ("v", computed)]));
        match assembler.push(&commit, Instant::now()) {
            Ok(step) => {
                assert!(!computed && step == Step::Done);
                assert!(matches!(assembler.take(), Some(Captured::StreamedCommit { .. })));
            }
            Err(error) => assert!(computed && error.is(&codes::RETRYABLE), "{error:?}"),
        }
    }
}

/// What the catalog said while the column was there holds for all that the log tells of it.
#[tokio::test]
async fn a_computed_column_that_is_gone_at_the_commit_was_computed() {
    let mut assembler = assembler(1);
    assembler.learn(relations(&[("id", false), ("v", true)]));
    items(&mut assembler, &[Bytes::from_static(STREAM_START)]);
    let told = items(&mut assembler, &[streamed(RELATION), streamed(INSERT), Bytes::from_static(b"E")]);
    assert!(matches!(&told[..], [Captured::Layout(layout), Captured::StreamedChanges { .. }] if layout.columns.len() == 1), "{told:?}");
    let commit = LogMessage::Data(stream_commit(10, 20));
    assert_eq!(assembler.push(&commit, Instant::now()).unwrap(), Step::UnknownRelation(Some(Unseen::committed(Xid(9)))));
    assembler.learn(relations(&[("id", false)]));
    assert_eq!(assembler.push(&commit, Instant::now()).unwrap(), Step::Done);
    assembler.take();
    // one that is read later is told the same way
    assembler.learn(relations(&[("id", false)]));
    let told = items(&mut assembler, &[Bytes::from_static(RELATION)]);
    assert!(told.iter().all(|item| !matches!(item, Captured::Layout(layout) if layout.columns.len() == 2)), "{told:?}");
}

#[tokio::test]
async fn a_relation_that_a_large_transaction_made_is_waited_for() {
    let mut assembler = assembler(1);
    assembler.learn(Relations::default());
    assembler.layouts.relations_are_used();
    items(&mut assembler, &[Bytes::from_static(STREAM_START)]);
    let described = LogMessage::Data(streamed(RELATION));
    assert_eq!(
        assembler.push(&described, Instant::now()).unwrap(),
        Step::UnknownRelation(Some(Unseen { whole: Xid(9), part: Some(Xid(9)) }))
    );
}

#[tokio::test]
async fn a_transaction_without_anything_of_ours_is_progress() {
    let mut assembler = assembler(1);
    let empty = items(&mut assembler, &[begin(10), commit(11)]);
    assert!(matches!(&empty[..], [Captured::Idle { position }] if position.to_string() == "0/B@1.1"), "{empty:?}");
}

#[tokio::test]
async fn a_keepalive_never_goes_back_behind_a_commit() {
    let mut assembler = assembler(1);
    let insert = Bytes::from_static(INSERT);
    items(&mut assembler, &[begin(10), Bytes::from_static(RELATION), insert, commit(20)]);
    for (end, told) in [(15, false), (20, false), (21, true)] {
        assembler.push(&LogMessage::Keepalive { end: Lsn(end), reply: true }, Instant::now()).unwrap();
        assert_eq!(assembler.take().is_some(), told, "{end}");
    }
}

#[tokio::test]
async fn a_row_over_the_limit_is_refused_with_its_table_and_key() {
    let mut assembler = assembler(1);
    items(&mut assembler, &[begin(10), Bytes::from_static(RELATION)]);
    let head = Bytes::from_static(b"I\0\0\0\x07N\0\x02t\0\0\0\x0217t\0\xff\0\0aaaa");
    let head = Bytes::from([&head[..12], b"\x02", &head[13..]].concat());
    let oversize = Oversize { head, length: 20_000_000, limit: 1_000_000 };
    let error = assembler.push(&LogMessage::Oversize(oversize), Instant::now()).unwrap_err();
    assert!(error.is(&codes::VALUE_TOO_LARGE), "{error:?}");
    assert_eq!(error.place(), Some("table public.t"));
    assert_eq!(error.detail_text(), Some("key id = 17"));
    assert!(!error.to_string().contains("17"), "no key in what may be a log: {error}");
}

fn in_words(items: &[Captured]) -> Vec<String> {
    let word = |item: &Captured| match item {
        Captured::Begin => "begin".to_owned(),
        Captured::Marker(marker) => marker.0.clone(),
        Captured::Changes(batch) => format!("{} changes", batch.len()),
        Captured::Commit { position, .. } => format!("commit {position}"),
        Captured::Idle { position } => format!("idle {position}"),
        Captured::Layout(_) => "layout".to_owned(),
        other => format!("{other:?}"),
    };
    items.iter().map(word).collect()
}

#[tokio::test]
async fn an_awaited_marker_comes_between_the_transactions_before_and_behind_its_place() {
    let awaited = Arc::new(Awaited::default());
    let mut assembler = awaiting(1, awaited.clone());
    let expect = |place: u64, name: &str| {
        awaited
            .expect(super::super::Wanted { place: Lsn(place), marker: Marker(name.to_owned()), time: Micros(0), since: Instant::now() })
            .unwrap();
    };
    let insert = Bytes::from_static(INSERT);
    expect(20, "b");
    expect(15, "a");
    expect(50, "c");
    let first = items(&mut assembler, &[begin(10), Bytes::from_static(RELATION), insert.clone(), commit(14)]);
    assert_eq!(in_words(&first), ["layout", "begin", "1 changes", "commit 0/E@1.1"]);
    // one that is asked for in the middle of a transaction waits for its end
    let open = items(&mut assembler, &[begin(30), insert.clone()]);
    assert_eq!(in_words(&open), ["begin", "a", "b", "commit 0/14@1.1", "begin"]);
    expect(29, "late");
    assembler.settle();
    assert!(!assembler.has_items());
    let end = items(&mut assembler, &[commit(40)]);
    assert_eq!(in_words(&end), ["1 changes", "commit 0/28@1.1", "begin", "late", "commit 0/28@1.1"]);
    // an empty transaction of others and a keepalive tell as much, at once
    items(&mut assembler, &[begin(44), commit(45)]);
    expect(44, "d");
    assembler.settle();
    assert_eq!(in_words(&[assembler.take().unwrap(), assembler.take().unwrap()]), ["begin", "d"]);
    assembler.take().unwrap();
    let keepalive = |end: u64| LogMessage::Keepalive { end: Lsn(end), reply: false };
    assembler.push(&keepalive(49), Instant::now()).unwrap();
    assert!(!assembler.has_items());
    assembler.push(&keepalive(50), Instant::now()).unwrap();
    assert_eq!(in_words(&[assembler.take().unwrap(), assembler.take().unwrap()]), ["begin", "c"]);
}

#[tokio::test]
async fn a_row_of_another_width_is_refused() {
    let mut assembler = assembler(1);
    items(&mut assembler, &[begin(10), Bytes::from_static(RELATION)]);
    let narrow = LogMessage::Data(Bytes::from_static(b"I\0\0\0\x07N\0\x01n"));
    assert!(assembler.push(&narrow, Instant::now()).unwrap_err().is(&codes::LOG_UNDECODABLE));
}

#[tokio::test]
async fn the_same_relation_again_is_no_new_layout() {
    let mut assembler = assembler(1);
    let relation = Bytes::from_static(RELATION);
    let seen = items(&mut assembler, &[begin(10), relation.clone(), relation, commit(11)]);
    let layouts: HashSet<u32> =
        seen.iter().filter_map(|item| if let Captured::Layout(layout) = item { Some(layout.id.0) } else { None }).collect();
    assert_eq!(layouts.len(), 1);
}

proptest! {
    #[test]
    fn any_stream_gives_items_or_an_error(messages in prop::collection::vec(
        prop_oneof![
            Just(begin(10)), Just(commit(11)), Just(Bytes::from_static(RELATION)), Just(Bytes::from_static(INSERT)),
            Just(Bytes::from_static(b"S\0\0\0\x09\x01")), Just(Bytes::from_static(b"E")),
            Just(Bytes::from_static(b"A\0\0\0\x09\0\0\0\x09")),
            Just(Bytes::from_static(b"I\0\0\0\x09\0\0\0\x07N\0\x02nn")),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        ],
        0..40,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let mut assembler = assembler(1);
        for message in messages {
            if assembler.push(&LogMessage::Data(message), Instant::now()).is_err() {
                break;
            }
        }
        let mut inside = false;
        while let Some(item) = assembler.take() {
            match item {
                Captured::Begin => { prop_assert!(!inside); inside = true; }
                Captured::Commit { .. } => { prop_assert!(inside); inside = false; }
                Captured::Changes(_) | Captured::Marker(_) => prop_assert!(inside),
                Captured::Layout(_) => {}
                _ => prop_assert!(!inside),
            }
        }
    }
}
