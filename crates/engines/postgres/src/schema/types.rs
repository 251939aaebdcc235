//! Schemas, extensions and users' types that selected tables need.
//!
//! A type keeps its own schema and name whatever the tables' new names are: values and columns speak of it by that name.

use std::collections::BTreeSet;

use godwit_model::{NotCarried, Result, SchemaItem, Stage};
use tokio_postgres::{Client, Row};

use super::catalog::CatalogTable;
use crate::{error, quote};

/// Users' types behind columns, each after those it is made of.
const NEEDED: &str = "
WITH RECURSIVE needed(oid, depth) AS (
    SELECT unnest($1::oid[]), 0
    UNION
    SELECT part.oid, needed.depth + 1 FROM needed JOIN pg_type t ON t.oid = needed.oid CROSS JOIN LATERAL (
        SELECT t.typelem AS oid WHERE t.typelem <> 0
        UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT f.atttypid FROM pg_attribute f WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid
        UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid
    ) part WHERE needed.depth < 50
)
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text, quote_ident(n.nspname) || '.' || quote_ident(t.typname),
       (SELECT x.extname::text FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid
        WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e' LIMIT 1),
       (SELECT c.relkind::text FROM pg_class c WHERE c.oid = t.typrelid)
FROM (SELECT oid, max(depth) AS depth FROM needed GROUP BY oid) d
JOIN pg_type t ON t.oid = d.oid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid >= 16384 AND NOT (t.typcategory = 'A' AND t.typelem <> 0 AND t.typtype = 'b') AND t.typtype <> 'm'
ORDER BY d.depth DESC, n.nspname, t.typname";

/// Extensions whose functions, operators and the like stand in defaults, constraints and indexes of these tables.
const EXTENSIONS: &str = "
SELECT DISTINCT x.extname::text
FROM (SELECT 'pg_class'::regclass AS class, indexrelid AS oid FROM pg_index WHERE indrelid = ANY($1)
    UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = ANY($1)
    UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = ANY($1)) o
JOIN pg_depend d ON d.classid = o.class AND d.objid = o.oid
JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e' AND e.refclassid = 'pg_extension'::regclass
JOIN pg_extension x ON x.oid = e.refobjid";

pub(crate) struct NeededTypes {
    pub(crate) items: Vec<SchemaItem>,
    pub(crate) not_carried: Vec<NotCarried>,
}

pub(crate) async fn needed(client: &Client, tables: &[CatalogTable]) -> Result<NeededTypes> {
    let oids: Vec<u32> = tables.iter().flat_map(|table| table.columns.iter().map(|column| column.type_oid)).collect();
    let rows = client.query(NEEDED, &[&oids]).await.map_err(error::from_server)?;
    let mut found = NeededTypes { items: Vec::new(), not_carried: Vec::new() };
    let mut extensions: BTreeSet<String> = rows.iter().filter_map(|row| row.get(5)).collect();
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    extensions.extend(client.query(EXTENSIONS, &[&oids]).await.map_err(error::from_server)?.iter().map(|row| row.get::<_, String>(0)));
    for extension in &extensions {
        found.items.push(self::extension(client, extension).await?);
    }
    for row in rows.iter().filter(|row| row.get::<_, Option<&str>>(5).is_none()) {
        match definition(client, row).await? {
            Some(sql) => found.items.push(type_item(row, sql)),
            None => found.not_carried.push(NotCarried {
                object: format!("TYPE {}.{}", row.get::<_, &str>(1), row.get::<_, &str>(2)),
                reason: "only enums, domains, composites and ranges are made without pg_dump; create it at the target first".to_owned(),
            }),
        }
    }
    Ok(found)
}

async fn extension(client: &Client, name: &str) -> Result<SchemaItem> {
    let sql = "SELECT n.nspname::text, x.extversion FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace WHERE x.extname = $1";
    let row = client.query_one(sql, &[&name]).await.map_err(error::from_server)?;
    let (schema, version): (String, String) = (row.get(0), row.get(1));
    let mut sql = Vec::new();
    if schema != "pg_catalog" {
        sql.push(format!("CREATE SCHEMA IF NOT EXISTS {}", quote::identifier(&schema)));
    }
    let (extension, version) = (quote::identifier(name), quote::literal(&version));
    sql.push(format!("CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA {} VERSION {version};", quote::identifier(&schema)));
    Ok(SchemaItem { id: format!("EXTENSION {name}"), stage: Stage::BeforeLoad, table: None, sql })
}

fn type_item(row: &Row, create: String) -> SchemaItem {
    let (schema, name, qualified): (&str, &str, &str) = (row.get(1), row.get(2), row.get(4));
    let sql = vec![format!("CREATE SCHEMA IF NOT EXISTS {}", quote::identifier(schema)), unless_there(qualified, &create)];
    SchemaItem { id: format!("TYPE {schema}.{name}"), stage: Stage::BeforeLoad, table: None, sql }
}

/// A type that the target has already is used as it is; values that do not fit it are refused when they are written.
fn unless_there(qualified: &str, create: &str) -> String {
    let body = format!("BEGIN IF to_regtype({}) IS NULL THEN {create}; END IF; END", quote::literal(qualified));
    format!("DO {}", quote::literal(&body))
}

async fn definition(client: &Client, row: &Row) -> Result<Option<String>> {
    let (oid, qualified): (u32, &str) = (row.get(0), row.get(4));
    match (row.get::<_, &str>(3), row.get::<_, Option<&str>>(6)) {
        ("e", _) => {
            let sql = "SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = $1";
            let labels: Option<String> = one(client, sql, oid).await?;
            Ok(Some(format!("CREATE TYPE {qualified} AS ENUM ({})", labels.unwrap_or_default())))
        }
        ("d", _) => domain(client, oid, qualified).await.map(Some),
        ("c", Some("c")) => {
            let sql = "SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid WHERE t.oid = $1 AND a.attnum > 0 AND NOT a.attisdropped";
            let fields: Option<String> = one(client, sql, oid).await?;
            Ok(Some(format!("CREATE TYPE {qualified} AS ({})", fields.unwrap_or_default())))
        }
        ("r", _) => {
            let sql = "SELECT 'subtype = ' || format_type(rngsubtype, NULL) || CASE WHEN rngmultitypid <> 0
                    THEN ', multirange_type_name = ' || rngmultitypid::regtype::text ELSE '' END
                FROM pg_range WHERE rngtypid = $1 AND rngcanonical = 0 AND rngsubdiff = 0";
            let parts: Option<String> = client.query_opt(sql, &[&oid]).await.map_err(error::from_server)?.and_then(|row| row.get(0));
            Ok(parts.map(|parts| format!("CREATE TYPE {qualified} AS RANGE ({parts})")))
        }
        _ => Ok(None),
    }
}

async fn domain(client: &Client, oid: u32, qualified: &str) -> Result<String> {
    let sql = "SELECT format_type(t.typbasetype, t.typtypmod)
            || coalesce(' COLLATE ' || quote_ident(n.nspname) || '.' || quote_ident(co.collname), '')
            || coalesce(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '')
            || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
            || coalesce((SELECT string_agg(' CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), '' ORDER BY k.conname)
                         FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
        FROM pg_type t JOIN pg_type b ON b.oid = t.typbasetype
        LEFT JOIN pg_collation co ON co.oid = t.typcollation AND t.typcollation <> b.typcollation
        LEFT JOIN pg_namespace n ON n.oid = co.collnamespace WHERE t.oid = $1";
    let definition: Option<String> = one(client, sql, oid).await?;
    Ok(format!("CREATE DOMAIN {qualified} AS {}", definition.unwrap_or_default()))
}

async fn one(client: &Client, sql: &str, oid: u32) -> Result<Option<String>> {
    Ok(client.query_one(sql, &[&oid]).await.map_err(error::from_server)?.get(0))
}
