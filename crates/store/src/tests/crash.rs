//! A folder as a crash may leave it: what was durable is there, in order, exactly once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use godwit_model::{Sequence, codes};

use super::{change, commit, commits, layout, position, progress, read_all, transaction};
use crate::{ChangeLog, FileLog, LogOptions, Record};

fn small() -> LogOptions {
    LogOptions { segment_bytes: 4 << 10, retain_bytes: 0, ..LogOptions::default() }
}

async fn open(folder: &Path) -> FileLog {
    FileLog::open(folder, small()).await.unwrap()
}

/// A crash sees all files at one moment, a copy does not: the newest segments come first, so that none is behind one
/// that was begun after it.
fn copy(from: &Path, to: &Path) {
    let mut paths = segments(from);
    paths.push(from.join("segment.new"));
    for path in paths.iter().rev() {
        // what was renamed or trimmed meanwhile is not there, as in a crash
        let _ = fs::copy(path, to.join(path.file_name().unwrap()));
    }
}

/// Printed, so that a failure can be repeated with it.
fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

#[tokio::test]
async fn a_log_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut id = None;
    for round in 0..5 {
        let log = open(folder.path()).await;
        assert_eq!(*id.get_or_insert(log.id()), log.id());
        if round == 0 {
            log.append(&layout(1, "a")).unwrap();
        }
        assert_eq!(log.layouts().len(), 1);
        for number in 0..20 {
            transaction(&log, 1, round * 20 + number, 10);
        }
        let durable = log.sync().await.unwrap();
        assert_eq!(durable.position, Some(position(round * 20 + 19)));
    }
    let log = open(folder.path()).await;
    assert_eq!(log.last_position(), Some(position(99)));
    let records = read_all(&log).await;
    assert_eq!(commits(&records), (0..100).map(position).collect::<Vec<_>>());
    assert_eq!(records.len(), 1 + 100 * 12);
}

#[tokio::test]
async fn cut_at_every_byte_the_log_keeps_what_was_whole_before() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    let path = segments(folder.path())[0].clone();
    let mut ends = vec![(fs::metadata(&path).unwrap().len(), None)];
    for number in 0..12 {
        if number % 4 == 3 {
            log.append(&progress(number)).unwrap();
        } else {
            transaction(&log, 1, number, 2);
        }
        log.sync().await.unwrap();
        ends.push((fs::metadata(&path).unwrap().len(), Some(position(number))));
    }
    drop(log);
    let whole = fs::read(&path).unwrap();
    let other = tempfile::tempdir().unwrap();
    for length in ends[0].0..=whole.len() as u64 {
        let cut = other.path().join(path.file_name().unwrap());
        fs::write(&cut, &whole[..length as usize]).unwrap();
        let wanted = ends.iter().rev().find(|(end, _)| *end <= length).unwrap();
        let log = open(other.path()).await;
        assert_eq!(log.last_position(), wanted.1, "cut at {length}");
        log.append(&progress(99)).unwrap();
        log.sync().await.unwrap();
        let records = read_all(&log).await;
        assert!(records.iter().zip(1..).all(|((sequence, _), wanted)| *sequence == wanted));
        assert_eq!(records.last().unwrap().1, progress(99));
        commits(&records);
    }
}

#[tokio::test]
async fn an_open_transaction_over_several_segments_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    let last = transaction(&log, 1, 1, 3);
    log.append(&Record::Begin).unwrap();
    for number in 0..1000 {
        log.append(&change(1, number)).unwrap();
    }
    log.append(&layout(2, "a")).unwrap();
    log.sync().await.unwrap();
    drop(log);
    assert!(segments(folder.path()).len() > 5);
    let log = open(folder.path()).await;
    assert_eq!(log.durable().sequence, last);
    assert_eq!(log.last_position(), Some(position(1)));
    assert_eq!(log.layouts()[0].id.0, 1, "the newer layout was cut off too");
    assert_eq!(segments(folder.path()).len(), 1);
    transaction(&log, 1, 2, 3);
    log.sync().await.unwrap();
    assert_eq!(commits(&read_all(&log).await), [position(1), position(2)]);
}

