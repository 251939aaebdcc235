//! Tables as the catalog states them: the shared words for the pipeline, and what only this engine's rooms ask.

use std::collections::HashMap;

use godwit_model::{Column, Result, Selection, Table, TableName, UniqueKey};
use tokio_postgres::{Client, Row};

use super::key::{TypeFacts, UniqueIndex, choose, is_exact, key_of};
use crate::error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    Ordinary,
    Partitioned,
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    Logged,
    Unlogged,
}

/// A table with what its engine knows besides.
#[derive(Clone, Debug)]
pub(crate) struct CatalogTable {
    pub(crate) oid: u32,
    pub(crate) kind: TableKind,
    /// Of a partitioned table: whether all its partitions are logged.
    pub(crate) persistence: Persistence,
    pub(crate) owner: String,
    pub(crate) replica_identity: char,
    pub(crate) row_security: bool,
    /// Whether it inherits from another table (not as a partition), or another inherits from it.
    pub(crate) inherits: bool,
    pub(crate) partition_key: Option<String>,
    pub(crate) table: Table,
    /// As long as `table.columns`.
    pub(crate) columns: Vec<CatalogColumn>,
    /// The index behind `table.key`.
    pub(crate) key_index: Option<UniqueIndex>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CatalogColumn {
    /// The number under which the catalog keeps it.
    pub(crate) number: i16,
    /// Proven for every row: by a constraint that is valid. A domain that is NOT NULL does not prove it.
    never_null: bool,
    pub(crate) type_oid: u32,
    /// Of the base type where the type is a domain.
    pub(crate) base_schema: String,
    pub(crate) base_name: String,
    pub(crate) base_is_enum: bool,
    pub(crate) base_modifier: i32,
    /// Quoted and qualified, where it is not the type's own.
    pub(crate) collation: Option<String>,
    pub(crate) collation_is_system: bool,
    pub(crate) deterministic: bool,
    /// `a` always, `d` by default.
    pub(crate) identity: Option<char>,
    /// `s` stored, `v` virtual.
    pub(crate) generated: Option<char>,
    /// Default or generation expression.
    pub(crate) expression: Option<String>,
    /// Functions of users that the expression calls.
    pub(crate) expression_calls: Vec<String>,
}

/// Schemas that are never a user's.
pub(crate) const SYSTEM_SCHEMAS: &str =
    "(n.nspname IN ('pg_catalog', 'information_schema', 'godwit') OR n.nspname LIKE 'pg\\_toast%' OR n.nspname LIKE 'pg\\_temp\\_%')";

const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
       CASE WHEN c.relkind = 'p' AND EXISTS (SELECT FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid WHERE t.isleaf AND l.relpersistence = 'u')
            THEN 'u' ELSE c.relpersistence::text END, pg_get_userbyid(c.relowner)::text,
       c.relreplident::text, c.relrowsecurity,
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) OR (c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)),
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
       CASE c.relkind WHEN 'r' THEN greatest(c.reltuples, 0)
            WHEN 'p' THEN (SELECT sum(greatest(l.reltuples, 0)) FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid WHERE t.isleaf) END::float8,
       CASE c.relkind WHEN 'r' THEN pg_relation_size(c.oid)
            WHEN 'p' THEN (SELECT sum(pg_relation_size(t.relid)) FROM pg_partition_tree(c.oid) t WHERE t.isleaf) END::float8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'";

/// The same condition.
const OF_TABLES: &str = "c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'";

const NOT_OF_AN_EXTENSION: &str =
    "NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')";

