//! What the source holds besides tables, listed for a person.

use godwit_model::{NotCarried, Result, Selection, TableName};
use tokio_postgres::Client;

use super::catalog::{CatalogTable, Persistence, SYSTEM_SCHEMAS, TableKind};
use super::ddl::Mapped;
use crate::error;

/// Objects of users: kind, schema, name, and the table it hangs on, if any.
fn objects_sql() -> String {
    let of_users = format!("NOT {SYSTEM_SCHEMAS}");
    let own = |class: &str, oid: &str| {
        format!("NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{class}'::regclass AND e.objid = {oid} AND e.deptype = 'e')")
    };
    format!(
        "SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, n.nspname::text, c.relname::text, NULL::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {of_users} AND {class}
         UNION ALL
         SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END, n.nspname::text,
                p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', NULL
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {of_users} AND {function}
         UNION ALL
         SELECT 'TRIGGER', n.nspname::text, t.tgname::text, c.relname::text
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE NOT t.tgisinternal AND {of_users}
         UNION ALL
         SELECT 'RULE', n.nspname::text, r.rulename::text, c.relname::text
         FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE r.rulename <> '_RETURN' AND {of_users} AND {class}
         UNION ALL
         SELECT 'POLICY', n.nspname::text, p.polname::text, c.relname::text
         FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {of_users}
         UNION ALL
         SELECT 'STATISTICS', n.nspname::text, s.stxname::text, c.relname::text
         FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {of_users}
         UNION ALL
         SELECT 'SEQUENCE', n.nspname::text, c.relname::text, NULL
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND {of_users} AND {class}
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
         ORDER BY 1, 2, 3, 4",
        class = own("pg_class", "c.oid"),
        function = own("pg_proc", "p.oid"),
    )
}

/// Objects of the whole database that no schema holds.
const GLOBALS: &str = "
SELECT 'EVENT TRIGGER ' || evtname FROM pg_event_trigger WHERE evtname NOT LIKE 'godwit%'
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_event_trigger'::regclass AND e.objid = pg_event_trigger.oid AND e.deptype = 'e')
UNION ALL SELECT 'PUBLICATION ' || pubname FROM pg_publication WHERE pubname NOT LIKE 'godwit%'
UNION ALL SELECT 'FOREIGN SERVER ' || srvname FROM pg_foreign_server
ORDER BY 1";

/// Everything that is not a table, where nothing but tables is made.
pub(crate) async fn unmade(client: &Client, selection: &Selection, reason: &str) -> Result<Vec<NotCarried>> {
    let mut list = Vec::new();
    for row in client.query(&objects_sql(), &[]).await.map_err(error::from_server)? {
        let (kind, schema, name, table): (&str, &str, &str, Option<&str>) = (row.get(0), row.get(1), row.get(2), row.get(3));
        if table.is_some_and(|table| !selection.selects(&TableName::new(schema, table))) {
            continue;
        }
        let on = table.map(|table| format!(" of {schema}.{table}")).unwrap_or_default();
        list.push(NotCarried { object: format!("{kind} {schema}.{name}{on}"), reason: reason.to_owned() });
    }
    for row in client.query(GLOBALS, &[]).await.map_err(error::from_server)? {
        list.push(NotCarried { object: row.get(0), reason: reason.to_owned() });
    }
    Ok(list)
}

/// Settings of the database and of roles in it, and places of tables.
const SETTINGS: &str = "
SELECT 'SETTING ' || split_part(s.setting, '=', 1) || ' of ' || CASE WHEN s.setrole = 0 THEN 'the database' ELSE 'role ' || pg_get_userbyid(s.setrole) END,
       'settings are the target''s own'
FROM (SELECT setrole, unnest(setconfig) AS setting FROM pg_db_role_setting
      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) s
UNION ALL
SELECT 'TABLESPACE ' || t.spcname || ' of ' || n.nspname || '.' || c.relname, 'everything is made in the target''s own tablespace'
FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY($1) OR EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indrelid = ANY($1))
ORDER BY 1";

fn oids(tables: &[CatalogTable]) -> Vec<u32> {
    tables.iter().map(|table| table.oid).collect()
}

/// Always left behind, whoever makes the schema.
pub(crate) async fn never_carried(client: &Client, tables: &[CatalogTable]) -> Result<Vec<NotCarried>> {
    let mut list = Vec::new();
    let count: i64 = client.query_one("SELECT count(*) FROM pg_largeobject_metadata", &[]).await.map_err(error::from_server)?.get(0);
    if count > 0 {
        list.push(NotCarried {
            object: format!("{count} LARGE OBJECTS"),
            reason: "the server's log does not show their content".to_owned(),
        });
    }
    for row in client.query(SETTINGS, &[&oids(tables)]).await.map_err(error::from_server)? {
        list.push(NotCarried { object: row.get(0), reason: row.get(1) });
    }
    for table in tables.iter().filter(|table| table.persistence == Persistence::Unlogged) {
        let object = format!("CHANGES of {}", table.table.name);
        list.push(NotCarried { object, reason: "the table is unlogged: its rows are copied once, later changes are in no log".to_owned() });
    }
    Ok(list)
}

/// What our own DDL turns into plain tables.
pub(crate) fn flattened(tables: &[Mapped<'_>]) -> Vec<NotCarried> {
    let mut list = Vec::new();
    for table in tables {
        let name = &table.source.table.name;
        if let Some(key) = &table.source.partition_key {
            let object = format!("PARTITIONS of {name} ({key})");
            list.push(NotCarried { object, reason: "without pg_dump, or under new names, the target is one ordinary table".to_owned() });
        }
        if table.source.inherits && table.source.kind == TableKind::Ordinary {
            let object = format!("INHERITANCE of {name}");
            list.push(NotCarried { object, reason: "without pg_dump, or under new names, the target is an ordinary table".to_owned() });
        }
    }
    list
}

/// Rights and owners, where the task does not keep them.
pub(crate) async fn grants(client: &Client, tables: &[CatalogTable]) -> Result<Vec<NotCarried>> {
    let oids = oids(tables);
    let sql = "SELECT n.nspname || '.' || c.relname, coalesce(pg_get_userbyid(nullif(g.grantee, 0))::text, 'PUBLIC'), string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) g
        WHERE c.oid = ANY($1) AND g.grantee <> c.relowner GROUP BY 1, 2 ORDER BY 1, 2";
    let rows = client.query(sql, &[&oids]).await.map_err(error::from_server)?;
    let grant = |row: &tokio_postgres::Row| {
        let (table, role, rights): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        NotCarried {
            object: format!("GRANT {rights} ON {table} TO {role}"),
            reason: "grants are listed, not carried (schema.grants)".to_owned(),
        }
    };
    Ok(rows.iter().map(grant).collect())
}
