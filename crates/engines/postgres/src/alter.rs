//! Gives a target table other columns, inside the caller's transaction.

use godwit_model::{Alteration, ColumnMapping, Error, Result, TableName, Value, codes};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::{error, quote};

const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod), atthasdef OR attidentity <> '' FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// A reader of the target is not kept waiting behind us for longer; the attempt is made again.
pub(crate) const LOCK_PATIENCE: &str = "SET LOCAL lock_timeout = '10s'";

struct Present {
    name: String,
    type_name: String,
    fills_itself: bool,
}

pub(crate) async fn perform(client: &Client, alteration: &Alteration<'_>) -> Result<()> {
    let table = &alteration.after.target;
    client.batch_execute(LOCK_PATIENCE).await.map_err(error::from_server)?;
    let mut there = present(client, table).await?;
    for gone in alteration.gone() {
        if there.iter().any(|column| column.name == gone.target) {
            let sql = format!("ALTER TABLE {} DROP COLUMN {}", quote::table(table), quote::identifier(&gone.target));
            execute(client, table, &gone.target, &sql).await?;
        }
    }
    for (old, new) in alteration.moved() {
        rename(client, table, &mut there, old, new).await?;
    }
    for column in &alteration.after.columns {
        let known = alteration.known(column);
        let asked = known.is_some_and(|known| known.type_name != column.type_name);
        match there.iter().find(|there| there.name == column.target) {
            None => add(client, table, column, fill(alteration, column)).await?,
            Some(there) if asked && there.type_name != column.type_name => retype(client, table, column, there).await?,
            Some(_) => {}
        }
    }
    Ok(())
}

/// A person may have done it before.
async fn rename(client: &Client, table: &TableName, there: &mut [Present], old: &str, new: &str) -> Result<()> {
    let is_there = |name: &str| there.iter().any(|column| column.name == name);
    if is_there(new) && is_there(old) {
        let what = format!("column `{old}` is `{new}` at the source now, and the target has columns of both names");
        return Err(Error::new(&codes::DDL_STOPPED, what)
            .at(format!("table {table}"))
            .remedy(format!("rename or drop the target's own column `{new}`, then `run`"))
            .effect("every transaction before that is applied, none after it"));
    }
    if is_there(new) {
        return Ok(());
    }
    if let Some(column) = there.iter_mut().find(|column| column.name == old) {
        let sql = format!("ALTER TABLE {} RENAME COLUMN {} TO {}", quote::table(table), quote::identifier(old), quote::identifier(new));
        execute(client, table, old, &sql).await?;
        new.clone_into(&mut column.name);
    }
    Ok(())
}

async fn present(client: &Client, table: &TableName) -> Result<Vec<Present>> {
    let rows = client.query(COLUMNS, &[&quote::table(table)]).await.map_err(error::from_server)?;
    if rows.is_empty() {
        return Err(Error::new(&codes::TABLE_MISSING, format!("the target has no table {table}")).at(format!("table {table}")));
    }
    Ok(rows.iter().map(|row| Present { name: row.get(0), type_name: row.get(1), fills_itself: row.get(2) }).collect())
}

