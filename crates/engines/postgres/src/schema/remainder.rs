//! What the source holds besides tables, listed for a person.

use std::collections::HashSet;

use godwit_model::{NotCarried, Result, SchemaItem, Selection, TableName, Task};
use tokio_postgres::{Client, Row};

use super::catalog::{CatalogTable, Persistence, SYSTEM_SCHEMAS, TableKind};
use super::ddl::Mapped;
use super::sequences;
use crate::{error, quote};

/// Objects of users: kind, schema, name, and the table it hangs on, if any.
fn objects_sql() -> String {
    let of_users = format!("NOT {SYSTEM_SCHEMAS}");
    let own = |class: &str, oid: &str| {
        format!(
            "NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{class}'::regclass AND e.objid = {oid} AND e.deptype IN ('e', 'i'))"
        )
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
UNION ALL SELECT 'USER MAPPING ' || coalesce(usename, 'PUBLIC') || ' SERVER ' || srvname FROM pg_user_mappings
UNION ALL SELECT 'EXTENSION ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
ORDER BY 1";

/// Schemas of users, and as a statement that makes them speaks of them.
fn schemas_sql() -> String {
    format!(
        "SELECT n.nspname::text FROM pg_namespace n WHERE NOT {SYSTEM_SCHEMAS} AND n.nspname NOT IN ('public', 'pg_toast') AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1"
    )
}

/// Kinds of which users rarely make any, by the server's own words for them.
const RARE: &str = "
SELECT upper(replace(i.type, '-', ' ')) || ' ' || i.identity
FROM (SELECT 'pg_cast'::regclass AS class, oid FROM pg_cast
    UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily
    UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am
    UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion
    UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid FROM pg_ts_template
    UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language
    UNION ALL SELECT 'pg_transform'::regclass, oid FROM pg_transform
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_default_acl'::regclass, oid FROM pg_default_acl) o
CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
WHERE o.oid >= 16384 AND i.schema IS DISTINCT FROM 'pg_catalog'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype IN ('e', 'i'))
ORDER BY 1";

/// Types of users, as `types` names those that it makes.
fn types_sql() -> String {
    format!(
        "SELECT 'TYPE ' || n.nspname || '.' || t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
         LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE NOT {SYSTEM_SCHEMAS} AND coalesce(c.relkind, 'c') = 'c' AND NOT (t.typcategory = 'A' AND t.typelem <> 0) AND t.typtype <> 'm'
           AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e')
         ORDER BY 1"
    )
}

/// What hangs on tables that are made, and on their parts, beside their definitions.
const BESIDE: &str = "
WITH made AS (
    SELECT 'pg_class'::regclass AS class, oid FROM pg_class WHERE oid = ANY($1)
    UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = ANY($1)
    UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = ANY($1)
    UNION ALL SELECT 'pg_class'::regclass, d.objid FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1) AND d.deptype IN ('a', 'i')
    UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace
        WHERE nspname <> 'public' AND oid IN (SELECT relnamespace FROM pg_class WHERE oid = ANY($1))
    UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname || '.' || t.typname = ANY($2))
SELECT 'COMMENT of ' || pg_describe_object(d.classoid, d.objoid, d.objsubid) FROM pg_description d JOIN made m ON m.class = d.classoid AND m.oid = d.objoid
WHERE NOT (d.classoid = 'pg_class'::regclass AND d.objoid = ANY($1))
UNION ALL
SELECT 'SECURITY LABEL (' || l.provider || ') of ' || pg_describe_object(l.classoid, l.objoid, l.objsubid) FROM pg_seclabel l JOIN made m ON m.class = l.classoid AND m.oid = l.objoid
UNION ALL
SELECT 'ROW SECURITY of ' || n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY($1) AND (c.relrowsecurity OR c.relforcerowsecurity)
ORDER BY 1";

/// Everything that is not a table, where nothing but tables is made; `made` are the steps that make these.
pub(crate) async fn unmade(
    client: &Client,
    selection: &Selection,
    tables: &[CatalogTable],
    made: &[SchemaItem],
    reason: &str,
) -> Result<Vec<NotCarried>> {
    let mut list = Vec::new();
    for row in client.query(&objects_sql(), &[]).await.map_err(error::from_server)? {
        let (kind, schema, name, table): (&str, &str, &str, Option<&str>) = (row.get(0), row.get(1), row.get(2), row.get(3));
        if table.is_some_and(|table| !selection.selects(&TableName::new(schema, table))) {
            continue;
        }
        let on = table.map(|table| format!(" of {schema}.{table}")).unwrap_or_default();
        list.push(format!("{kind} {schema}.{name}{on}"));
    }
    let types: Vec<&str> = made.iter().filter_map(|item| item.id.strip_prefix("TYPE ")).collect();
    let mut rows = client.query(&types_sql(), &[]).await.map_err(error::from_server)?;
    rows.extend(client.query(GLOBALS, &[]).await.map_err(error::from_server)?);
    rows.extend(client.query(RARE, &[]).await.map_err(error::from_server)?);
    rows.extend(client.query(BESIDE, &[&oids(tables), &types]).await.map_err(error::from_server)?);
    let creates = |schema: &str| {
        let statement = format!("CREATE SCHEMA IF NOT EXISTS {}", quote::identifier(schema));
        made.iter().any(|item| item.sql.contains(&statement))
    };
    let schemas = client.query(&schemas_sql(), &[]).await.map_err(error::from_server)?;
    list.extend(
        schemas.iter().map(|row| row.get::<_, String>(0)).filter(|schema| !creates(schema)).map(|schema| format!("SCHEMA {schema}")),
    );
    // a column's default may draw from one that belongs to no column
    let drawn = sequences::of_columns(client, tables).await?;
    let drawn: HashSet<String> = drawn.values().map(|sequence| format!("SEQUENCE {}", sequence.name)).collect();
    list.retain(|object| !drawn.contains(object));
    let made: HashSet<&str> = made.iter().map(|item| item.id.as_str()).collect();
    list.extend(rows.iter().map(|row| row.get::<_, String>(0)).filter(|object| !made.contains(object.as_str())));
    Ok(list.into_iter().map(|object| NotCarried { object, reason: reason.to_owned() }).collect())
}

/// Settings of the database and of roles in it, places of tables, and what feeds the source.
const SETTINGS: &str = "
SELECT 'SETTING ' || split_part(s.setting, '=', 1) || ' of ' || CASE WHEN s.setrole = 0 THEN 'the database' ELSE 'role ' || pg_get_userbyid(s.setrole) END,
       'settings are the target''s own'
FROM (SELECT setrole, unnest(setconfig) AS setting FROM pg_db_role_setting
      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) s
UNION ALL
SELECT 'TABLESPACE ' || t.spcname || ' of ' || n.nspname || '.' || c.relname, 'everything is made in the target''s own tablespace'
FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY($1) OR EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indrelid = ANY($1))
UNION ALL
SELECT 'SUBSCRIPTION ' || subname, 'what it brings arrives at the source; make it at the target when the source''s has ended'
FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1";

