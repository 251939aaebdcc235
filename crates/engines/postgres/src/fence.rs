//! Shutting users out of writing to tables of the source, and letting them in again.
//!
//! One transaction takes every table's EXCLUSIVE lock (so that writers under way end first) and revokes the rights to
//! write, owners' own rights too. What was revoked is kept as statements in `godwit.read_only`, in the same transaction,
//! and given back from there. Superusers pass, and so do rights on single columns and SECURITY DEFINER functions of
//! roles that keep theirs.

use std::sync::Arc;
use std::time::Duration;

use godwit_model::{Error, Result, Table, TaskName, codes};
use tokio_postgres::Client;

use crate::{error, quote};

/// Users' work comes first: a lock that is not there at once is given up and asked for again.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

const KEEP: &str = "
CREATE SCHEMA IF NOT EXISTS godwit;
CREATE TABLE IF NOT EXISTS godwit.read_only (task text NOT NULL, statement text NOT NULL)";

/// Rights to write, of whoever has them; no list at all means the owner has all.
const WRITERS: &str = "
SELECT n.nspname::text, c.relname::text, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
       string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type), g.is_grantable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) g
WHERE c.oid IN (SELECT t.oid FROM unnest($1::text[]) AS w(name), LATERAL (
        SELECT to_regclass(w.name)::oid AS oid UNION SELECT relid FROM pg_partition_tree(to_regclass(w.name))) t)
  AND g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
GROUP BY 1, 2, 3, 5 ORDER BY 1, 2, 3, 5";

pub(crate) async fn close(client: &Client, task: &TaskName, tables: &[Arc<Table>]) -> Result<()> {
    let names: Vec<String> = tables.iter().map(|table| quote::table(&table.name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        match try_close(client, task, &names).await {
            Err(error) if error.is_transient() && attempt < LOCK_ATTEMPTS => {
                client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
                // Nothing tells when a lock would be granted but waiting in its queue, which would hold users up.
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) if error.is_transient() => {
                return Err(Error::new(&codes::BUSY, "the tables were locked by others all the time")
                    .caused_by(error)
                    .remedy("try again when less goes on"));
            }
            answer => return answer,
        }
    }
}

async fn try_close(client: &Client, task: &TaskName, names: &[String]) -> Result<()> {
    client.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '200ms'; {KEEP}")).await.map_err(error::from_server)?;
    client.batch_execute(&format!("LOCK TABLE {} IN EXCLUSIVE MODE", names.join(", "))).await.map_err(error::from_server)?;
    for row in client.query(WRITERS, &[&names]).await.map_err(error::from_server)? {
        let table = quote::table(&godwit_model::TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)));
        let (role, rights): (&str, &str) = (row.get(2), row.get(3));
        let option = if row.get(4) { " WITH GRANT OPTION" } else { "" };
        let back = format!("GRANT {rights} ON {table} TO {role}{option}");
        let sql = "INSERT INTO godwit.read_only (task, statement) VALUES ($1, $2)";
        client.execute(sql, &[&task.as_str(), &back]).await.map_err(error::from_server)?;
        client.batch_execute(&format!("REVOKE {rights} ON {table} FROM {role}")).await.map_err(error::from_server)?;
    }
    client.batch_execute("COMMIT").await.map_err(error::from_server)
}

pub(crate) async fn open(client: &Client, task: &TaskName) -> Result<()> {
    if !is_closed(client, task).await? {
        return Ok(());
    }
    client.batch_execute("BEGIN").await.map_err(error::from_server)?;
    let sql = "DELETE FROM godwit.read_only WHERE task = $1 RETURNING statement";
    for row in client.query(sql, &[&task.as_str()]).await.map_err(error::from_server)? {
        client.batch_execute(row.get(0)).await.map_err(error::from_server)?;
    }
    client.batch_execute("COMMIT").await.map_err(error::from_server)
}

pub(crate) async fn is_closed(client: &Client, task: &TaskName) -> Result<bool> {
    if !kept(client).await? {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT FROM godwit.read_only WHERE task = $1)";
    Ok(client.query_one(sql, &[&task.as_str()]).await.map_err(error::from_server)?.get(0))
}

/// Forgets what could be given back: the source stays closed, which is what a finished migration wants.
pub(crate) async fn forget(client: &Client, task: &TaskName) -> Result<()> {
    if !kept(client).await? {
        return Ok(());
    }
    client.execute("DELETE FROM godwit.read_only WHERE task = $1", &[&task.as_str()]).await.map_err(error::from_server)?;
    let others: bool = client.query_one("SELECT EXISTS (SELECT FROM godwit.read_only)", &[]).await.map_err(error::from_server)?.get(0);
    if others {
        return Ok(());
    }
    client.batch_execute("DROP TABLE godwit.read_only").await.map_err(error::from_server)?;
    let sql =
        "SELECT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('godwit')::oid)";
    if !client.query_one(sql, &[]).await.map_err(error::from_server)?.get::<_, bool>(0) {
        client.batch_execute("DROP SCHEMA IF EXISTS godwit").await.map_err(error::from_server)?;
    }
    Ok(())
}

async fn kept(client: &Client) -> Result<bool> {
    Ok(client.query_one("SELECT to_regclass('godwit.read_only') IS NOT NULL", &[]).await.map_err(error::from_server)?.get(0))
}
