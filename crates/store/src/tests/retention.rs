//! What is kept though nobody reads it any more, and who is told that the log ended.

use std::time::Duration;

use godwit_model::{Sequence, codes};

use super::{layout, transaction};
use crate::{ChangeLog, FileLog, LogOptions};

const SEGMENT: u64 = 4 << 10;

/// A log of about 100 KiB, all of it trimmed.
async fn trimmed(options: LogOptions) -> FileLog {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path(), LogOptions { segment_bytes: SEGMENT, ..options }).await.unwrap();
    log.append(&layout(1, "a")).unwrap();
    while log.size() < 100 << 10 {
        transaction(&log, 1, 1, 20);
        log.sync().await.unwrap();
    }
    log.trim(Sequence(log.durable().sequence.0 + 1)).await.unwrap();
    log
}

#[tokio::test]
async fn young_segments_are_kept_up_to_a_size() {
    let log = trimmed(LogOptions { retain_bytes: 40 << 10, ..LogOptions::default() }).await;
    assert!(log.size() > 35 << 10 && log.size() < 50 << 10, "{}", log.size());
}

#[tokio::test]
async fn old_segments_go() {
    let log = trimmed(LogOptions { retain_bytes: 40 << 10, retain_age: Duration::ZERO, ..LogOptions::default() }).await;
    assert!(log.size() < 2 * SEGMENT, "{}", log.size());
}

#[tokio::test]
async fn near_the_budget_segments_go() {
    let log = trimmed(LogOptions { retain_bytes: 1 << 30, budget: 100 << 10, ..LogOptions::default() }).await;
    assert!(log.fill() < 0.8, "{}", log.fill());
}

#[tokio::test]
async fn what_a_reader_needs_is_kept_whatever_the_limits_say() {
    let folder = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: SEGMENT, budget: 64 << 10, retain_bytes: 0, ..LogOptions::default() };
    let log = FileLog::open(folder.path(), options).await.unwrap();
    log.append(&layout(1, "a")).unwrap();
    while log.fill() < 1.5 {
        transaction(&log, 1, 1, 20);
        log.sync().await.unwrap();
    }
    let needed = Sequence(log.durable().sequence.0 / 2);
    log.trim(needed).await.unwrap();
    assert!(log.oldest() <= needed && log.oldest() > Sequence(1));
    assert!(log.read_from(needed).await.is_ok());
}

#[tokio::test]
async fn a_waiting_reader_is_told_that_the_log_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path(), LogOptions::default()).await.unwrap();
    let mut reader = log.read_from(Sequence(1)).await.unwrap();
    let waiting = tokio::spawn(async move { reader.next().await });
    tokio::task::yield_now().await;
    drop(log);
    assert!(waiting.await.unwrap().unwrap_err().is(&codes::INTERRUPTED));
}
