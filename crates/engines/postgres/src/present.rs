//! Which tables the target has already.

use std::collections::{HashMap, HashSet};

use godwit_model::{Present, Result, TableName};
use tokio_postgres::Client;

use crate::schema::CatalogTable;
use crate::{error, quote, schema};

/// Tables asked for a first row in one statement, which locks them all for a moment.
const ASKED_AT_ONCE: usize = 200;

pub(crate) async fn read(client: &Client, names: &[TableName]) -> Result<Vec<Present>> {
    let tables = schema::read_named(client, names).await?;
    let mut with_rows = HashSet::new();
    for some in tables.chunks(ASKED_AT_ONCE) {
        with_rows.extend(having_rows(client, some).await?);
    }
    let asked: HashSet<&TableName> = names.iter().collect();
    let mut referenced = referencing(client, &tables, &asked).await?;
    let present = tables.into_iter().map(|found| Present {
        has_rows: with_rows.contains(&found.oid),
        referenced_by: referenced.remove(&found.oid).unwrap_or_default(),
        table: found.table,
    });
    Ok(present.collect())
}

/// Those of these tables that are there and whose rows this role may not look at.
pub(crate) async fn unreadable(client: &Client, names: &[TableName]) -> Result<Vec<TableName>> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().map(|name| (name.schema.as_str(), name.name.as_str())).unzip();
    let sql = "SELECT n.nspname::text, c.relname::text FROM unnest($1::text[], $2::text[]) w(schema, name)
        JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
        WHERE NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')) ORDER BY 1, 2";
    let rows = client.query(sql, &[&schemas, &tables]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

async fn having_rows(client: &Client, tables: &[CatalogTable]) -> Result<Vec<u32>> {
    let one = |table: &CatalogTable| format!("SELECT {}::oid WHERE EXISTS (SELECT FROM {})", table.oid, quote::table(&table.table.name));
    let sql = tables.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
    let rows = client.query(&sql, &[]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Other tables than those asked about, by the table they refer to.
async fn referencing(client: &Client, tables: &[CatalogTable], asked: &HashSet<&TableName>) -> Result<HashMap<u32, Vec<TableName>>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let sql = "SELECT DISTINCT f.confrelid, n.nspname::text, c.relname::text
        FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE f.contype = 'f' AND f.confrelid = ANY($1) AND f.conrelid <> f.confrelid AND NOT c.relispartition ORDER BY 2, 3";
    let mut by_table: HashMap<u32, Vec<TableName>> = HashMap::new();
    for row in client.query(sql, &[&oids]).await.map_err(error::from_server)? {
        let name = TableName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        if !asked.contains(&name) {
            by_table.entry(row.get(0)).or_default().push(name);
        }
    }
    Ok(by_table)
}
