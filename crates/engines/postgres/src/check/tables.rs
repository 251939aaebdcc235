//! The selected tables: may they be read, published, and identified row by row?

use std::collections::HashSet;

use godwit_model::{Finding, Result, SourceNeeds, TableName, Writes, codes};
use tokio_postgres::Client;

use crate::error;
use crate::schema::{self, CatalogColumn, CatalogTable, Persistence, TableKind};

/// Warnings of one kind name this many tables, and the number of the rest.
const MOST_NAMED: usize = 5;

pub(super) async fn check(client: &Client, needs: &SourceNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    let names: Vec<TableName> = needs.tables.iter().map(|table| table.name.clone()).collect();
    let tables = schema::read_named(client, &names).await?;
    let there: HashSet<&TableName> = tables.iter().map(|table| &table.table.name).collect();
    for name in names.iter().filter(|name| !there.contains(name)) {
        let what = format!("there is no table {name}");
        findings.push(Finding::blocker("tables", &codes::TABLE_MISSING, what, "look at the selection"));
    }
    readable(client, &tables, findings).await?;
    elsewhere(client, &tables, findings).await?;
    computed_below(client, &tables, findings).await?;
    row_security(client, &tables, findings).await?;
    named(&tables, findings);
    if needs.changes {
        unlogged(&tables, findings);
        identity(&tables, needs.task.writes, findings);
        if needs.task.writes == Writes::Marker {
            ownership(client, &tables, findings).await?;
        }
    }
    Ok(())
}

/// What must be mended, or left out, is named to the last.
fn every<'a>(tables: impl Iterator<Item = &'a CatalogTable>) -> Option<String> {
    let names: Vec<String> = tables.map(|table| table.table.name.to_string()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn listed<'a>(tables: impl Iterator<Item = &'a CatalogTable>) -> Option<String> {
    let names: Vec<String> = tables.map(|table| table.table.name.to_string()).collect();
    let more = names.len().saturating_sub(MOST_NAMED);
    let shown = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match (names.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown),
        (false, more) => Some(format!("{shown} and {more} more")),
    }
}