/// How a person moves large objects, with their numbers, owners, comments and rights, once nobody writes them any more.
const LARGE_OBJECTS: &str = "the server's log does not show their content; when their writers have stopped: \
    pg_dump --data-only -b --exclude-table='*.*' SOURCE | psql --set ON_ERROR_STOP=1 --single-transaction TARGET";

fn oids(tables: &[CatalogTable]) -> Vec<u32> {
    tables.iter().map(|table| table.oid).collect()
}

/// Always left behind, whoever makes the schema.
pub(crate) async fn never_carried(client: &Client, tables: &[CatalogTable]) -> Result<Vec<NotCarried>> {
    let mut list = Vec::new();
    let count: i64 = client.query_one("SELECT count(*) FROM pg_largeobject_metadata", &[]).await.map_err(error::from_server)?.get(0);
    if count > 0 {
        list.push(NotCarried { object: format!("{count} LARGE OBJECTS"), reason: LARGE_OBJECTS.to_owned() });
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

/// Rights on tables.
const GRANTS: &str = "
SELECT 'GRANT ' || string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) || ' ON ' || n.nspname || '.' || c.relname || ' TO '
    || coalesce(pg_get_userbyid(nullif(g.grantee, 0))::text, 'PUBLIC')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) g
WHERE c.oid = ANY($1) AND g.grantee <> c.relowner GROUP BY n.nspname, c.relname, g.grantee ORDER BY 1";

