//! What `ChangeLog` promises, checked on every implementation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use godwit_model::{LogId, Sequence, codes};

use super::{change, commit, commits, layout, position, progress, read_all, read_until, transaction};
use crate::{ChangeLog, FileLog, LogOptions, MemoryLog, Record};

type Log = Arc<dyn ChangeLog>;
type Case = (&'static str, fn(Log) -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! cases {
    ($($name:ident),*) => { &[$((stringify!($name), |log| Box::pin($name(log)))),*] };
}

const CASES: &[Case] = cases![
    an_empty_log_has_nothing,
    records_come_back_in_order,
    only_durable_records_are_seen,
    a_waiting_reader_is_woken,
    a_reader_dropped_while_pending_skips_nothing,
    records_out_of_order_are_refused,
    an_unknown_layout_is_refused,
    the_durable_position_follows_commit_and_progress,
    a_reader_begins_with_the_layouts,
    an_older_layout_may_still_be_used,
    many_segments_read_as_one,
    trimmed_records_are_gone_and_said_so,
    a_reader_overtaken_by_trim_is_told,
    room_waits_for_trim,
    room_does_not_wait_inside_a_transaction,
    bytes_behind_falls_to_zero,
    readers_and_the_writer_work_side_by_side
];

/// Budget of the logs under test.
const BUDGET: u64 = 256 << 10;

#[tokio::test]
async fn memory_log_keeps_the_contract() {
    for (name, case) in CASES {
        println!("{name}");
        case(Arc::new(MemoryLog::new(LogId(7), BUDGET))).await;
    }
}

#[tokio::test]
async fn file_log_keeps_the_contract() {
    for recent_bytes in [0, 8 << 10, 16 << 20] {
        for (name, case) in CASES {
            println!("{name}, {recent_bytes} bytes in memory");
            let folder = tempfile::tempdir().unwrap();
            let options = LogOptions { segment_bytes: 4 << 10, budget: BUDGET, retain_bytes: 0, recent_bytes, ..LogOptions::default() };
            case(Arc::new(FileLog::open(folder.path(), options).await.unwrap())).await;
        }
    }
}

async fn an_empty_log_has_nothing(log: Log) {
    assert_eq!(log.durable().sequence, Sequence(0));
    assert_eq!((log.last_position(), log.oldest(), log.bytes_behind(Sequence(0))), (None, Sequence(1), 0));
    assert!(log.read_from(Sequence(2)).await.err().unwrap().is(&codes::STATE_LOST));
    assert!(log.read_from(Sequence(0)).await.err().unwrap().is(&codes::STATE_LOST));
    assert_eq!(log.sync().await.unwrap().sequence, Sequence(0));
}

async fn records_come_back_in_order(log: Log) {
    let records = [layout(1, "a"), Record::Begin, change(1, 5), commit(1), progress(2), Record::Begin, Record::Abort];
    for (index, record) in records.iter().enumerate() {
        assert_eq!(log.append(record).unwrap(), Sequence(index as u64 + 1));
    }
    log.sync().await.unwrap();
    let read: Vec<_> = read_all(&*log).await.into_iter().map(|(_, record)| record).collect();
    assert_eq!(read, records);
}

async fn only_durable_records_are_seen(log: Log) {
    log.append(&progress(1)).unwrap();
    log.sync().await.unwrap();
    log.append(&progress(2)).unwrap();
    let mut reader = log.read_from(Sequence(1)).await.unwrap();
    reader.next().await.unwrap();
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), reader.next()).await;
    assert!(early.is_err(), "a record was seen before it was durable");
    log.sync().await.unwrap();
    assert_eq!(reader.next().await.unwrap(), (Sequence(2), progress(2)));
}

async fn a_waiting_reader_is_woken(log: Log) {
    let mut reader = log.read_from(Sequence(1)).await.unwrap();
    let waiting = tokio::spawn(async move { reader.next().await.unwrap() });
    tokio::task::yield_now().await;
    log.append(&progress(1)).unwrap();
    log.sync().await.unwrap();
    assert_eq!(waiting.await.unwrap(), (Sequence(1), progress(1)));
}

