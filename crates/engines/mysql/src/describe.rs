//! What the source holds of what the task selects, and the steps that make it elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::{Create, Description, Error, NotCarried, Result, SequenceValue, TableMapping, TableName, Task, Value, codes};
use mysql_async::Conn;

use crate::catalog::{self, CatalogTable, rows, text};
use crate::connect::Server;
use crate::ddl::{self, Charset};
use crate::{created, look, quote, rights};

/// How often a description is begun anew when tables are altered while they are read.
const ATTEMPTS: usize = 5;

pub(crate) async fn describe(conn: &mut Conn, server: &Server, task: &Task) -> Result<Description> {
    for _ in 0..ATTEMPTS {
        if let Some(description) = attempt(conn, server, task).await? {
            return Ok(description);
        }
    }
    Err(Error::new(&codes::RETRYABLE, "tables are altered faster than they can be described"))
}

/// None: a table was altered meanwhile. Many answers make one description: stamps before and behind them prove it one.
async fn attempt(conn: &mut Conn, server: &Server, task: &Task) -> Result<Option<Description>> {
    let names = catalog::selected(conn, &task.select, &task.source.database).await?;
    if names.is_empty() {
        rights::must_see(conn, task).await?;
    }
    let stamps = look::stamps(conn, server, &names).await?;
    let tables = catalog::read(conn, server, &names).await?;
    transactional(&tables)?;
    let mappings = TableMapping::resolve_all(&task.map, tables.iter().map(|table| &table.table))?;
    let mut description = Description {
        tables: tables.iter().map(|table| table.table.clone()).collect(),
        looks: tables.iter().map(|table| look::of(table, &stamps)).collect(),
        ..Description::default()
    };
    if makes_tables(task) {
        match make(conn, &tables, &mappings, &mut description).await {
            Err(error) if error.is(&codes::TABLE_MISSING) => return Ok(None),
            made => made?,
        }
    }
    description.not_carried.extend(remainder(conn, task, &names).await?);
    let is_whole = tables.len() == names.len() && tables.iter().all(|table| !table.table.columns.is_empty());
    let is_still = is_whole && look::stamps(conn, server, &names).await? == stamps;
    Ok(is_still.then_some(description))
}

/// Only InnoDB's tables are in a snapshot, and only their changes are taken back with their transaction.
fn transactional(tables: &[CatalogTable]) -> Result<()> {
    let others = tables.iter().filter(|table| table.engine != "InnoDB");
    let named = quote::list(others.map(|table| format!("{} ({})", table.table.name, table.engine)));
    if named.is_empty() {
        return Ok(());
    }
    let what = format!("tables of engines without transactions cannot be copied exactly: {named}");
    Err(Error::new(&codes::TASK_UNSUPPORTED, what).remedy("leave them out of the selection, or ALTER TABLE ... ENGINE = InnoDB"))
}

fn makes_tables(task: &Task) -> bool {
    let is_own = matches!(task.target.engine.as_str(), "mysql" | "mariadb");
    matches!(task.schema.create, Create::All | Create::Tables) && is_own
}

async fn make(conn: &mut Conn, tables: &[CatalogTable], mappings: &[TableMapping], description: &mut Description) -> Result<()> {
    let names: Vec<&TableName> = tables.iter().map(|table| &table.table.name).collect();
    let created = created::read(conn, &names).await?;
    for table in tables {
        whole(table, created.get(&table.table.name))?;
    }
    let databases = databases(conn).await?;
    let steps = ddl::steps(tables, mappings, &created, &databases);
    description.items = steps.items;
    description.not_carried = steps.not_carried;
    Ok(())
}

/// `information_schema` shows the columns that the account may see, the definition all.
fn whole(table: &CatalogTable, created: Option<&created::Created>) -> Result<()> {
    let shown = table.table.columns.iter().map(|column| column.name.as_str());
    match created {
        Some(created) if created.columns.iter().map(|column| column.name.as_str()).eq(shown) => Ok(()),
        _ => Err(Error::new(&codes::RIGHTS_MISSING, "the account sees only some columns of the table")
            .at(format!("table {}", table.table.name))
            .remedy("grant SELECT on the whole table")),
    }
}

