//! The copy of a table without a key: whole, from one snapshot, or nothing. No key tells the rows that were copied from
//! those that were not, so that a copy whose snapshot is gone begins again on an empty table. Such tables are copied before
//! all others: what begins again with them is little.

use godwit_model::{Entry, Error, Existing, Lease, Result, TableName, Target, codes};

use crate::facts::{self, Facts};
use crate::load::Route;
use crate::setup::Setup;

/// Tables emptied in one transaction: PostgreSQL keeps a lock for each of a table's files until its end.
const EMPTIED_AT_ONCE: usize = 100;

/// A table whose copy is not whole, once the snapshot that it was made from is gone.
pub(crate) fn torn<'r>(facts: &Facts, routes: &'r [Route]) -> Result<Option<&'r TableName>> {
    for route in routes.iter().filter(|route| !route.mapping.has_key()) {
        if !facts.is_copied(&route.table.name)? {
            return Ok(Some(&route.table.name));
        }
    }
    Ok(None)
}

/// Another attempt begins the copy again, but where rows of others may have come to stand beside it.
pub(crate) fn refuse(existing: Existing, facts: &Facts, routes: &[Route]) -> Result<()> {
    match torn(facts, routes)? {
        None => Ok(()),
        Some(_) if existing == Existing::Append && facts.has_plans() => Err(beside_others()),
        Some(table) => Err(interrupted(table)),
    }
}

pub(crate) fn interrupted(table: &TableName) -> Error {
    Error::new(&codes::RETRYABLE, "the copy of a table without a key was interrupted").at(format!("table {table}"))
}

pub(crate) fn rewritten(table: &TableName) -> Error {
    let what = "a table without a key was rewritten at the source while it was copied (TRUNCATE, VACUUM FULL and the like)";
    Error::new(&codes::RETRYABLE, what).at(format!("table {table}")).remedy("its copy begins again; leave it alone until it is whole")
}

pub(crate) fn beside_others() -> Error {
    Error::new(&codes::LOAD_TORN, "a copy beside rows of others cannot be continued")
        .at("target.existing: append")
        .remedy("what was copied can no longer be told from what was there: restore the target's tables and begin anew (`clean`, `run`)")
        .effect("what was copied so far stays in the target")
}

/// Takes the task back to before its snapshot, with the tables that it has, and empties those without a key.
pub(crate) async fn begin_again(target: &dyn Target, lease: &Lease, facts: &Facts, routes: &[Route]) -> Result<()> {
    let (mut begun, mut over_old_rows) = (Vec::new(), facts.is_done("resync"));
    for route in routes {
        if facts.plan(&route.table.name)?.is_some() {
            match route.mapping.has_key() {
                true => over_old_rows = true,
                false => begun.push(route.mapping.target.clone()),
            }
        }
    }
    empty(target, lease, &begun, &facts.begin_again(over_old_rows)).await
}

/// Before a copy over old rows. Emptied in the transaction that says so, because rows are only added after it.
pub(crate) async fn empty_all(setup: &Setup<'_>, facts: &mut Facts, routes: &[Route]) -> Result<()> {
    if !facts.is_done("resync") || facts.is_done("emptied") {
        return Ok(());
    }
    let keyless = routes.iter().filter(|route| !route.mapping.has_key());
    let tables: Vec<_> = keyless.map(|route| route.mapping.target.clone()).collect();
    let done = [facts::done_entry("emptied")];
    empty(setup.target, setup.lease, &tables, &done).await?;
    facts.apply(&done);
    Ok(())
}

/// The entries come with the last tables.
async fn empty(target: &dyn Target, lease: &Lease, tables: &[TableName], entries: &[Entry]) -> Result<()> {
    let last = tables.len().saturating_sub(1) / EMPTIED_AT_ONCE * EMPTIED_AT_ONCE;
    for some in tables[..last].chunks(EMPTIED_AT_ONCE) {
        target.empty(lease, some, false, &[]).await?;
    }
    target.empty(lease, &tables[last..], false, entries).await
}