const COLUMNS: &str = "
SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull OR (t.typtype = 'd' AND t.typnotnull),
       a.attgenerated::text, a.attidentity::text, pg_get_expr(d.adbin, d.adrelid), a.atttypid,
       bn.nspname::text, b.typname::text, b.typtype = 'e', CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END,
       CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END,
       coalesce(cn.nspname = 'pg_catalog', true), coalesce(co.collisdeterministic, true),
       ARRAY(SELECT r.refobjid::regprocedure::text FROM pg_depend r
             WHERE r.classid = 'pg_attrdef'::regclass AND r.objid = d.oid AND r.refclassid = 'pg_proc'::regclass
               AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = r.refobjid AND e.deptype = 'e')),
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN LATERAL (
    WITH RECURSIVE base(oid, typtype, typbasetype) AS (
        SELECT t.oid, t.typtype, t.typbasetype
        UNION ALL SELECT u.oid, u.typtype, u.typbasetype FROM base JOIN pg_type u ON u.oid = base.typbasetype WHERE base.typtype = 'd'
    ) SELECT oid FROM base WHERE typtype <> 'd'
) r ON true
JOIN pg_type b ON b.oid = r.oid
JOIN pg_namespace bn ON bn.oid = b.typnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// Not those of `WITHOUT OVERLAPS`: they exclude, and no upsert finds its row by one.
const UNIQUE_INDEXES: &str = "
SELECT i.indrelid, i.indexrelid, ic.relname::text, i.indisprimary, i.indisreplident, i.indimmediate AND NOT i.indisexclusion, i.indisvalid AND i.indisready,
       i.indpred IS NULL, i.indexprs IS NULL, i.indkey::text, i.indnkeyatts::int4,
       (SELECT k.conname::text FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u') LIMIT 1),
       coalesce((SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u') LIMIT 1),
                substring(pg_get_indexdef(i.indexrelid) FROM position(' USING ' IN pg_get_indexdef(i.indexrelid)) + 1)),
       array_to_string(ic.reloptions, ', ')
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
WHERE i.indisunique AND NOT i.indisexclusion AND i.indrelid = ANY($1)
ORDER BY ic.relname";

/// The user's tables that the selection covers, sorted by name; foreign ones too, for the caller to list.
pub(crate) async fn read_selected(client: &Client, selection: &Selection) -> Result<Vec<CatalogTable>> {
    let sql = format!("{TABLES} AND NOT {SYSTEM_SCHEMAS} AND {NOT_OF_AN_EXTENSION}");
    let rows = client.query(&sql, &[]).await.map_err(error::from_server)?;
    let chosen = rows.iter().filter(|row| selection.selects(&TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))).collect();
    read_rows(client, chosen).await
}

/// All the user's tables, by number.
pub(crate) async fn read_names(client: &Client) -> Result<Vec<(u32, TableName)>> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {OF_TABLES} AND NOT {SYSTEM_SCHEMAS} AND {NOT_OF_AN_EXTENSION}"
    );
    let rows = client.query(&sql, &[]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))).collect())
}

/// Names alone; without foreign tables.
pub(crate) async fn selected_names(client: &Client, selection: &Selection) -> Result<Vec<TableName>> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND NOT {SYSTEM_SCHEMAS} AND {NOT_OF_AN_EXTENSION}
         ORDER BY 1, 2"
    );
    let rows = client.query(&sql, &[]).await.map_err(error::from_server)?;
    let names = rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)));
    Ok(names.filter(|name| selection.selects(name)).collect())
}

/// Those of these tables that are there, whoever owns them.
pub(crate) async fn read_named(client: &Client, names: &[TableName]) -> Result<Vec<CatalogTable>> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let sql = format!("{TABLES} AND (n.nspname::text, c.relname::text) IN (SELECT * FROM unnest($1::text[], $2::text[]))");
    let rows = client.query(&sql, &[&schemas, &tables]).await.map_err(error::from_server)?;
    read_rows(client, rows.iter().collect()).await
}

/// Tables whose columns are held as the server sent them: far more than what is kept of them.
const READ_AT_ONCE: usize = 1000;

async fn read_rows(client: &Client, rows: Vec<&Row>) -> Result<Vec<CatalogTable>> {
    let mut tables = Vec::with_capacity(rows.len());
    for some in rows.chunks(READ_AT_ONCE) {
        let oids: Vec<u32> = some.iter().map(|row| row.get(0)).collect();
        let mut columns = by_table(client.query(COLUMNS, &[&oids]).await.map_err(error::from_server)?);
        let mut indexes = by_table(client.query(UNIQUE_INDEXES, &[&oids]).await.map_err(error::from_server)?);
        tables.extend(some.iter().map(|row| {
            let oid: u32 = row.get(0);
            build(row, &columns.remove(&oid).unwrap_or_default(), &indexes.remove(&oid).unwrap_or_default())
        }));
    }
    tables.sort_by(|a: &CatalogTable, b| a.table.name.cmp(&b.table.name));
    Ok(tables)
}

fn by_table(rows: Vec<Row>) -> HashMap<u32, Vec<Row>> {
    let mut map: HashMap<u32, Vec<Row>> = HashMap::new();
    for row in rows {
        map.entry(row.get(0)).or_default().push(row);
    }
    map
}