async fn a_reader_dropped_while_pending_skips_nothing(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    for number in 0..50 {
        transaction(&*log, 1, number, 20);
    }
    let last = log.sync().await.unwrap().sequence.0;
    let mut reader = log.read_from(Sequence(1)).await.unwrap();
    let mut wanted = 1;
    while wanted <= last {
        // polled once and dropped, again and again
        let polled = tokio::select! { biased; next = reader.next() => Some(next.unwrap()), () = tokio::task::yield_now() => None };
        if let Some((sequence, _)) = polled {
            assert_eq!(sequence.0, wanted);
            wanted += 1;
        } else {
            let (sequence, _) = reader.next().await.unwrap();
            assert_eq!(sequence.0, wanted);
            wanted += 1;
        }
    }
}

async fn records_out_of_order_are_refused(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    for wrong in [commit(1), change(1, 1), Record::Abort] {
        assert!(log.append(&wrong).unwrap_err().is(&codes::INTERNAL));
    }
    log.append(&Record::Begin).unwrap();
    for wrong in [Record::Begin, progress(1)] {
        assert!(log.append(&wrong).unwrap_err().is(&codes::INTERNAL));
    }
    assert_eq!(log.append(&commit(1)).unwrap(), Sequence(3), "what was refused took no sequence");
}

async fn an_unknown_layout_is_refused(log: Log) {
    log.append(&Record::Begin).unwrap();
    assert!(log.append(&change(9, 1)).unwrap_err().is(&codes::INTERNAL));
}

async fn the_durable_position_follows_commit_and_progress(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    transaction(&*log, 1, 1, 1);
    assert_eq!(log.last_position(), None);
    assert_eq!(log.sync().await.unwrap().position, Some(position(1)));
    log.append(&Record::Begin).unwrap();
    assert_eq!(log.sync().await.unwrap().position, Some(position(1)));
    log.append(&Record::Abort).unwrap();
    log.append(&progress(9)).unwrap();
    assert_eq!(log.sync().await.unwrap().position, Some(position(9)));
    assert_eq!(log.last_position(), Some(position(9)));
}

async fn a_reader_begins_with_the_layouts(log: Log) {
    for (id, table) in [(1, "a"), (2, "b"), (3, "a")] {
        log.append(&layout(id, table)).unwrap();
    }
    let mut from = Sequence(0);
    for number in 0..50 {
        from = transaction(&*log, 3, number, 20);
    }
    log.append(&progress(99)).unwrap();
    log.sync().await.unwrap();
    let mut reader = log.read_from(Sequence(from.0 + 1)).await.unwrap();
    let records = read_until(&mut *reader, from.0 + 1).await;
    let (said, rest) = records.split_at(records.len() - 1);
    assert!(said.iter().all(|(sequence, record)| *sequence == from.0 && matches!(record, Record::Layout(_))));
    for needed in [layout(2, "b"), layout(3, "a")] {
        assert!(said.iter().any(|(_, record)| *record == needed));
    }
    assert_eq!(rest, [(from.0 + 1, progress(99))]);
    assert_eq!(log.layouts().iter().map(|layout| layout.id.0).collect::<Vec<_>>(), [2, 3]);
}

async fn an_older_layout_may_still_be_used(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    log.append(&layout(2, "a")).unwrap();
    let mut middle = Sequence(0);
    for number in 0..60 {
        let end = transaction(&*log, 2, number, 10);
        middle = if number == 55 { end } else { middle };
    }
    // streamed before the table changed
    transaction(&*log, 1, 60, 10);
    let last = log.sync().await.unwrap().sequence;
    let mut reader = log.read_from(Sequence(middle.0 + 1)).await.unwrap();
    let mut known = Vec::new();
    for (_, record) in read_until(&mut *reader, last.0).await {
        match record {
            Record::Layout(layout) => known.push(layout.id),
            Record::Changes(batch) => assert!(batch.changes.iter().all(|change| known.contains(&change.layout))),
            _ => {}
        }
    }
    assert_eq!(log.layouts().iter().map(|layout| layout.id.0).collect::<Vec<_>>(), [2], "the newest is still the newest");
}

