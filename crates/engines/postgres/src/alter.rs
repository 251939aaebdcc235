//! Gives a target table other columns, inside the caller's transaction.

use godwit_model::{Alteration, ColumnMapping, Error, Result, TableName, Value, codes};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::{error, quote};

const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod), atthasdef OR attidentity <> '' FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// A reader of the target is not kept waiting behind us for longer; the attempt is made again.
const LOCK_PATIENCE: &str = "SET LOCAL lock_timeout = '10s'";

struct Present {
    name: String,
    type_name: String,
    fills_itself: bool,
}

pub(crate) async fn perform(client: &Client, alteration: &Alteration<'_>) -> Result<()> {
    let table = &alteration.after.target;
    client.batch_execute(LOCK_PATIENCE).await.map_err(error::from_server)?;
    let there = present(client, table).await?;
    let kept = |column: &&ColumnMapping| alteration.after.columns.iter().any(|other| other.target == column.target);
    for gone in alteration.before.columns.iter().filter(|column| !kept(column)) {
        if there.iter().any(|column| column.name == gone.target) {
            let sql = format!("ALTER TABLE {} DROP COLUMN {}", quote::table(table), quote::identifier(&gone.target));
            execute(client, table, &gone.target, &sql).await?;
        }
    }
    for column in &alteration.after.columns {
        let known = alteration.before.columns.iter().find(|other| other.target == column.target);
        let asked = known.is_some_and(|known| known.type_name != column.type_name);
        match there.iter().find(|there| there.name == column.target) {
            None => add(client, table, column, fill(alteration, column)).await?,
            Some(there) if asked && there.type_name != column.type_name => retype(client, table, column, there).await?,
            Some(_) => {}
        }
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
    if there.fills_itself {
        execute(client, table, &column.target, &format!("ALTER TABLE {target} ALTER COLUMN {name} DROP IDENTITY IF EXISTS")).await?;
        execute(client, table, &column.target, &format!("ALTER TABLE {target} ALTER COLUMN {name} DROP DEFAULT")).await?;
    }
    let turned = format!("ALTER TABLE {target} ALTER COLUMN {name} TYPE {wanted} USING {name}::text::{wanted}");
    client.batch_execute("SAVEPOINT godwit_turn").await.map_err(error::from_server)?;
    let Err(problem) = client.batch_execute(&turned).await else {
        return client.batch_execute("RELEASE SAVEPOINT godwit_turn").await.map_err(error::from_server);
    };
    let class = problem.code().and_then(|state| state.code().get(..2)).unwrap_or_default().to_owned();
    if !matches!(class.as_str(), "22" | "42") {
        return Err(refused(table, &column.target, problem));
    }
    client.batch_execute("ROLLBACK TO SAVEPOINT godwit_turn").await.map_err(error::from_server)?;
    let emptied = format!("ALTER TABLE {target} DROP COLUMN {name}; ALTER TABLE {target} ADD COLUMN {name} {wanted}");
    execute(client, table, &column.target, &emptied).await
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