fn build(row: &Row, columns: &[Row], indexes: &[Row]) -> CatalogTable {
    let shared: Vec<Column> = columns.iter().map(shared_column).collect();
    let own: Vec<CatalogColumn> = columns.iter().map(catalog_column).collect();
    let indexes: Vec<UniqueIndex> = indexes.iter().map(|row| unique_index(row, &own)).collect();
    // the log does not hold what the server computes, so such a column finds no row
    let unfit: Vec<bool> = own.iter().map(|column| !column.never_null || column.generated.is_some()).collect();
    let key_index = choose(&indexes, &unfit).cloned();
    let key = key_index.as_ref().map(key_of);
    let key_is_exact = key.as_ref().is_none_or(|key| key.columns.iter().all(|index| is_exact(&facts(&own[*index]))));
    let uniques = indexes.iter().filter(|index| Some(*index) != key_index.as_ref());
    let uniques = uniques.map(|index| UniqueKey { name: index.name.clone(), columns: index.columns.clone().unwrap_or_default() }).collect();
    let bytes = row.get::<_, Option<f64>>(11).unwrap_or(0.0);
    let rows = row.get::<_, Option<f64>>(10).unwrap_or(0.0);
    CatalogTable {
        oid: row.get(0),
        kind: match row.get::<_, &str>(3) {
            "p" => TableKind::Partitioned,
            "f" => TableKind::Foreign,
            _ => TableKind::Ordinary,
        },
        persistence: if row.get::<_, &str>(4) == "u" { Persistence::Unlogged } else { Persistence::Logged },
        owner: row.get(5),
        replica_identity: first_letter(row.get(6)).unwrap_or('d'),
        row_security: row.get(7),
        inherits: row.get(8),
        partition_key: row.get(9),
        table: Table {
            name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            columns: shared,
            key,
            uniques,
            estimated_rows: estimate(rows, bytes),
            estimated_bytes: bytes as u64,
            key_is_exact,
        },
        columns: own,
        key_index,
    }
}

/// Without statistics, a guess from the size, so that a large table never looks empty.
fn estimate(rows: f64, bytes: f64) -> u64 {
    const GUESSED_ROW_BYTES: f64 = 100.0;
    if rows > 0.0 { rows as u64 } else { (bytes / GUESSED_ROW_BYTES) as u64 }
}

fn shared_column(row: &Row) -> Column {
    let generated = !row.get::<_, &str>(5).is_empty();
    Column { name: row.get(2), type_name: row.get(3), nullable: !row.get::<_, bool>(4), generated }
}

fn catalog_column(row: &Row) -> CatalogColumn {
    CatalogColumn {
        number: row.get(1),
        generated: first_letter(row.get(5)),
        identity: first_letter(row.get(6)),
        expression: row.get(7),
        type_oid: row.get(8),
        base_schema: row.get(9),
        base_name: row.get(10),
        base_is_enum: row.get(11),
        base_modifier: row.get(12),
        collation: row.get(13),
        collation_is_system: row.get(14),
        deterministic: row.get(15),
        expression_calls: row.get(16),
        never_null: row.get(17),
    }
}

fn first_letter(text: &str) -> Option<char> {
    text.chars().next()
}

fn facts(column: &CatalogColumn) -> TypeFacts<'_> {
    TypeFacts {
        schema: &column.base_schema,
        name: &column.base_name,
        is_enum: column.base_is_enum,
        modifier: column.base_modifier,
        deterministic: column.deterministic,
    }
}

fn unique_index(row: &Row, columns: &[CatalogColumn]) -> UniqueIndex {
    let width = usize::try_from(row.get::<_, i32>(10)).unwrap_or(0);
    let numbers = row.get::<_, &str>(9).split_whitespace().take(width).map(|number| number.parse::<i16>().unwrap_or(0));
    let places = numbers.map(|number| columns.iter().position(|column| column.number == number)).collect::<Option<Vec<_>>>();
    UniqueIndex {
        oid: row.get(1),
        name: row.get(2),
        primary: row.get(3),
        replica_identity: row.get(4),
        immediate: row.get(5),
        valid: row.get(6),
        whole: row.get(7),
        columns: places.filter(|_| row.get::<_, bool>(8)),
        constraint: row.get(11),
        definition: row.get(12),
        options: row.get(13),
    }
}
