//! Transactions under way.

use godwit_model::TransactionId;

use super::change;
use crate::{Record, Spool, SpoolLimits, Spooled};

const T: TransactionId = TransactionId(100);
const U: TransactionId = TransactionId(200);

async fn drain(mut spooled: Spooled) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = spooled.next().await.unwrap() {
        records.push(record);
    }
    records
}

fn tight() -> SpoolLimits {
    SpoolLimits { transaction_bytes: 500, memory_bytes: 2000 }
}

fn files(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn what_was_pushed_comes_back_in_order_from_memory_and_file() {
    for limits in [SpoolLimits::default(), tight(), SpoolLimits { transaction_bytes: usize::MAX, memory_bytes: 300 }] {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), limits).await.unwrap();
        for number in 0..500 {
            spool.push(T, T, &change(1, number)).await.unwrap();
            spool.push(U, U, &change(1, -number)).await.unwrap();
        }
        assert_eq!(drain(spool.commit(T)).await, (0..500).map(|number| change(1, number)).collect::<Vec<_>>());
        assert_eq!(drain(spool.commit(U)).await, (0..500).map(|number| change(1, -number)).collect::<Vec<_>>());
        spool.remove(T).await.unwrap();
        assert_eq!((spool.len(), drain(spool.commit(T)).await.len()), (1, 0));
        spool.remove(U).await.unwrap();
        assert_eq!((spool.size(), files(folder.path())), (0, 0));
    }
}

#[tokio::test]
async fn an_aborted_part_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), tight()).await.unwrap();
    let (kept, dropped) = (TransactionId(101), TransactionId(102));
    for number in 0..300 {
        let part = [T, kept, dropped][number as usize % 3];
        spool.push(T, part, &change(1, number)).await.unwrap();
    }
    spool.abort(T, dropped).await.unwrap();
    spool.push(T, dropped, &change(1, 999)).await.unwrap();
    let mut wanted: Vec<_> = (0..300).filter(|number| number % 3 != 2).map(|number| change(1, number)).collect();
    wanted.push(change(1, 999));
    assert_eq!(drain(spool.commit(T)).await, wanted);
    spool.abort(T, T).await.unwrap();
    assert_eq!((spool.len(), files(folder.path())), (0, 0));
}

#[tokio::test]
async fn memory_stays_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), tight()).await.unwrap();
    for number in 0..2000u64 {
        spool.push(TransactionId(number % 50), T, &change(1, 1)).await.unwrap();
        assert!(spool.held() <= tight().memory_bytes);
    }
}

#[tokio::test]
async fn opening_and_clearing_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), tight()).await.unwrap();
    for number in 0..200 {
        spool.push(T, T, &change(1, number)).await.unwrap();
    }
    assert_eq!(files(folder.path()), 1);
    let mut spool = Spool::open(folder.path(), tight()).await.unwrap();
    assert_eq!((spool.len(), files(folder.path())), (0, 0));
    for number in 0..200 {
        spool.push(T, T, &change(1, number)).await.unwrap();
    }
    spool.clear().await.unwrap();
    assert_eq!((spool.is_empty(), files(folder.path())), (true, 0));
}
