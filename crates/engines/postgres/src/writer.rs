//! What every session that writes to a target is made ready with, and how the server's refusals of a write are told
//! from troubles of the connection.
//!
//! Foreign keys and users' triggers do not fire for a writer that has the right to `session_replication_role`; without
//! it the target keeps none of them until the task is finished. Every transaction of ours begins with a logical message
//! that says so: the provenance that any role may leave, and that many sessions may leave at once, which a replication
//! origin allows to a single session only.

use godwit_model::{Error, Lease, Result, codes};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::leftover::Claim;
use crate::{error, names, quote};

/// Opens a transaction under a lease and says whose it is: to those who read the log, and to who takes the lease next.
pub(crate) fn begin(lease: &Lease, origin: &str) -> String {
    format!("BEGIN; {}", provenance(lease, origin))
}

/// The statement that says so, first in an open transaction.
pub(crate) fn provenance(lease: &Lease, origin: &str) -> String {
    let mark = quote::literal(&format!("{} {origin}", lease.task));
    format!("SELECT pg_logical_emit_message(true, '{}', {mark}), {}", names::PROVENANCE, Claim::of_writer(lease).sql())
}

/// Makes commits durable whatever the role's own setting is, and turns foreign keys and users' triggers off for this
/// session; false where the role lacks the right to the latter.
pub(crate) async fn prepare(client: &Client) -> Result<bool> {
    client.batch_execute("SET synchronous_commit = on").await.map_err(error::from_server)?;
    match client.batch_execute("SET session_replication_role = replica").await {
        Ok(()) => Ok(true),
        Err(problem) if problem.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(problem) => Err(error::from_server(problem)),
    }
}

/// Whether the server understood a write and will not have it; everything else ends the transaction's use.
pub(crate) fn is_refusal(problem: &tokio_postgres::Error) -> bool {
    let Some(state) = problem.code() else { return false };
    let class = state.code().get(..2).unwrap_or_default();
    matches!(class, "22" | "23" | "42" | "44" | "54" | "P0" | "0A")
}

/// The error of a refused write: `CONFLICT` where a unique value is taken, `VALUE_REFUSED` where a value is not accepted. What the server says of it may hold values, so it stands in the detail alone.
pub(crate) fn refusal(problem: tokio_postgres::Error) -> Error {
    let class = problem.code().and_then(|state| state.code().get(..2)).unwrap_or_default();
    let Some(server) = problem.as_db_error().filter(|_| matches!(class, "22" | "23" | "44" | "P0")) else {
        return error::from_server(problem);
    };
    let mut what = format!("the target refused a write (SQLSTATE {})", server.code().code());
    for (word, name) in [("column", server.column()), ("constraint", server.constraint())] {
        if let Some(name) = name {
            what.push_str(&format!(", {word} {name}"));
        }
    }
    let place = server.schema().zip(server.table()).map(|(schema, table)| format!("table {schema}.{table}"));
    let detail = format!("{} {}", server.message(), server.detail().unwrap_or_default());
    let is_there = matches!(*server.code(), SqlState::UNIQUE_VIOLATION | SqlState::EXCLUSION_VIOLATION);
    let (code, remedy) = if is_there {
        (
            &codes::CONFLICT,
            "another row of the target holds this value: one that is not the source's must go by hand, others are mended by `verify --repair`",
        )
    } else {
        (&codes::VALUE_REFUSED, "look at the row at the source and at the target's constraint")
    };
    let error = Error::new(code, what).detail(detail.trim_end()).remedy(remedy);
    match place {
        Some(place) => error.at(place),
        None => error,
    }
}

pub(crate) fn is_unique_violation(problem: &tokio_postgres::Error) -> bool {
    problem.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

pub(crate) fn is_division_by_zero(problem: &tokio_postgres::Error) -> bool {
    problem.code() == Some(&SqlState::DIVISION_BY_ZERO)
}
