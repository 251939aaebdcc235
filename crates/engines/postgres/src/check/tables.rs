//! The selected tables: may they be read, published, and identified row by row?

use std::collections::{BTreeSet, HashSet};

use godwit_model::{Finding, Result, SourceNeeds, TableName, Writes, codes};
use tokio_postgres::{Client, Row};

use crate::schema::{self, CatalogColumn, CatalogTable, Persistence, TableKind};
use crate::{error, quote};

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
    readable(client, needs, &tables, findings).await?;
    elsewhere(client, &tables, findings).await?;
    computed_below(client, &tables, findings).await?;
    row_security(client, &tables, findings).await?;
    named(&tables, findings);
    if needs.changes {
        unlogged(client, &tables, findings).await?;
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

/// Relations that the load, or `pg_dump`, reads one by one: tables, their partitions.
const UNREADABLE: &str = "
SELECT n.nspname::text, c.relname::text, has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT')
FROM (SELECT w.oid FROM unnest($1::oid[]) w(oid) UNION SELECT t.relid FROM unnest($1::oid[]) w(oid), pg_partition_tree(w.oid) t) p
JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')) ORDER BY 1, 2";

const UNREADABLE_SEQUENCES: &str = "
SELECT n.nspname::text, c.relname::text, has_schema_privilege(n.oid, 'USAGE'), has_sequence_privilege(c.oid, 'SELECT')
FROM unnest($1::text[], $2::text[]) w(schema, name)
JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = 'S'
WHERE NOT (has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')) ORDER BY 1, 2";

/// All that lack are named, with the one statement that gives them.
async fn readable(client: &Client, needs: &SourceNeeds<'_>, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let role = role(client).await?;
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let lacking = client.query(UNREADABLE, &[&oids]).await.map_err(error::from_server)?;
    findings.extend(unreadable("read_right", "TABLE", &role, &lacking));
    let sequences = schema::sequence_names(client, needs.task).await?;
    let (schemas, names): (Vec<&str>, Vec<&str>) = sequences.iter().map(|name| (name.schema.as_str(), name.name.as_str())).unzip();
    let lacking = client.query(UNREADABLE_SEQUENCES, &[&schemas, &names]).await.map_err(error::from_server)?;
    findings.extend(unreadable("sequence_right", "SEQUENCE", &role, &lacking));
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

fn unreadable(check: &'static str, kind: &str, role: &str, lacking: &[Row]) -> Option<Finding> {
    let names: Vec<TableName> = lacking.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect();
    let closed: BTreeSet<&str> = lacking.iter().filter(|row| !row.get::<_, bool>(2)).map(|row| row.get(0)).collect();
    let locked: Vec<String> =
        lacking.iter().zip(&names).filter(|(row, _)| !row.get::<_, bool>(3)).map(|(_, name)| quote::table(name)).collect();
    let mut statements = Vec::new();
    if !closed.is_empty() {
        let schemas = closed.into_iter().map(quote::identifier).collect::<Vec<_>>().join(", ");
        statements.push(format!("GRANT USAGE ON SCHEMA {schemas} TO {role}"));
    }
    if !locked.is_empty() {
        statements.push(format!("GRANT SELECT ON {kind} {} TO {role}", locked.join(", ")));
    }
    let all = names.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ");
    let what = if kind == "TABLE" {
        format!("the role may not read {all}")
    } else {
        format!("the role may not read where these sequences stand: {all}")
    };
    (!names.is_empty()).then(|| Finding::blocker(check, &codes::RIGHTS_MISSING, what, statements.join("; ")))
}

/// The role that connects, as it stands in SQL.
async fn role(client: &Client) -> Result<String> {
    let name: String = client.query_one("SELECT current_user::text", &[]).await.map_err(error::from_server)?.get(0);
    Ok(quote::identifier(&name))
}

/// The same statement for each of these tables.
fn each<'a>(tables: impl Iterator<Item = &'a CatalogTable>, statement: &str) -> String {
    tables.map(|table| format!("ALTER TABLE {} {statement}", quote::table(&table.table.name))).collect::<Vec<_>>().join("; ")
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
            format!("ALTER ROLE {} BYPASSRLS -- or connect as the tables' owner", role(client).await?),
        ));
    }
    Ok(())
}

async fn unlogged(client: &Client, tables: &[CatalogTable], findings: &mut Vec<Finding>) -> Result<()> {
    let oids: Vec<u32> = tables.iter().filter(|table| table.persistence == Persistence::Unlogged).map(|table| table.oid).collect();
    let sql = "SELECT n.nspname::text, c.relname::text
        FROM (SELECT w.oid FROM unnest($1::oid[]) w(oid) UNION SELECT t.relid FROM unnest($1::oid[]) w(oid), pg_partition_tree(w.oid) t) p
        JOIN pg_class c ON c.oid = p.oid AND c.relkind = 'r' AND c.relpersistence = 'u' JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2";
    let found = client.query(sql, &[&oids]).await.map_err(error::from_server)?;
    let statement = |row: &Row| {
        let name = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        format!("ALTER TABLE {} SET LOGGED", quote::table(&name))
    };
    if let Some(names) = every(tables.iter().filter(|table| table.persistence == Persistence::Unlogged)) {
        findings.push(Finding::blocker(
            "unlogged",
            &codes::TASK_UNSUPPORTED,
            format!("{names}: unlogged tables and partitions are in no log, so their changes cannot be followed"),
            format!("{} -- or leave them out (select.except)", found.iter().map(statement).collect::<Vec<_>>().join("; ")),
        ));
    }
    Ok(())
}

/// What the log says of an old row must name the key that the target is written by.
fn identity(tables: &[CatalogTable], writes: Writes, findings: &mut Vec<Finding>) {
    let followed = || tables.iter().filter(|table| table.persistence == Persistence::Logged && table.kind != TableKind::Foreign);
    let may_set = writes == Writes::Marker;
    let keyless = || followed().filter(|table| may_set && table.table.key.is_none() && table.replica_identity != 'f');
    if let Some(names) = listed(keyless()) {
        findings.push(Finding::warning(
            "key",
            format!("{names}: no key, and no full replica identity"),
            format!("{} -- Godwit does so itself where the role owns the table; better add a primary key: without one a table is copied under one snapshot that may grow old", each(keyless(), "REPLICA IDENTITY FULL")),
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
    let silent = || followed().filter(|table| table.table.key.is_some() && table.replica_identity == 'n');
    if let Some(names) = every(silent()) {
        findings.push(Finding::blocker(
            "replica_identity",
            &codes::SETTING_UNSUITABLE,
            format!("{names}: REPLICA IDENTITY NOTHING, so the log does not say which row was changed"),
            each(silent(), "REPLICA IDENTITY DEFAULT"),
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
    let sql = "SELECT DISTINCT o.name FROM unnest($1::text[]) AS o(name) WHERE NOT pg_has_role(current_user, o.name, 'USAGE') ORDER BY 1";
    let others: Vec<String> = client.query(sql, &[&owners]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
    if let Some(names) = every(tables.iter().filter(|table| others.contains(&table.owner))) {
        let owners = others.iter().map(|owner| quote::identifier(owner)).collect::<Vec<_>>().join(", ");
        findings.push(Finding::blocker(
            "ownership",
            &codes::RIGHTS_MISSING,
            format!("the role does not own {names}, so it cannot publish them"),
            format!("GRANT {owners} TO {}", role(client).await?),
        ));
    }
    Ok(())
}