#[tokio::test]
async fn a_crash_between_the_cuts_of_several_segments_is_cut_further() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    let last = transaction(&log, 1, 1, 3);
    log.append(&Record::Begin).unwrap();
    for number in 0..500 {
        log.append(&change(1, number)).unwrap();
    }
    log.sync().await.unwrap();
    drop(log);
    let paths = segments(folder.path());
    for cut in 0..paths.len() {
        let other = tempfile::tempdir().unwrap();
        for path in &paths[..paths.len() - cut] {
            fs::copy(path, other.path().join(path.file_name().unwrap())).unwrap();
        }
        let log = open(other.path()).await;
        assert_eq!(log.durable().sequence, last);
        assert_eq!(commits(&read_all(&log).await), [position(1)]);
    }
}

#[tokio::test]
async fn whatever_was_torn_behind_the_end_is_cut_off() {
    let mut random = fastrand::Rng::with_seed(seed());
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    for _ in 0..100 {
        let log = open(folder.path()).await;
        assert_eq!(commits(&read_all(&log).await), (1..=number).map(position).collect::<Vec<_>>());
        if number == 0 {
            log.append(&layout(1, "a")).unwrap();
        }
        number += 1;
        transaction(&log, 1, number, random.u64(0..9));
        log.sync().await.unwrap();
        drop(log);
        let path = segments(folder.path()).pop().unwrap();
        let zeros = random.bool();
        let tail: Vec<u8> = (0..random.usize(0..3000)).map(|_| if zeros { 0 } else { random.u8(..) }).collect();
        std::io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(path).unwrap(), &tail).unwrap();
    }
}

#[tokio::test]
async fn a_layout_said_again_is_not_taken_for_the_newest_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    log.append(&layout(2, "a")).unwrap();
    while segments(folder.path()).len() < 2 {
        transaction(&log, 2, 1, 10);
        log.sync().await.unwrap();
    }
    let last = transaction(&log, 1, 2, 1);
    log.sync().await.unwrap();
    let records = super::read_until(&mut *log.read_from(last).await.unwrap(), last.0).await;
    assert!(records.iter().any(|(_, record)| *record == layout(1, "a")), "it was said again");
    drop(log);
    let log = open(folder.path()).await;
    assert_eq!(log.layouts().iter().map(|layout| layout.id.0).collect::<Vec<_>>(), [2]);
    transaction(&log, 1, 3, 1);
}

#[tokio::test]
async fn a_reader_that_falls_behind_and_catches_up_misses_nothing() {
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_bytes: 16 << 10, recent_bytes: random.usize(0..8 << 10), ..LogOptions::default() };
        let log = FileLog::open(folder.path(), options).await.unwrap();
        log.append(&layout(1, "a")).unwrap();
        log.sync().await.unwrap();
        let mut reader = log.read_from(Sequence(1)).await.unwrap();
        let mut next = 1;
        for number in 0..100 {
            transaction(&log, 1, number, random.u64(0..40));
            let last = log.sync().await.unwrap().sequence.0;
            let wanted = if random.u8(..) < 80 { last } else { random.u64(next - 1..=last) };
            while next <= wanted {
                assert_eq!(reader.next().await.unwrap().0, Sequence(next));
                next += 1;
            }
        }
    }
}

#[tokio::test]
async fn the_position_outlives_the_segment_that_said_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    for number in 0..50 {
        transaction(&log, 1, number, 10);
    }
    // the last segment begins with records that say no position
    let mut id = 2;
    while segments(folder.path()).len() < 14 {
        log.append(&layout(id, "a")).unwrap();
        log.sync().await.unwrap();
        id += 1;
    }
    log.trim(log.durable().sequence).await.unwrap();
    assert_eq!(segments(folder.path()).len(), 1);
    drop(log);
    let log = open(folder.path()).await;
    assert_eq!(log.last_position(), Some(position(49)));
    assert_eq!(log.layouts()[0].id.0, id - 1);
}

