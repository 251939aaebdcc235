//! The target's rights, and how its tables fit.

use std::collections::HashMap;

use godwit_model::{Create, Existing, Finding, Present, Result, TableName, TargetNeeds, codes};
use tokio_postgres::Client;

use super::source::{collations, pooler, version};
use crate::{error, lease, present, schema, writer};

pub(crate) async fn target(client: &Client, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    version(client, &mut findings).await?;
    pooler(client, &needs.task.target, &mut findings).await?;
    rights(client, &mut findings).await?;
    if needs.task.schema.create != Create::None {
        schemas(client, needs, &mut findings).await?;
    }
    extensions(client, needs, &mut findings).await?;
    settings(client, &mut findings).await?;
    collations(client, &mut findings).await?;
    existing(client, needs, &mut findings).await?;
    findings.extend(long_names(needs));
    Ok(findings)
}

/// What the server keeps of a name; it cuts the rest off in silence, and two names may become one.
const LONGEST_NAME: usize = 63;

fn long_names(needs: &TargetNeeds<'_>) -> Vec<Finding> {
    let names = needs.mappings.iter().flat_map(|mapping| {
        let columns = mapping.columns.iter().map(|column| &column.target);
        [&mapping.target.schema, &mapping.target.name].into_iter().chain(columns).map(move |name| (mapping, name))
    });
    let too_long = names.filter(|(_, name)| name.len() > LONGEST_NAME);
    let finding = |(mapping, name): (&std::sync::Arc<godwit_model::TableMapping>, &String)| {
        let what = format!("`{name}` of table {} is longer than {LONGEST_NAME} bytes and would be cut", mapping.target);
        Finding::blocker("long_name", &codes::NAMES_COLLIDE, what, "map it to a shorter name")
    };
    too_long.map(finding).collect()
}

async fn rights(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT has_database_privilege(current_database(), 'CREATE') OR coalesce(has_schema_privilege(to_regnamespace('godwit')::oid, 'CREATE'), false),
        has_database_privilege(current_database(), 'TEMP'), current_user::text, quote_ident(current_database())";
    let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
    let (role, database) = (crate::quote::identifier(row.get(2)), row.get::<_, &str>(3));
    if !row.get::<_, bool>(0) {
        findings.push(Finding::blocker(
            "create_right",
            &codes::RIGHTS_MISSING,
            "the role may not create schemas in the target database, and Godwit keeps its checkpoint in one",
            format!("GRANT CREATE ON DATABASE {database} TO {role}"),
        ));
    }
    if !row.get::<_, bool>(1) {
        findings.push(Finding::warning(
            "temporary_right",
            "the role may not make temporary tables; re-reading chunks needs them",
            format!("GRANT TEMPORARY ON DATABASE {database} TO {role}"),
        ));
    }
    if !writer::prepare(client).await? {
        findings.push(Finding::warning(
            "replica_role",
            "the role may not set session_replication_role: foreign keys and triggers of the target fire for what Godwit writes",
            format!("GRANT SET ON PARAMETER session_replication_role TO {role} -- PostgreSQL 15 or newer; else keep foreign keys and triggers away until finish"),
        ));
    }
    Ok(())
}

/// Schemas that are there already and where tables are to be made.
async fn schemas(client: &Client, needs: &TargetNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    let names: Vec<&str> = needs.mappings.iter().map(|mapping| mapping.target.schema.as_str()).collect();
    let sql =
        "SELECT nspname::text, current_user::text FROM pg_namespace WHERE nspname = ANY($1) AND NOT has_schema_privilege(oid, 'CREATE')";
    for row in client.query(sql, &[&names]).await.map_err(error::from_server)? {
        let (schema, role) = (crate::quote::identifier(row.get(0)), crate::quote::identifier(row.get(1)));
        let what = format!("the role may not create tables in the target's schema {schema}");
        findings.push(Finding::blocker(
            "schema_right",
            &codes::RIGHTS_MISSING,
            what,
            format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"),
        ));
    }
    Ok(())
}

const EXTENSIONS: &str = "
SELECT w.name, v.name IS NOT NULL, coalesce(v.trusted, false) OR coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false)
FROM unnest($1::text[]) w(name)
LEFT JOIN pg_available_extensions a ON a.name = w.name
LEFT JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
WHERE NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = w.name)";

/// Types and functions of the source that only an extension brings.
async fn extensions(client: &Client, needs: &TargetNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    let names: Vec<&str> = needs.description.items.iter().filter_map(|item| item.id.strip_prefix("EXTENSION ")).map(str::trim).collect();
    for left in needs.description.not_carried.iter().filter(|left| left.object.starts_with("EXTENSION ")) {
        let what = format!("{} of the source is left out, with what needs it: {}", left.object, left.reason);
        findings.push(Finding::warning("types", what, "create it at the target, or see `godwit plan` for what falls away"));
    }
    for row in client.query(EXTENSIONS, &[&names]).await.map_err(error::from_server)? {
        let (name, is_there, may_be_made): (&str, bool, bool) = (row.get(0), row.get(1), row.get(2));
        if !is_there {
            let what = format!("the source uses the extension {name}, and the target's server does not have it");
            let remedy = "install its package on the target's server, or leave the tables that need it out (select.except)";
            findings.push(Finding::blocker("types", &codes::TASK_UNSUPPORTED, what, remedy));
        } else if !may_be_made {
            let what = format!("only a superuser may make the extension {name} at the target");
            let remedy = format!("CREATE EXTENSION {} -- as a superuser, at the target", crate::quote::identifier(name));
            findings.push(Finding::blocker("types", &codes::RIGHTS_MISSING, what, remedy));
        }
    }
    Ok(())
}

