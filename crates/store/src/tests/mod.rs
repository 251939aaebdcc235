//! The contract suite, which both logs pass, and what only files can suffer.

mod codec;
mod contract;
mod crash;
mod faults;
mod retention;
mod spool;
mod state;

use std::sync::Arc;

use godwit_model::{ChangeBatch, Layout, LayoutColumn, LayoutId, Micros, Position, Sequence, TableName, Value};

use crate::{ChangeLog, LogReader, Record};

pub(crate) fn layout(id: u32, table: &str) -> Record {
    let column = |name: &str, key| LayoutColumn { name: name.into(), type_name: "text".into(), key };
    let columns = vec![column("id", true), column("name", false)];
    Record::Layout(Arc::new(Layout { id: LayoutId(id), table: TableName::new("public", table), columns, full_old_images: false }))
}

pub(crate) fn change(id: u32, number: i64) -> Record {
    let mut batch = ChangeBatch::default();
    batch.push_insert(LayoutId(id), [Value::Int(number), Value::text(format!("row {number}"))]);
    Record::Changes(batch)
}

pub(crate) fn commit(number: u64) -> Record {
    Record::Commit { position: position(number), time: Micros(number as i64), origin: None }
}

pub(crate) fn progress(number: u64) -> Record {
    Record::Progress { position: position(number) }
}

pub(crate) fn position(number: u64) -> Position {
    Position::from(format!("0/{number}"))
}

/// Appends one transaction of `changes` changes; returns its commit's sequence.
pub(crate) fn transaction(log: &dyn ChangeLog, id: u32, number: u64, changes: u64) -> Sequence {
    log.append(&Record::Begin).unwrap();
    for index in 0..changes {
        log.append(&change(id, (number * 1000 + index) as i64)).unwrap();
    }
    log.append(&commit(number)).unwrap()
}

/// Reads on until this sequence was given.
pub(crate) async fn read_until(reader: &mut dyn LogReader, last: u64) -> Vec<(u64, Record)> {
    let mut records = Vec::new();
    while records.last().is_none_or(|(sequence, _)| *sequence < last) {
        let (sequence, record) = reader.next().await.unwrap();
        records.push((sequence.0, record));
    }
    records
}

/// All records of a log, from its oldest to its durable end.
pub(crate) async fn read_all(log: &dyn ChangeLog) -> Vec<(u64, Record)> {
    let last = log.durable().sequence.0;
    if last < log.oldest().0 {
        return Vec::new();
    }
    read_until(&mut *log.read_from(log.oldest()).await.unwrap(), last).await
}

/// Positions of the commits in these records, after checking that every transaction is whole or aborted.
pub(crate) fn commits(records: &[(u64, Record)]) -> Vec<Position> {
    let mut order = crate::record::TransactionOrder::default();
    let mut positions = Vec::new();
    for (_, record) in records {
        order = order.after(record).unwrap();
        if let Record::Commit { position, .. } = record {
            positions.push(position.clone());
        }
    }
    positions
}