#[tokio::test]
async fn a_changed_byte_in_what_was_durable_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    for number in 0..40 {
        transaction(&log, 1, number, 3);
        log.sync().await.unwrap();
    }
    drop(log);
    let paths = segments(folder.path());
    assert!(paths.len() > 1);
    for path in &paths[paths.len() - 2..] {
        let whole = fs::read(path).unwrap();
        // of the last segment's last block nothing proves that it was durable
        for place in (0..whole.len() - 400).step_by(13) {
            let mut broken = whole.clone();
            broken[place] ^= 0x10;
            fs::write(path, &broken).unwrap();
            let outcome = damage(folder.path()).await;
            assert!(outcome.is_err(), "a changed byte at {place} of {} went unseen", path.display());
        }
        fs::write(path, &whole).unwrap();
    }
    assert!(damage(folder.path()).await.is_ok());
}

/// Opens and reads it all.
async fn damage(folder: &Path) -> godwit_model::Result<()> {
    let log = FileLog::open(folder, small()).await?;
    let mut reader = log.read_from(Sequence(1)).await?;
    while reader.next().await?.0 < log.durable().sequence {}
    Ok(())
}

#[tokio::test]
async fn a_missing_segment_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&layout(1, "a")).unwrap();
    for number in 0..100 {
        transaction(&log, 1, number, 10);
    }
    log.sync().await.unwrap();
    drop(log);
    let paths = segments(folder.path());
    fs::remove_file(&paths[paths.len() / 2]).unwrap();
    assert!(FileLog::open(folder.path(), small()).await.err().unwrap().is(&codes::LOG_DAMAGED));
}

#[tokio::test]
async fn an_unfinished_segment_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    log.append(&progress(1)).unwrap();
    log.sync().await.unwrap();
    drop(log);
    fs::write(folder.path().join("segment.new"), b"half").unwrap();
    assert_eq!(open(folder.path()).await.last_position(), Some(position(1)));
    assert!(!folder.path().join("segment.new").exists());
}

#[tokio::test]
async fn another_format_is_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await);
    let path = segments(folder.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    fs::write(&path, bytes).unwrap();
    assert!(FileLog::open(folder.path(), small()).await.err().unwrap().is(&codes::STATE_VERSION));
}

#[tokio::test]
async fn one_process_per_folder() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let error = FileLog::open(folder.path(), small()).await.err().unwrap();
    assert!(error.is(&codes::HELD) && error.place().unwrap().contains(folder.path().to_str().unwrap()));
    drop(log);
    open(folder.path()).await;
}

/// Copies the folder while the log is written, trimmed and rolled, and opens the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_at_any_moment_opens_with_all_that_was_durable() {
    let mut random = fastrand::Rng::with_seed(seed());
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(open(folder.path()).await);
    log.append(&layout(1, "a")).unwrap();
    let mut number = 0;
    for _ in 0..150 {
        for _ in 0..random.u64(0..8) {
            number += 1;
            transaction(&*log, 1, number, random.u64(0..20));
        }
        if random.u8(..) < 128 {
            log.append(&Record::Begin).unwrap();
            log.append(&change(1, 1)).unwrap();
        } else {
            log.append(&layout(1, "a")).unwrap();
            log.append(&Record::Begin).unwrap();
        }
        let mut before = log.durable();
        let other = tempfile::tempdir().unwrap();
        let syncing = tokio::spawn({
            let log = log.clone();
            async move { log.sync().await.unwrap() }
        });
        if random.bool() {
            for _ in 0..random.u32(0..5000) {
                std::hint::spin_loop();
            }
            copy(folder.path(), other.path());
            syncing.await.unwrap();
        } else {
            before = syncing.await.unwrap();
            copy(folder.path(), other.path());
        }
        number += 1;
        log.append(&commit(number)).unwrap();
        check_copy(other.path(), &before, number).await;
    }
}

async fn check_copy(folder: &Path, durable: &crate::Durable, newest: u64) {
    let log = open(folder).await;
    let found: Vec<_> = commits(&read_all(&log).await);
    let wanted: Vec<_> = (1..=newest).map(position).take(found.len()).collect();
    assert_eq!(found, wanted, "in order, once each");
    assert_eq!(log.last_position(), found.last().cloned());
    let acknowledged = durable.position.iter().all(|position| found.contains(position));
    assert!(acknowledged, "what was durable before the copy is in it");
}
