//! Which tables the target has already.

use std::collections::{HashMap, HashSet};

use godwit_model::{Present, Result, TableName};
use mysql_async::Conn;

use crate::catalog::{self, CatalogTable, by_database, rows, text};
use crate::connect::Server;
use crate::quote;

/// Tables asked for a first row in one statement, which opens them all.
const ASKED_AT_ONCE: usize = 100;

pub(crate) async fn read(conn: &mut Conn, server: &Server, names: &[TableName]) -> Result<Vec<Present>> {
    let tables = catalog::read(conn, server, names).await?;
    let mut with_rows = HashSet::new();
    for some in tables.chunks(ASKED_AT_ONCE) {
        with_rows.extend(having_rows(conn, some).await?);
    }
    let mut referenced = referencing(conn, names).await?;
    let present = tables.into_iter().map(|found| Present {
        has_rows: with_rows.contains(&found.table.name),
        referenced_by: referenced.remove(&found.table.name).unwrap_or_default(),
        table: found.table,
    });
    Ok(present.collect())
}

async fn having_rows(conn: &mut Conn, tables: &[CatalogTable]) -> Result<Vec<TableName>> {
    let one = |(at, table): (usize, &CatalogTable)| {
        format!("SELECT {at} FROM DUAL WHERE EXISTS (SELECT 1 FROM {})", quote::table(&table.table.name))
    };
    let sql = tables.iter().enumerate().map(one).collect::<Vec<_>>().join(" UNION ALL ");
    let mut found = Vec::new();
    for row in rows(conn, sql).await? {
        let at = text(&row, 0)?.parse::<usize>().ok();
        found.extend(at.and_then(|at| tables.get(at)).map(|table| table.table.name.clone()));
    }
    Ok(found)
}

/// Other tables than those asked about, by the table they refer to.
async fn referencing(conn: &mut Conn, names: &[TableName]) -> Result<HashMap<TableName, Vec<TableName>>> {
    let mut found: HashMap<TableName, Vec<TableName>> = HashMap::new();
    let asked = catalog::called(conn, names).await?;
    let own: Vec<TableName> = asked.keys().cloned().collect();
    let databases = quote::list(by_database(&own).into_keys().map(quote::literal));
    if databases.is_empty() {
        return Ok(found);
    }
    let sql = format!(
        "SELECT DISTINCT UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME, CONSTRAINT_SCHEMA, TABLE_NAME \
        FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA IN ({databases}) ORDER BY 3, 4"
    );
    for row in rows(conn, sql).await? {
        let (to, from) = (TableName::new(text(&row, 0)?, text(&row, 1)?), TableName::new(text(&row, 2)?, text(&row, 3)?));
        if let Some(to) = asked.get(&to).filter(|_| !asked.contains_key(&from)) {
            found.entry(TableName::clone(to)).or_default().push(from);
        }
    }
    Ok(found)
}