fn fill<'a>(alteration: &'a Alteration<'_>, column: &ColumnMapping) -> Option<&'a [u8]> {
    match &alteration.fills.iter().find(|(name, _)| *name == column.source)?.1 {
        Value::Native(text) | Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A constant default fills rows without writing one; it goes again, because what users may rely on comes from the source.
async fn add(client: &Client, table: &TableName, column: &ColumnMapping, fill: Option<&[u8]>) -> Result<()> {
    let (name, target) = (quote::identifier(&column.target), quote::table(table));
    let mut sql = format!("ALTER TABLE {target} ADD COLUMN {name} {}", column.type_name);
    if let Some(fill) = fill {
        let literal = quote::literal(&String::from_utf8_lossy(fill));
        sql.push_str(&format!(" DEFAULT {literal}; ALTER TABLE {target} ALTER COLUMN {name} DROP DEFAULT"));
    }
    execute(client, table, &column.target, &sql).await
}

/// Values are turned by their text where the types have no cast. What cannot be turned is emptied: the window that such a
/// change opens reads it from the source.
async fn retype(client: &Client, table: &TableName, column: &ColumnMapping, there: &Present) -> Result<()> {
    let (name, target, wanted) = (quote::identifier(&column.target), quote::table(table), &column.type_name);
    if is_stored_alike(&there.type_name, wanted) {
        // without an expression the server need not write a row anew
        let plain = format!("ALTER TABLE {target} ALTER COLUMN {name} TYPE {wanted}");
        if attempt(client, table, column, &plain).await? {
            return Ok(());
        }
    }
    if there.fills_itself {
        execute(client, table, &column.target, &format!("ALTER TABLE {target} ALTER COLUMN {name} DROP IDENTITY IF EXISTS")).await?;
        execute(client, table, &column.target, &format!("ALTER TABLE {target} ALTER COLUMN {name} DROP DEFAULT")).await?;
    }
    let turned = format!("ALTER TABLE {target} ALTER COLUMN {name} TYPE {wanted} USING {name}::text::{wanted}");
    if attempt(client, table, column, &turned).await? {
        return Ok(());
    }
    let emptied = format!("ALTER TABLE {target} DROP COLUMN {name}; ALTER TABLE {target} ADD COLUMN {name} {wanted}");
    execute(client, table, &column.target, &emptied).await
}

/// False: the values or types do not allow it, and nothing is done.
async fn attempt(client: &Client, table: &TableName, column: &ColumnMapping, sql: &str) -> Result<bool> {
    client.batch_execute("SAVEPOINT godwit_turn").await.map_err(error::from_server)?;
    let Err(problem) = client.batch_execute(sql).await else {
        client.batch_execute("RELEASE SAVEPOINT godwit_turn").await.map_err(error::from_server)?;
        return Ok(true);
    };
    let class = problem.code().and_then(|state| state.code().get(..2)).unwrap_or_default().to_owned();
    if !matches!(class.as_str(), "22" | "42") {
        return Err(refused(table, &column.target, problem));
    }
    client.batch_execute("ROLLBACK TO SAVEPOINT godwit_turn").await.map_err(error::from_server)?;
    Ok(false)
}

/// As the source's look judges types, by the names that DDL has for them.
fn is_stored_alike(old: &str, new: &str) -> bool {
    let base = |kind: &str| kind.split('(').next().unwrap_or_default().to_owned();
    let text = |kind: &str| matches!(base(kind).as_str(), "character varying" | "text");
    // brackets stand in the middle of some (timestamp(3) with time zone), and an array's elements are no text
    let plain = |kind: &str| !kind.ends_with("[]") && kind.rfind(')').is_none_or(|end| end + 1 == kind.len());
    plain(old) && plain(new) && (base(old) == base(new) || (text(old) && text(new)))
}

async fn execute(client: &Client, table: &TableName, column: &str, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(|problem| refused(table, column, problem))
}

fn refused(table: &TableName, column: &str, problem: tokio_postgres::Error) -> Error {
    let depends =
        problem.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) || problem.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED);
    let told = error::from_server(problem);
    if told.is_transient() {
        return told;
    }
    let what = if depends { "an object of the target depends on it" } else { "the target refused" };
    let remedy = "make the same change at the target by hand (a view or an index that depends on the column is dropped first and made anew), then run again";
    let mut error =
        Error::new(&codes::DDL_STOPPED, format!("column `{column}` could not be altered at the target: {what}: {}", told.what()))
            .at(format!("target table {table}"))
            .remedy(remedy)
            .effect("every transaction before the schema change is applied, none after it");
    if let Some(detail) = told.detail_text() {
        error = error.detail(detail);
    }
    error
}