async fn many_segments_read_as_one(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    for number in 0..200 {
        transaction(&*log, 1, number, 10);
        if number % 7 == 0 {
            log.sync().await.unwrap();
        }
    }
    log.sync().await.unwrap();
    let records = read_all(&*log).await;
    assert!(records.iter().zip(1..).all(|((sequence, _), wanted)| *sequence == wanted));
    assert_eq!(commits(&records), (0..200).map(position).collect::<Vec<_>>());
}

async fn trimmed_records_are_gone_and_said_so(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    for number in 0..200 {
        transaction(&*log, 1, number, 10);
    }
    let last = log.sync().await.unwrap().sequence;
    let before = log.size();
    log.trim(Sequence(last.0 / 2)).await.unwrap();
    let oldest = log.oldest();
    assert!(oldest > Sequence(1) && oldest <= Sequence(last.0 / 2));
    assert!(log.size() < before);
    assert!(log.read_from(Sequence(1)).await.err().unwrap().is(&codes::STATE_LOST));
    let mut reader = log.read_from(oldest).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), (_, Record::Layout(_))));
    assert_eq!(read_until(&mut *reader, last.0).await.len() as u64, last.0 - oldest.0 + 1);
    log.trim(Sequence(last.0 + 1)).await.unwrap();
    assert!(log.read_from(Sequence(last.0 + 1)).await.is_ok());
}

async fn a_reader_overtaken_by_trim_is_told(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    let mut reader = log.read_from(Sequence(1)).await.unwrap();
    for number in 0..500 {
        transaction(&*log, 1, number, 20);
    }
    let last = log.sync().await.unwrap().sequence;
    log.trim(Sequence(last.0 + 1)).await.unwrap();
    let mut wanted = 1;
    // what is still in memory may be given; a gap may not
    let error = loop {
        match reader.next().await {
            Ok((sequence, _)) => assert_eq!(sequence.0, wanted),
            Err(error) => break Some(error),
        }
        wanted += 1;
        if wanted > last.0 {
            break None;
        }
    };
    assert!(error.is_none_or(|error| error.is(&codes::STATE_LOST)));
}

async fn room_waits_for_trim(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    let mut last = Sequence(0);
    let mut number = 0;
    while log.fill() < 1.0 {
        log.room().await.unwrap();
        last = transaction(&*log, 1, number, 100);
        log.sync().await.unwrap();
        number += 1;
    }
    let mut room = Box::pin(log.room());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), &mut room).await.is_err());
    log.trim(Sequence(last.0 + 1)).await.unwrap();
    room.await.unwrap();
    assert!(log.fill() < 1.0);
}

async fn room_does_not_wait_inside_a_transaction(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    log.append(&Record::Begin).unwrap();
    let mut number = 0;
    while log.fill() < 1.5 {
        log.room().await.unwrap();
        log.append(&change(1, number)).unwrap();
        number += 1;
        if number % 1000 == 0 {
            log.sync().await.unwrap();
        }
    }
}

async fn bytes_behind_falls_to_zero(log: Log) {
    log.append(&layout(1, "a")).unwrap();
    for number in 0..100 {
        transaction(&*log, 1, number, 10);
    }
    let last = log.sync().await.unwrap().sequence;
    let (all, half) = (log.bytes_behind(Sequence(0)), log.bytes_behind(Sequence(last.0 / 2)));
    assert!(half > all / 4 && half < all * 3 / 4, "{half} of {all}");
    assert!(log.bytes_behind(Sequence(last.0 - 1)) > 0);
    assert_eq!(log.bytes_behind(last), 0);
}

async fn readers_and_the_writer_work_side_by_side(log: Log) {
    const LAST: u64 = 1 + 300 * 5;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { read_until(&mut *log.read_from(Sequence(1)).await.unwrap(), LAST).await })
        })
        .collect();
    log.append(&layout(1, "a")).unwrap();
    for number in 0..300 {
        transaction(&*log, 1, number, 3);
        if number % 10 == 9 {
            log.sync().await.unwrap();
        }
    }
    for reader in readers {
        let records = reader.await.unwrap();
        assert!(records.iter().zip(1..).all(|((sequence, _), wanted)| *sequence == wanted));
        assert_eq!(commits(&records).len(), 300);
    }
}
