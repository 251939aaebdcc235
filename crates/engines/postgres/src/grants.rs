//! The statements that give a role every right a task needs, and no more, from what the server's catalogs say.
//!
//! A role that may log in reads the catalogs, whatever else it may not; so they can be printed before anything is granted.

use std::collections::BTreeSet;
use std::sync::Arc;

use godwit_model::{Create, EndpointConfig, GrantStatements, Result, Table, TableName, Task, Writes};
use tokio_postgres::Client;

use crate::connect::{self, Session};
use crate::schema::{self, CatalogTable, TableKind};
use crate::{error, establish, names, quote};

/// Roles that give the right to replicate where no superuser is to be had.
const REPLICATION: &str = "REPLICATION; -- where that is refused: GRANT rds_replication (or what the service names) TO";

/// For the source.
pub async fn source_grants(task: &Task, tables: &[TableName]) -> Result<GrantStatements> {
    let session = connect::sql(&task.source, "godwit grants").await?;
    let role = role_of(&session).await?;
    let found = schema::read_named(&session, tables).await?;
    let found: Vec<CatalogTable> = found.into_iter().filter(|table| table.kind != TableKind::Foreign).collect();
    let sequences = schema::sequence_names(&session, task).await?;
    let mut required: Vec<String> = schemas(&found, &sequences)
        .iter()
        .map(|schema| format!("GRANT USAGE ON SCHEMA {} TO {};", quote::identifier(schema), role.quoted))
        .collect();
    for relation in leaves(&session, &found).await? {
        required.push(format!("GRANT SELECT ON TABLE {} TO {};", quote::table(&relation), role.quoted));
    }
    required.extend(sequences.iter().map(|name| format!("GRANT SELECT ON SEQUENCE {} TO {};", quote::table(name), role.quoted)));
    let follows = task.phases.changes;
    if follows && task.writes == Writes::Marker {
        required.push(format!("GRANT CREATE ON DATABASE {} TO {};", quote::identifier(&task.source.database), role.quoted));
        let owners: BTreeSet<String> = owners(&session, &found).await?;
        let others = owners.iter().filter(|owner| **owner != role.name);
        required.extend(
            others.map(|owner| format!("GRANT {} TO {}; -- tables are published by their owner", quote::identifier(owner), role.quoted)),
        );
    }
    if follows {
        required.push(format!("ALTER ROLE {} {REPLICATION} {}", role.quoted, role.quoted));
    }
    if must_pass_row_security(&session, &found, follows && task.writes == Writes::Marker).await? {
        required.push(format!("ALTER ROLE {} BYPASSRLS;", role.quoted));
    }
    if follows && task.writes == Writes::Never {
        let tables: Vec<Arc<Table>> = found.iter().map(|table| Arc::new(table.table.clone())).collect();
        let lacks = match tables.is_empty() {
            true => Vec::new(),
            false => establish::lacking(&session, &names::of_task(&task.name), &tables).await?,
        };
        required.extend(lacks.into_iter().flat_map(|lack| lack.statements).map(|statement| statement + ";"));
    }
    Ok(GrantStatements { required, optional: Vec::new() })
}

/// For the target; `tables` are the names there.
pub async fn target_grants(task: &Task, tables: &[TableName]) -> Result<GrantStatements> {
    const SET_SINCE: u32 = 15;
    let session = connect::sql(&task.target, "godwit grants").await?;
    let role = role_of(&session).await?;
    let mut required =
        vec![format!("GRANT CREATE, TEMPORARY ON DATABASE {} TO {};", quote::identifier(&task.target.database), role.quoted)];
    let mut schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    if task.schema.create == Create::All {
        schemas.push("public");
    }
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname = ANY($1) ORDER BY 1";
    for row in session.query(sql, &[&schemas]).await.map_err(error::from_server)? {
        required.push(format!("GRANT USAGE, CREATE ON SCHEMA {} TO {};", quote::identifier(row.get(0)), role.quoted));
    }
    let there = schema::read_named(&session, tables).await?;
    let owner = |owner: &String| format!("GRANT {} TO {}; -- it owns tables that are there already", quote::identifier(owner), role.quoted);
    required.extend(owners(&session, &there).await?.iter().filter(|owner| **owner != role.name).map(owner));
    let mut optional = Vec::new();
    if session.major() >= SET_SINCE {
        optional.push(format!(
            "GRANT SET ON PARAMETER session_replication_role TO {}; -- foreign keys and triggers may then stay while the task runs",
            role.quoted
        ));
    }
    Ok(GrantStatements { required, optional })
}

