//! The statements that give a role every right a task needs, and no more.

use godwit_model::{EndpointConfig, TableName};

use crate::quote;

/// For the source, to be run by a superuser or the managed service's administrator. `owners` are the roles that own the
/// selected tables.
pub fn source_grants(source: &EndpointConfig, tables: &[TableName], owners: &[String], changes: bool) -> Vec<String> {
    let role = role(source);
    let mut statements: Vec<String> =
        schemas(tables).iter().map(|schema| format!("GRANT USAGE ON SCHEMA {} TO {role};", quote::identifier(schema))).collect();
    statements.extend(tables.iter().map(|table| format!("GRANT SELECT ON TABLE {} TO {role};", quote::table(table))));
    if changes {
        statements.push(format!("GRANT CREATE ON DATABASE {} TO {role};", quote::identifier(&source.database)));
        statements.push(format!("ALTER ROLE {role} REPLICATION; -- managed services: GRANT rds_replication TO {role};"));
        if owners.is_empty() {
            statements.push(format!("-- tables are published by their owner: GRANT owner TO {role}; for each owner that \\dt shows"));
        }
        let others = owners.iter().filter(|owner| Some(*owner) != source.user.as_ref());
        statements
            .extend(others.map(|owner| format!("GRANT {} TO {role}; -- tables are published by their owner", quote::identifier(owner))));
    }
    statements
}

/// For the target; `tables` are the names there.
pub fn target_grants(target: &EndpointConfig, tables: &[TableName]) -> Vec<String> {
    let role = role(target);
    let database = quote::identifier(&target.database);
    let mut statements = vec![format!("GRANT CREATE, TEMPORARY ON DATABASE {database} TO {role};")];
    let in_schema =
        |schema: &&str| format!("GRANT USAGE, CREATE ON SCHEMA {} TO {role}; -- where it is there already", quote::identifier(schema));
    statements.extend(schemas(tables).iter().map(in_schema));
    statements.push(format!(
        "GRANT SET ON PARAMETER session_replication_role TO {role}; -- PostgreSQL 15 or newer; else foreign keys and triggers wait for finish"
    ));
    statements
}

fn schemas(tables: &[TableName]) -> Vec<&str> {
    let mut schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    schemas.sort_unstable();
    schemas.dedup();
    schemas
}

fn role(endpoint: &EndpointConfig) -> String {
    quote::identifier(endpoint.user.as_deref().unwrap_or("godwit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_granted_only_where_changes_are_followed() {
        let source = EndpointConfig {
            engine: "postgres".into(),
            host: "h".into(),
            port: None,
            user: Some("mover".into()),
            password: None,
            database: "shop".into(),
            tls: godwit_model::Tls::default(),
            options: Vec::new(),
        };
        let tables = [TableName::new("public", "a"), TableName::new("public", "b")];
        let owners = ["app".to_owned()];
        let load_only = source_grants(&source, &tables, &owners, false);
        assert_eq!(load_only.len(), 3);
        assert!(source_grants(&source, &tables, &owners, true).iter().any(|statement| statement.starts_with("GRANT \"app\" TO \"mover\"")));
    }
}
