//! Which tables the target has already.

use godwit_model::{Present, Result, TableName};
use tokio_postgres::Client;

use crate::{error, quote, schema};

pub(crate) async fn read(client: &Client, names: &[TableName]) -> Result<Vec<Present>> {
    let mut present = Vec::new();
    for found in schema::read_named(client, names).await? {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", quote::table(&found.table.name));
        let has_rows = client.query_one(&sql, &[]).await.map_err(error::from_server)?.get(0);
        let referenced_by = referencing(client, found.oid).await?.into_iter().filter(|name| !names.contains(name)).collect();
        present.push(Present { table: found.table, has_rows, referenced_by });
    }
    Ok(present)
}

async fn referencing(client: &Client, table: u32) -> Result<Vec<TableName>> {
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text
        FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE f.contype = 'f' AND f.confrelid = $1 AND f.conrelid <> $1 AND NOT c.relispartition ORDER BY 1, 2";
    let rows = client.query(sql, &[&table]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