/// Without asking the server: for a role that cannot log in yet, the least that is known.
pub fn grants_unasked(task: &Task) -> (GrantStatements, GrantStatements) {
    let grants = |endpoint: &EndpointConfig, right: &str| {
        let role = quote::identifier(endpoint.user.as_deref().unwrap_or("godwit"));
        vec![
            format!("CREATE ROLE {role} LOGIN; -- unless it is there; then ask again"),
            format!("GRANT {right} ON DATABASE {} TO {role};", quote::identifier(&endpoint.database)),
        ]
    };
    let follows = task.phases.changes && task.writes == Writes::Marker;
    let source = grants(&task.source, if follows { "CONNECT, CREATE" } else { "CONNECT" });
    let target = grants(&task.target, "CONNECT, CREATE, TEMPORARY");
    (GrantStatements { required: source, optional: Vec::new() }, GrantStatements { required: target, optional: Vec::new() })
}

/// Who can be granted so that the tables are owned: what belongs to `pg_database_owner`, which takes no members, is owned by
/// the members of the database's owner.
async fn owners(client: &Client, tables: &[CatalogTable]) -> Result<BTreeSet<String>> {
    const OF_THE_DATABASE: &str = "pg_database_owner";
    let mut owners: BTreeSet<String> = tables.iter().map(|table| table.owner.clone()).collect();
    if owners.remove(OF_THE_DATABASE) {
        let sql = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()";
        owners.insert(client.query_one(sql, &[]).await.map_err(error::from_server)?.get(0));
    }
    Ok(owners)
}

struct Role {
    name: String,
    quoted: String,
}

async fn role_of(session: &Session) -> Result<Role> {
    let name: String = session.query_one("SELECT current_user::text", &[]).await.map_err(error::from_server)?.get(0);
    Ok(Role { quoted: quote::identifier(&name), name })
}

/// Those of tables and sequences, and those of the types of keys: their operators are called by name.
fn schemas<'a>(tables: &'a [CatalogTable], sequences: &'a [TableName]) -> BTreeSet<&'a str> {
    let types = tables.iter().flat_map(|table| &table.columns).map(|column| column.base_schema.as_str());
    let own = tables.iter().map(|table| table.table.name.schema.as_str());
    let all = own.chain(types).chain(sequences.iter().map(|name| name.schema.as_str()));
    all.filter(|schema| !matches!(*schema, "pg_catalog" | "information_schema" | "pg_toast")).collect()
}

const LEAVES: &str = "
SELECT n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid IN (SELECT w.oid FROM unnest($1::oid[]) w(oid) UNION SELECT t.relid FROM unnest($1::oid[]) w(oid), pg_partition_tree(w.oid) t)
ORDER BY 1, 2";

/// The tables and their partitions, which are read one by one.
async fn leaves(client: &Client, tables: &[CatalogTable]) -> Result<Vec<TableName>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = client.query(LEAVES, &[&oids]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Policies do not hold for members of a table's owner, unless they are forced on it.
async fn must_pass_row_security(client: &Client, tables: &[CatalogTable], as_owner: bool) -> Result<bool> {
    let oids: Vec<u32> = tables.iter().filter(|table| table.row_security).map(|table| table.oid).collect();
    let sql = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = ANY($1) AND (relforcerowsecurity OR NOT $2))";
    Ok(client.query_one(sql, &[&oids, &as_owner]).await.map_err(error::from_server)?.get(0))
}