async fn databases(conn: &mut Conn) -> Result<BTreeMap<String, Charset>> {
    let sql = "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA";
    let mut found = BTreeMap::new();
    for row in rows(conn, sql.to_owned()).await? {
        found.insert(text(&row, 0)?, Charset { name: text(&row, 1)?, collation: text(&row, 2)? });
    }
    Ok(found)
}

const VIEW: &str = "views are not made by this version: make it at the target";
const CODE: &str = "code that the source's server runs is not carried: make it at the target when the task is finished";

/// What else there is in the databases of the task.
async fn remainder(conn: &mut Conn, task: &Task, tables: &[TableName]) -> Result<Vec<NotCarried>> {
    let mut left = Vec::new();
    for listed in catalog::list(conn, &task.select, &task.source.database).await? {
        let reason = match listed.kind.as_str() {
            "BASE TABLE" => continue,
            "VIEW" => VIEW,
            "SEQUENCE" => "objects of the kind SEQUENCE are not carried: make it at the target when the task is finished",
            "SYSTEM VERSIONED" => "it keeps former rows too, which this version cannot move: its rows are not carried",
            _ => "it is no table with rows of its own",
        };
        left.push(NotCarried { object: format!("{} {}", listed.kind.replace("BASE ", ""), listed.name), reason: reason.to_owned() });
    }
    let mut databases: BTreeSet<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    databases.insert(&task.source.database);
    databases.remove("");
    if databases.is_empty() {
        return Ok(left);
    }
    left.extend(code(conn, &databases, tables).await?);
    Ok(left)
}

async fn code(conn: &mut Conn, databases: &BTreeSet<&str>, tables: &[TableName]) -> Result<Vec<NotCarried>> {
    let list = quote::list(databases.iter().map(|database| quote::literal(database)));
    let sql = format!(
        "SELECT 'TRIGGER', TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA IN ({list}) \
        UNION ALL SELECT ROUTINE_TYPE, ROUTINE_SCHEMA, ROUTINE_NAME, NULL FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA IN ({list}) \
        UNION ALL SELECT 'EVENT', EVENT_SCHEMA, EVENT_NAME, NULL FROM information_schema.EVENTS WHERE EVENT_SCHEMA IN ({list}) \
        ORDER BY 1, 2, 3"
    );
    let mut left = Vec::new();
    for row in rows(conn, sql).await? {
        let name = TableName::new(text(&row, 1)?, text(&row, 2)?);
        let on = catalog::cell(&row, 3)?.map(|table| TableName::new(name.schema.clone(), table));
        if databases.contains(name.schema.as_str()) && on.is_none_or(|table| tables.contains(&table)) {
            left.push(NotCarried { object: format!("{} {name}", text(&row, 0)?), reason: CODE.to_owned() });
        }
    }
    Ok(left)
}

/// The next value of each AUTO_INCREMENT column, under its table's name at the target.
pub(crate) async fn sequences(conn: &mut Conn, server: &Server, task: &Task) -> Result<Vec<SequenceValue>> {
    let names = catalog::selected(conn, &task.select, &task.source.database).await?;
    let mut tables = catalog::read(conn, server, &names).await?;
    tables.retain(|table| table.next_value.is_some());
    let mappings = TableMapping::resolve_all(&task.map, tables.iter().map(|table| &table.table))?;
    let value = |(table, mapping): (CatalogTable, TableMapping)| {
        let next = table.next_value?;
        let last = i64::try_from(next).map_or_else(|_| Value::Native(next.to_string().into()), Value::Int);
        Some(SequenceValue { name: mapping.target, last, called: false })
    };
    Ok(tables.into_iter().zip(mappings).filter_map(value).collect())
}

#[cfg(test)]
mod tests;