async fn readable(client: &Client, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let sql = "SELECT oid FROM pg_class WHERE oid = ANY($1) AND NOT (has_table_privilege(oid, 'SELECT') AND has_schema_privilege(relnamespace, 'USAGE'))";
    let unreadable: Vec<u32> = client.query(sql, &[&oids]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
    if let Some(names) = every(tables.iter().filter(|table| unreadable.contains(&table.oid))) {
        findings.push(Finding::blocker(
            "read_right",
            &codes::RIGHTS_MISSING,
            format!("the role may not read {names}"),
            "GRANT USAGE on the schema and SELECT on the tables; `godwit check --grants` prints the statements",
        ));
    }
    Ok(())
}

/// Values that are the names of objects or roles are read by a server that has these.
fn named(tables: &[CatalogTable], findings: &mut Vec<Finding>) {
    let is_named = |name: &str| name.starts_with("reg") || name == "aclitem";
    let column = |column: &CatalogColumn| column.base_schema == "pg_catalog" && is_named(column.base_name.trim_start_matches('_'));
    if let Some(names) = listed(tables.iter().filter(|table| table.columns.iter().any(column))) {
        findings.push(Finding::warning(
            "named_values",
            format!(
                "{names}: values of the types reg* and aclitem name roles and objects, and the target refuses those that it does not have"
            ),
            "create these roles and objects at the target first, or leave the table out (select.except)",
        ));
    }
}

/// Rows of a partition that is a foreign table are another server's.
async fn elsewhere(client: &Client, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let oids: Vec<u32> = tables.iter().filter(|table| table.kind == TableKind::Partitioned).map(|table| table.oid).collect();
    let sql = "SELECT DISTINCT w.oid FROM unnest($1::oid[]) w(oid) CROSS JOIN LATERAL pg_partition_tree(w.oid) t
        JOIN pg_class l ON l.oid = t.relid WHERE l.relkind = 'f'";
    let found: Vec<u32> = client.query(sql, &[&oids]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
    if let Some(names) = every(tables.iter().filter(|table| found.contains(&table.oid))) {
        findings.push(Finding::blocker(
            "foreign_partitions",
            &codes::TASK_UNSUPPORTED,
            format!("{names}: a partition is a foreign table, whose rows live on another server"),
            "leave the table out (select.except), or ALTER TABLE ... DETACH PARTITION first",
        ));
    }
    Ok(())
}

/// What servers before 16 took.
async fn computed_below(client: &Client, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let oids: Vec<u32> = tables.iter().filter(|table| table.inherits).map(|table| table.oid).collect();
    let sql = "SELECT DISTINCT i.inhrelid FROM pg_inherits i JOIN pg_attribute c ON c.attrelid = i.inhrelid
        JOIN pg_attribute p ON p.attrelid = i.inhparent AND p.attname = c.attname
        WHERE i.inhrelid = ANY($1) AND c.attgenerated <> '' AND p.attgenerated = '' AND NOT c.attisdropped";
    let found: Vec<u32> = client.query(sql, &[&oids]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
    if let Some(names) = every(tables.iter().filter(|table| found.contains(&table.oid))) {
        findings.push(Finding::warning(
            "generated",
            format!("{names}: a generated column inherits from an ordinary one, which servers since 16 refuse"),
            "if the target is such a server, leave the table out (select.except), or ALTER TABLE ... NO INHERIT first",
        ));
    }
    Ok(())
}

/// Sessions read with `row_security = off`, so that a hidden row is an error and never a loss.
async fn row_security(client: &Client, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let oids: Vec<u32> = tables.iter().filter(|table| table.row_security).map(|table| table.oid).collect();
    let sql = "SELECT oid FROM unnest($1::oid[]) AS t(oid) WHERE row_security_active(oid)";
    let hidden: Vec<u32> = client.query(sql, &[&oids]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
    if let Some(names) = every(tables.iter().filter(|table| hidden.contains(&table.oid))) {
        findings.push(Finding::blocker(
            "row_security",
            &codes::RIGHTS_MISSING,
            format!("row-level security hides rows of {names} from the role"),
            "use the tables' owner, or ALTER ROLE ... BYPASSRLS",
        ));
    }
    Ok(())
}

fn unlogged(tables: &[CatalogTable], findings: &mut Vec<Finding>) {
    if let Some(names) = every(tables.iter().filter(|table| table.persistence == Persistence::Unlogged)) {
        findings.push(Finding::blocker(
            "unlogged",
            &codes::TASK_UNSUPPORTED,
            format!("{names}: unlogged tables and partitions are in no log, so their changes cannot be followed"),
            "leave them out (select.except), or ALTER TABLE ... SET LOGGED",
        ));
    }
}

/// What the log says of an old row must name the key that the target is written by.
fn identity(tables: &[CatalogTable], writes: Writes, findings: &mut Vec<Finding>) {
    let followed = || tables.iter().filter(|table| table.persistence == Persistence::Logged && table.kind != TableKind::Foreign);
    let may_set = writes == Writes::Marker;
    if let Some(names) = listed(followed().filter(|table| may_set && table.table.key.is_none() && table.replica_identity != 'f')) {
        findings.push(Finding::warning(
            "key",
            format!("{names}: no key, and no full replica identity"),
            "add a primary key, or let Godwit set REPLICA IDENTITY FULL (it must own the table); such a table is copied under one snapshot that may grow old",
        ));
    }
    let computes = |table: &&CatalogTable| table.table.key.is_none() && table.columns.iter().any(|column| column.generated == Some('v'));
    if let Some(names) = every(followed().filter(computes)) {
        findings.push(Finding::blocker(
            "virtual",
            &codes::TASK_UNSUPPORTED,
            format!(
                "{names}: no key, and a virtual generated column: the server refuses users' updates of such a table once it is published"
            ),
            "give it a primary key, or a unique index over columns that are NOT NULL; or leave it out (select.except)",
        ));
    }
    let parted = |table: &&CatalogTable| table.kind == TableKind::Partitioned && table.table.key.is_none();
    if let Some(names) = listed(followed().filter(parted)) {
        findings.push(Finding::warning(
            "partitions",
            format!("{names}: partitions made later begin without a full replica identity, and users' updates of them fail while they are published"),
            "ALTER TABLE ... REPLICA IDENTITY FULL on each new partition at once, or give the table a primary key",
        ));
    }
    if let Some(names) = every(followed().filter(|table| table.table.key.is_some() && table.replica_identity == 'n')) {
        findings.push(Finding::blocker(
            "replica_identity",
            &codes::SETTING_UNSUITABLE,
            format!("{names}: REPLICA IDENTITY NOTHING, so the log does not say which row was changed"),
            "ALTER TABLE ... REPLICA IDENTITY DEFAULT",
        ));
    }
    if let Some(names) = listed(followed().filter(|table| table.table.key.is_some() && !table.table.key_is_exact)) {
        findings.push(Finding::note(
            "key_type",
            format!("{names}: the key's type compares more coarsely than its text; changes are applied one by one there"),
        ));
    }
}

/// A table can be published by its owner alone.
async fn ownership(client: &Client, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let owners: Vec<&str> = tables.iter().map(|table| table.owner.as_str()).collect();
    let sql = "SELECT o.name FROM unnest($1::text[]) AS o(name) WHERE NOT pg_has_role(current_user, o.name, 'USAGE')";
    let others: Vec<String> = client.query(sql, &[&owners]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
    if let Some(names) = every(tables.iter().filter(|table| others.contains(&table.owner))) {
        findings.push(Finding::blocker(
            "ownership",
            &codes::RIGHTS_MISSING,
            format!("the role does not own {names}, so it cannot publish them"),
            "GRANT the owning role to it; `godwit check --grants` prints the statements",
        ));
    }
    Ok(())
}
