//! The copy of a table without a key: whole, from one snapshot, or nothing. No key tells the rows that were copied from
//! those that were not, so that a copy whose snapshot is gone begins again on an empty table. Such tables are copied before
//! all others: what begins again with them is little.

use godwit_model::{Entry, Error, Result, TableName, codes};

use crate::facts::{self, Facts};
use crate::load::Route;
use crate::setup::Setup;

/// A table whose copy is not whole, once the snapshot that it was made from is gone.
pub(crate) fn torn<'r>(facts: &Facts, routes: &'r [Route]) -> Result<Option<&'r TableName>> {
    for route in routes.iter().filter(|route| !route.mapping.has_key()) {
        if !facts.is_copied(&route.table.name)? {
            return Ok(Some(&route.table.name));
        }
    }
    Ok(None)
}

/// Another attempt begins the copy again.
pub(crate) fn refuse(facts: &Facts, routes: &[Route]) -> Result<()> {
    match torn(facts, routes)? {
        None => Ok(()),
        Some(_) if facts.is_beside_strangers()? => Err(beside_strangers()),
        Some(table) => Err(interrupted(table)),
    }
}

pub(crate) fn interrupted(table: &TableName) -> Error {
    Error::new(&codes::RETRYABLE, "the copy of a table without a key was interrupted").at(format!("table {table}"))
}

pub(crate) fn beside_strangers() -> Error {
    Error::new(&codes::LOAD_TORN, "a copy beside rows that were there before cannot be continued")
        .at("target.existing: append")
        .remedy("what was copied can no longer be told from what was there: restore the target's tables and begin anew (`clean`, `run`)")
        .effect("what was copied so far stays in the target")
}

/// Entries with which the task begins again where only tables without a key were copied, and anew where others were too.
pub(crate) fn begin_again(facts: &Facts, routes: &[Route]) -> Result<Vec<Entry>> {
    for route in routes.iter().filter(|route| route.mapping.has_key()) {
        if facts.plan(&route.table.name)?.is_some() {
            return Ok(facts.begin_anew());
        }
    }
    Ok(if facts.is_done("resync") { facts.begin_anew() } else { facts.begin_again() })
}

/// Before a copy over old rows. Emptied in the transaction that says so, because rows are only added after it.
pub(crate) async fn empty(setup: &Setup<'_>, facts: &mut Facts, routes: &[Route]) -> Result<()> {
    if !(facts.is_done("resync") || facts.is_done("torn")) || facts.is_done("emptied") {
        return Ok(());
    }
    let keyless = routes.iter().filter(|route| !route.mapping.has_key());
    let tables: Vec<_> = keyless.map(|route| route.mapping.target.clone()).collect();
    let done = facts::done_entry("emptied");
    setup.target.empty(setup.lease, &tables, false, &done).await?;
    facts.apply(&[done]);
    Ok(())
}
