//! Writes groups into the target: set-based first, then, if the target does not answer as expected, in two slower ways.
//!
//! Whatever goes otherwise than expected was rolled back by the applier before the next way is tried: the whole group set
//! by set; each of its transactions row by row in source order; the failing transaction with its rows deleted and put back
//! as final images (source order alone is not always accepted: constraints that the source checks at the end of a statement
//! or transaction). After that the task stops.
//!
//! In the convergent window there is one more way: a row copied later may hold a unique value that a change puts under
//! another key. That row is right, or becomes it by changes of its own; the one that finds no place is removed and its key
//! goes on the re-read list.

use godwit_model::{Applied, Applier, Error, Group, Mismatch, Result, RowBatch, TableWrite, Value, WriteKind, codes, failpoint};

use crate::assemble::{End, Part};
use crate::coalesce::{Coalesced, Coalescer, Footing, Reread};

/// A group, ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    group: Group,
    pub reread: Vec<Reread>,
    parts: Vec<Part>,
    footing: Footing,
    pub end: Option<End>,
}

/// What to do for one source of changes, whose name goes with every group.
pub(crate) fn prepare(parts: Vec<Part>, end: Option<End>, footing: Footing, origin: &str) -> Result<Prepared> {
    let mut coalescer = Coalescer::new(footing);
    for part in &parts {
        push_all(&mut coalescer, part)?;
    }
    let Coalesced { writes, reread } = coalescer.finish();
    Ok(Prepared { group: Group { writes, origin: origin.to_owned() }, reread, parts, footing, end })
}

/// Writes into the applier's open transaction. An error leaves that transaction worth nothing.
pub(crate) async fn write(applier: &mut dyn Applier, prepared: &mut Prepared) -> Result<()> {
    if prepared.group.writes.is_empty() {
        return Ok(());
    }
    match applier.apply(&prepared.group).await? {
        Applied::AsExpected => {}
        Applied::Unexpected(_) | Applied::Refused(_) => {
            tracing::info!("a group was not accepted as a whole, going transaction by transaction");
            let mut again = Vec::new();
            for part in &prepared.parts {
                again.append(&mut write_transaction(applier, part, prepared).await?);
            }
            prepared.reread.append(&mut again);
        }
    }
    failpoint("apply.group.written");
    Ok(())
}

/// Gives the keys to read again: change by change there are more of them than in a group, where an incomplete image may
/// find a full one of the same key before it.
async fn write_transaction(applier: &mut dyn Applier, part: &Part, prepared: &Prepared) -> Result<Vec<Reread>> {
    let origin = &prepared.group.origin;
    let Coalesced { writes, reread } = in_source_order(part, prepared.footing)?;
    let ordered = Group { writes, origin: origin.clone() };
    let first = match applier.apply(&ordered).await? {
        Applied::AsExpected => return Ok(reread),
        other => complaint(&ordered, other),
    };
    let Some(writes) = as_final_images(part, prepared.footing)? else { return Err(first) };
    match applier.apply(&Group { writes, origin: origin.clone() }).await? {
        Applied::AsExpected => Ok(reread),
        _ if prepared.footing != Footing::Strict => yielding(applier, ordered, reread).await,
        _ => Err(first),
    }
}

/// One write after the other. A row whose place at the target is taken gives way, and is read again.
async fn yielding(applier: &mut dyn Applier, ordered: Group, mut reread: Vec<Reread>) -> Result<Vec<Reread>> {
    for write in ordered.writes {
        let taken = removed(&write).or_else(|| keys_of_update(&write));
        let single = Group { writes: vec![write], origin: ordered.origin.clone() };
        let (refused, keys) = match (applier.apply(&single).await?, taken) {
            (Applied::AsExpected, _) => continue,
            (Applied::Refused(error), Some(keys)) if error.is(&codes::CONFLICT) => (error, keys),
            (other, _) => return Err(complaint(&single, other)),
        };
        reread.extend(keys.rows.rows().map(|key| Reread { mapping: keys.mapping.clone(), key: key.to_vec() }));
        match applier.apply(&Group { writes: vec![keys], origin: single.origin }).await? {
            Applied::AsExpected => {}
            _ => return Err(refused),
        }
    }
    Ok(reread)
}

fn push_all<'a>(coalescer: &mut Coalescer<'a>, part: &'a Part) -> Result<()> {
    part.changes().try_for_each(|(projection, batch, change)| coalescer.push(projection, batch, change))
}

/// Every change a write of its own.
fn in_source_order(part: &Part, footing: Footing) -> Result<Coalesced> {
    let mut all = Coalesced::default();
    for (projection, batch, change) in part.changes() {
        let mut single = Coalescer::new(footing);
        single.push(projection, batch, change)?;
        let Coalesced { writes, reread } = single.finish();
        all.writes.extend(writes);
        all.reread.extend(reread);
    }
    Ok(all)
}

