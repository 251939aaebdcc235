//! Schema steps: many in one transaction, with their entries and the proof of the lease.
//!
//! All statements travel as one text, so that a thousand tables cost some round trips and not thousands. Where the server
//! refuses one of them, they are sent again one by one, so that the error names the step.

use godwit_model::{Entry, Error, Lease, Result, SchemaItem, codes};
use tokio_postgres::Client;

use crate::{error, lease, writer};

/// Steps come from `pg_dump` and from us alike: nothing may be looked up by a path, and a function may speak of tables
/// that are made later.
///
/// A server's `maintenance_work_mem` is made for sessions that share it with users; an index of a table that was just
/// loaded may take what a quarter of the shared buffers is, which says how large the server is meant to be.
///
/// A table that was just loaded is what autovacuum looks at next. It gives way to a step that waits for its lock, but only
/// when the wait is examined for a deadlock: a second later, or sooner where the role may say so.
const BEGIN: &str = "BEGIN; SET LOCAL search_path TO ''; SET LOCAL check_function_bodies = off; SET LOCAL xmloption = content; \
    SELECT set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')), \
    least(pg_size_bytes(current_setting('shared_buffers')) / 4, 1073741824)) / 1024 || 'kB', true); \
    SELECT set_config('deadlock_timeout', '10ms', true) WHERE current_setting('is_superuser') = 'on'";

/// A session whose transaction this leaves open on an error must not be used again.
pub(crate) async fn perform(client: &Client, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
    match (run(client, lease, items).await, items) {
        (Ok(()), _) => {}
        (Err(problem), [item]) => return Err(refused(problem, item)),
        (Err(problem), _) if problem.code().is_none() => return Err(error::from_server(problem)),
        (Err(_), _) => {
            client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
            run_one_by_one(client, lease, items).await?;
        }
    }
    lease::commit_with(client, lease, done).await
}

/// Opens a transaction for steps.
pub(crate) fn begin(lease: &Lease) -> String {
    format!("{BEGIN}; {}", writer::provenance(lease, ""))
}

/// The line's end behind each statement ends a comment that it may end with.
async fn run(client: &Client, lease: &Lease, items: &[&SchemaItem]) -> Result<(), tokio_postgres::Error> {
    let mut text = begin(lease);
    for statement in items.iter().flat_map(|item| &item.sql) {
        text.push_str(";\n");
        text.push_str(statement);
    }
    client.batch_execute(&text).await
}

async fn run_one_by_one(client: &Client, lease: &Lease, items: &[&SchemaItem]) -> Result<()> {
    client.batch_execute(&begin(lease)).await.map_err(error::from_server)?;
    for item in items {
        for statement in &item.sql {
            client.batch_execute(statement).await.map_err(|problem| refused(problem, item))?;
        }
    }
    Ok(())
}

fn refused(problem: tokio_postgres::Error, item: &SchemaItem) -> Error {
    if !writer::is_unique_violation(&problem) {
        return error::from_server(problem).at_least_at(|| item.id.clone());
    }
    let kept = writer::refusal(problem).detail_text().unwrap_or_default().to_owned();
    let place = item.table.as_ref().map_or_else(|| item.id.clone(), |table| format!("table {table}"));
    Error::new(&codes::KEY_EXISTS, "a row that is loaded meets a key that the target already holds")
        .at(place)
        .detail(kept)
        .effect(format!("the rows stay, and this step was not done: {}", item.id))
        .remedy("look whether someone else writes to the target's table, or whether it takes for equal what the source tells apart; then empty the target's tables and begin anew (`clean`, `run`)")
}
