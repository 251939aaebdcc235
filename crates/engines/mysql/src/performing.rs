//! Schema steps on a server that commits each DDL by itself.
//!
//! Before a statement runs, the ledger says under the lease which statement of which step is about to run: the intent.
//! Behind the last one, one transaction removes it and writes the step's own entry. A process that finds an intent knows
//! that this very statement may have run, and runs it again: if the server then says that what it makes is there (or what
//! it drops is gone), it was its own. Without an intent of an earlier attempt the same answer is an error, and the intent
//! goes with it.
//!
//! What a statement changed in rows is in one transaction with the intent of the next, and so happens once.

use godwit_model::{Entry, Error, Lease, Result, SchemaItem, codes, failpoint};

use crate::lease;
use crate::script::{Failed, Script, execute};
use crate::writers::Writer;

/// The session is of no further use: steps are a person's too, whose settings end with it.
pub(crate) async fn perform(mut writer: Writer, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
    if items.len() != done.len() {
        return Err(Error::internal("as many entries as steps"));
    }
    for (item, done) in items.iter().zip(done) {
        perform_one(&mut writer, lease, item, done).await?;
    }
    Ok(())
}

async fn perform_one(writer: &mut Writer, lease: &Lease, item: &SchemaItem, done: &Entry) -> Result<()> {
    let key = format!("{}step/{}", lease::OWN, item.id);
    let resumed = resumed_at(writer, lease, &key).await?;
    let gone = Entry { key: key.clone(), value: bytes::Bytes::new() };
    for (place, statement) in item.sql.iter().enumerate().skip(resumed.unwrap_or(0)) {
        let intent = Entry { key: key.clone(), value: place.to_string().into() };
        record(writer, lease, &[intent]).await?;
        failpoint("schema.step.before");
        match run(writer, statement).await {
            Ok(()) => {}
            Err(failed) if resumed == Some(place) && is_there(&failed) => {}
            Err(failed) => {
                let is_refused = failed.number().is_some();
                let error = refused(failed, item);
                if is_refused && !error.is_transient() {
                    execute(writer, "ROLLBACK").await?;
                    record(writer, lease, std::slice::from_ref(&gone)).await?;
                }
                return Err(error);
            }
        }
    }
    record(writer, lease, &[done.clone(), gone]).await?;
    failpoint("schema.step.after");
    Ok(())
}

/// The statement that an earlier attempt was about to run.
async fn resumed_at(writer: &mut Writer, lease: &Lease, key: &str) -> Result<Option<usize>> {
    let Some(value) = lease::own_entry(writer, &lease.task, key).await? else { return Ok(None) };
    let place = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    place
        .map(Some)
        .ok_or_else(|| Error::new(&codes::TARGET_CHANGED, "an entry of the ledger is not as Godwit writes it").at("table godwit.ledger"))
}

/// Commits what is open with these entries.
async fn record(writer: &mut Writer, lease: &Lease, entries: &[Entry]) -> Result<()> {
    let message = writer.message;
    lease::commit(writer, message, lease, entries).await
}

/// In a transaction, which DDL commits before it begins.
async fn run(writer: &mut Writer, statement: &str) -> Result<(), Failed> {
    use mysql_async::prelude::Queryable as _;
    let mut opening = Script::default();
    opening.add("START TRANSACTION");
    opening.run(writer).await?;
    writer.query_drop(statement).await.map_err(|problem| Failed { statement: 0, problem })
}

/// What a statement makes is there already, or what it drops or renames is gone: a database, table, view, column, index,
/// primary key, foreign key, check, routine, trigger, event.
fn is_there(failed: &Failed) -> bool {
    const MADE: [u16; 14] = [1007, 1050, 1060, 1061, 1022, 1068, 1304, 1359, 1537, 1826, 3822, 1813, 4160, 1658];
    const GONE: [u16; 8] = [1008, 1051, 1091, 1176, 1305, 1360, 1539, 3940];
    // 1005 with 121 or 150: a foreign key of that name is there (MariaDB)
    let is_foreign_key =
        matches!(&failed.problem, mysql_async::Error::Server(said) if said.code == 1005 && said.message.contains("errno: 121"));
    failed.number().is_some_and(|number| MADE.contains(&number) || GONE.contains(&number)) || is_foreign_key
}

fn refused(failed: Failed, item: &SchemaItem) -> Error {
    let error = Error::from(failed);
    if !error.is(&codes::CONFLICT) {
        return error.at(item.id.clone());
    }
    let place = item.table.as_ref().map_or_else(|| item.id.clone(), |table| format!("table {table}"));
    Error::new(&codes::KEY_EXISTS, "rows that were loaded share a value of a key or of a unique index")
        .at(place)
        .detail(error.detail_text().unwrap_or_default())
        .effect(format!("the rows stay, and this step was not done: {}", item.id))
        .remedy("look whether someone else writes to the target's table, or whether it takes for equal what the source tells apart; then empty the target's tables and begin anew (`clean`, `run`)")
}