/// All rows the transaction touched deleted, then put as they are at its end. None: an image is not known in full.
fn as_final_images(part: &Part, footing: Footing) -> Result<Option<Vec<TableWrite>>> {
    let mut coalescer = Coalescer::new(footing);
    push_all(&mut coalescer, part)?;
    let writes = coalescer.finish().writes;
    if footing != Footing::Strict {
        // nothing is counted there: whatever holds a place goes first, the writes then run in their own order
        return Ok(Some(writes.iter().filter_map(removed).chain(writes.iter().cloned()).collect()));
    }
    let (mut deletes, mut inserts) = (Vec::new(), Vec::new());
    for write in writes {
        match write.kind {
            WriteKind::Delete => deletes.push(write),
            WriteKind::Insert | WriteKind::Upsert => inserts.push(write),
            WriteKind::Update => match split_update(&write) {
                Some((delete, insert)) => {
                    deletes.push(delete);
                    inserts.push(insert);
                }
                None => return Ok(None),
            },
            WriteKind::DeleteWhole | WriteKind::UpdateWhole | WriteKind::Truncate => return Ok(None),
        }
    }
    deletes.append(&mut inserts);
    Ok(Some(deletes))
}

/// The rows that an upsert puts, by their keys.
fn removed(write: &TableWrite) -> Option<TableWrite> {
    let mapping = &write.mapping;
    if write.kind != WriteKind::Upsert {
        return None;
    }
    let places: Vec<usize> =
        mapping.key.iter().map(|index| write.columns.iter().position(|there| there == index)).collect::<Option<_>>()?;
    let mut keys = RowBatch::new(places.len());
    write.rows.rows().for_each(|row| keys.push(places.iter().map(|place| row[*place].clone())));
    Some(TableWrite { kind: WriteKind::Delete, columns: Vec::new(), rows: keys, ..write.clone() })
}

/// The rows that an update of known columns changes, by their keys.
fn keys_of_update(write: &TableWrite) -> Option<TableWrite> {
    if write.kind != WriteKind::Update {
        return None;
    }
    let width = write.mapping.key.len();
    let mut keys = RowBatch::new(width);
    write.rows.rows().for_each(|row| keys.push(row[..width].iter().cloned()));
    Some(TableWrite { kind: WriteKind::Delete, columns: Vec::new(), rows: keys, ..write.clone() })
}

fn split_update(write: &TableWrite) -> Option<(TableWrite, TableWrite)> {
    let mapping = &write.mapping;
    let key_width = mapping.key.len();
    let complete = (0..mapping.columns.len()).all(|index| mapping.key.contains(&index) || write.columns.contains(&index));
    if !complete {
        return None;
    }
    let (mut keys, mut rows) = (RowBatch::new(key_width), RowBatch::new(mapping.columns.len()));
    for row in write.rows.rows() {
        let (key, new) = row.split_at(key_width);
        keys.push(key.iter().cloned());
        rows.push((0..mapping.columns.len()).map(|index| final_value(write, key, new, index)));
    }
    let delete = TableWrite { kind: WriteKind::Delete, columns: Vec::new(), rows: keys, ..write.clone() };
    let insert = TableWrite { kind: WriteKind::Insert, columns: (0..mapping.columns.len()).collect(), rows, ..write.clone() };
    Some((delete, insert))
}

fn final_value(write: &TableWrite, key: &[Value], new: &[Value], column: usize) -> Value {
    let set = write.columns.iter().position(|there| *there == column).map(|index| &new[index]);
    let kept = || write.mapping.key.iter().position(|there| *there == column).map(|index| &key[index]);
    set.or_else(kept).cloned().unwrap_or_default()
}

/// Why the task stops. The key stands in the detail, which only a person's terminal shows.
fn complaint(group: &Group, applied: Applied) -> Error {
    match applied {
        Applied::Refused(error) => error.effect("the transaction with this change was not applied, and none after it"),
        Applied::Unexpected(Mismatch { write, expected, touched }) => {
            let Some(write) = group.writes.get(write) else { return Error::internal("a mismatch names no write") };
            let verb = verb(write.kind);
            let key = write.rows.rows().next().map(|row| format!("{:?}", &row[..write.mapping.key.len().min(row.len())]));
            Error::new(&codes::CONFLICT, format!("a change that {verb} {expected} row touched {touched}"))
                .at(format!("target table {}", write.mapping.target))
                .detail(format!("key ({}) = {}", write.mapping.key_targets().join(", "), key.unwrap_or_default()))
                .remedy("someone else wrote to the target, or it lost rows: find out who, mend it with `verify --repair`, then go on with `run`")
                .effect("the transaction with this change was not applied, and none after it")
        }
        Applied::AsExpected => Error::internal("a write that went as expected was taken for a failure"),
    }
}

fn verb(kind: WriteKind) -> &'static str {
    match kind {
        WriteKind::Insert | WriteKind::Upsert => "inserts",
        WriteKind::Update | WriteKind::UpdateWhole => "updates",
        WriteKind::Delete | WriteKind::DeleteWhole => "deletes",
        WriteKind::Truncate => "truncates",
    }
}