async fn settings(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT current_setting('server_encoding'), pg_is_in_recovery(), quote_ident(current_database() || '_utf8')";
    let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
    let encoding: &str = row.get(0);
    if encoding != "UTF8" {
        let what = format!("the target's encoding is {encoding}: characters that it lacks are refused");
        let remedy = format!("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0 -- and name it as the target", row.get::<_, &str>(2));
        findings.push(Finding::warning("encoding", what, remedy));
    }
    if row.get(1) {
        findings.push(Finding::blocker("standby", &codes::SETTING_UNSUITABLE, "the target is a standby", "name the primary"));
    }
    Ok(())
}

async fn existing(client: &Client, needs: &TargetNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    // the rows of a task that has begun are its own
    let begun = lease::installed(client).await? && !lease::ledger(client, &needs.task.name).await?.is_empty();
    let mut names: Vec<_> = needs.mappings.iter().map(|mapping| mapping.target.clone()).collect();
    let closed = present::unreadable(client, &names).await?;
    if !closed.is_empty() {
        let sql = "SELECT quote_ident(current_user), ARRAY(SELECT DISTINCT quote_ident(nspname) FROM pg_namespace WHERE nspname = ANY($1) AND NOT has_schema_privilege(oid, 'USAGE') ORDER BY 1)";
        let schemas: Vec<&str> = closed.iter().map(|name| name.schema.as_str()).collect();
        let row = client.query_one(sql, &[&schemas]).await.map_err(error::from_server)?;
        let (role, schemas): (&str, Vec<&str>) = (row.get(0), row.get(1));
        let usage = if schemas.is_empty() { String::new() } else { format!("GRANT USAGE ON SCHEMA {} TO {role}; ", schemas.join(", ")) };
        let tables = closed.iter().map(crate::quote::table).collect::<Vec<_>>().join(", ");
        let what = closed.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ");
        findings.push(Finding::blocker(
            "table_right",
            &codes::RIGHTS_MISSING,
            format!("tables are there already that the role may not read and write: {what}"),
            format!("{usage}GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE {tables} TO {role} -- or membership in their owner"),
        ));
        names.retain(|name| !closed.contains(name));
    }
    let present = present::read(client, &names).await?;
    let present: HashMap<&TableName, &Present> = present.iter().map(|present| (&present.table.name, present)).collect();
    for mapping in needs.mappings {
        let Some(there) = present.get(&mapping.target) else {
            if needs.task.schema.create == Create::None && !closed.contains(&mapping.target) {
                let what = format!("the target has no table {}", mapping.target);
                findings.push(Finding::blocker("tables", &codes::TABLE_MISSING, what, "create it, or let the task do so (schema.create)"));
            }
            continue;
        };
        if needs.task.existing == Existing::Refuse && there.has_rows && !begun {
            let what = format!("the target table {} already holds rows", mapping.target);
            findings.push(Finding::blocker(
                "existing",
                &codes::TARGET_NOT_EMPTY,
                what,
                "empty it, or say what happens to them (target.existing)",
            ));
        }
        if needs.task.existing != Existing::Replace {
            let of_file = matches!(needs.task.schema.create, Create::File(_));
            fits(client, mapping, &there.table, of_file, findings).await?;
        }
    }
    Ok(())
}

async fn fits(
    client: &Client,
    mapping: &godwit_model::TableMapping,
    there: &godwit_model::Table,
    of_file: bool,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for column in &mapping.columns {
        let found = there.column(&column.target).map(|index| there.columns[index].type_name.as_str());
        if found != Some(column.type_name.as_str()) {
            let what = format!(
                "column `{}` of the target table {} should be {} and is {}",
                column.target,
                mapping.target,
                column.type_name,
                found.unwrap_or("not there")
            );
            findings.push(match (of_file, found) {
                // its values come as texts, and one that the type does not take is refused
                (true, Some(_)) => Finding::note("columns", what),
                _ => Finding::blocker("columns", &codes::SCHEMA_MISMATCH, what, "give it the source column's type"),
            });
        }
    }
    if mapping.has_key() && !has_unique_over(there, &mapping.key_targets()) {
        let what = format!("the target table {} has no unique key over {}", mapping.target, mapping.key_targets().join(", "));
        findings.push(Finding::blocker("key", &codes::NO_KEY, what, "add the source's key to it"));
    }
    if there.columns.iter().all(|column| mapping.columns.iter().any(|mapped| mapped.target == column.name)) {
        return Ok(());
    }
    let target = schema::read_named(client, std::slice::from_ref(&mapping.target)).await?;
    for table in &target {
        for (column, own) in table.table.columns.iter().zip(&table.columns) {
            let mapped = mapping.columns.iter().any(|mapped| mapped.target == column.name);
            if !mapped && !column.nullable && own.expression.is_none() && own.identity.is_none() {
                let what = format!(
                    "column `{}` of the target table {} is NOT NULL, has no default, and nothing arrives for it",
                    column.name, mapping.target
                );
                findings.push(Finding::blocker("columns", &codes::SCHEMA_MISMATCH, what, "give it a default"));
            }
        }
    }
    Ok(())
}

fn has_unique_over(table: &godwit_model::Table, names: &[&str]) -> bool {
    let same = |columns: &[usize]| {
        columns.len() == names.len() && columns.iter().all(|index| names.contains(&table.columns[*index].name.as_str()))
    };
    table.key.as_ref().is_some_and(|key| same(&key.columns)) || table.uniques.iter().any(|unique| same(&unique.columns))
}