/// Rights that differ from those everything has by itself, on what is made besides; a right that was taken from everybody
/// is seen by that alone. `$2`: not only on what belongs to these tables.
const OTHER_RIGHTS: &str = "
SELECT 'RIGHTS on ' || pg_describe_object(o.class, o.oid, o.part) || ': ' || o.acl::text
FROM (SELECT 'pg_class'::regclass AS class, a.attrelid AS oid, a.attnum::int4 AS part, a.attacl AS acl, a.attrelid AS table_oid, NULL::oid AS schema
      FROM pg_attribute a WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL SELECT 'pg_class'::regclass, c.oid, 0, c.relacl,
        (SELECT d.refobjid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 LIMIT 1), c.relnamespace
      FROM pg_class c WHERE c.relacl IS NOT NULL AND c.relkind IN ('v', 'm', 'S', 'f')
    UNION ALL SELECT 'pg_namespace'::regclass, n.oid, 0, n.nspacl, (SELECT c.oid FROM pg_class c WHERE c.relnamespace = n.oid AND c.oid = ANY($1) LIMIT 1), n.oid
      FROM pg_namespace n WHERE n.nspacl IS NOT NULL AND n.nspname <> 'public'
    UNION ALL SELECT 'pg_proc'::regclass, p.oid, 0, p.proacl, NULL, p.pronamespace FROM pg_proc p WHERE p.proacl IS NOT NULL
    UNION ALL SELECT 'pg_type'::regclass, t.oid, 0, t.typacl, NULL, t.typnamespace FROM pg_type t WHERE t.typacl IS NOT NULL
    UNION ALL SELECT 'pg_default_acl'::regclass, d.oid, 0, d.defaclacl, NULL, NULL FROM pg_default_acl d) o
LEFT JOIN pg_namespace n ON n.oid = o.schema
WHERE (o.oid >= 16384 AND coalesce(NOT {SYSTEM}, true)) AND (o.table_oid = ANY($1) OR ($2 AND (o.table_oid IS NULL OR o.class <> 'pg_class'::regclass OR o.part = 0)))
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype = 'e')
ORDER BY 1";

/// Rights, where they are not carried: on these tables and what belongs to them, and on `all` else that is made.
pub(crate) async fn grants(client: &Client, tables: &[CatalogTable], all: bool, reason: &str) -> Result<Vec<NotCarried>> {
    let oids = oids(tables);
    let mut rows = client.query(GRANTS, &[&oids]).await.map_err(error::from_server)?;
    let others = OTHER_RIGHTS.replace("{SYSTEM}", SYSTEM_SCHEMAS);
    rows.extend(client.query(&others, &[&oids, &all]).await.map_err(error::from_server)?);
    Ok(rows.iter().map(|row| NotCarried { object: row.get(0), reason: reason.to_owned() }).collect())
}

const OWNERS: &str = "
SELECT pg_get_userbyid(c.relowner)::text, n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY($1)
UNION ALL
SELECT pg_get_userbyid(n.nspowner)::text, 'schema ' || n.nspname FROM pg_namespace n
WHERE n.nspname <> 'public' AND n.oid IN (SELECT relnamespace FROM pg_class WHERE oid = ANY($1))
ORDER BY 2";

/// Owners of tables that our own DDL makes, where they were to be kept and are others than the role that makes them.
pub(crate) async fn owners(client: &Client, task: &Task, tables: &[Mapped<'_>]) -> Result<Vec<NotCarried>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.source.oid).collect();
    let rows = client.query(OWNERS, &[&oids]).await.map_err(error::from_server)?;
    let others = rows.iter().filter(|row| task.target.user.as_deref() != Some(row.get(0)));
    let owner = |row: &Row| NotCarried {
        object: format!("OWNER {} of {}", row.get::<_, &str>(0), row.get::<_, &str>(1)),
        reason: "without pg_dump, or under new names, it belongs to the role that connects".to_owned(),
    };
    Ok(others.map(owner).collect())
}
