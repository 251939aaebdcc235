//! What `information_schema` says of tables, asked for all tables of a database at once.
//!
//! A condition on the database alone is answered by looking into that database; a list of tables besides it only spares
//! rows. Names compare there without case (`Order` and `order` are two tables), so what comes is told apart here.

use std::collections::{BTreeMap, HashMap};

use godwit_model::{Column, Error, Key, Result, Selection, Table, TableName, UniqueKey};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use crate::connect::{Flavor, Server};
use crate::tokens::Piece;
use crate::types::Kind;
use crate::{error, members, quote, tokens};

/// Databases that are nobody's own, and Godwit's.
const SYSTEM: [&str; 5] = ["information_schema", "mysql", "performance_schema", "sys", "godwit"];
/// More names than these are not listed in a question: all of the database are asked for.
const LISTED: usize = 500;

/// A table as its server's catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CatalogTable {
    pub(crate) table: Table,
    pub(crate) engine: String,
    /// The index that `Table::key` is of.
    pub(crate) key_index: Option<String>,
    pub(crate) indexes: Vec<Index>,
    /// The next value that AUTO_INCREMENT gives.
    pub(crate) next_value: Option<u64>,
}

/// In the server's order, the primary key (`PRIMARY`) first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) unique: bool,
    /// `BTREE`, `HASH` (MariaDB's over long values), `FULLTEXT`, `SPATIAL`.
    pub(crate) method: String,
    /// Whether queries may use it.
    pub(crate) used: bool,
    pub(crate) parts: Vec<IndexPart>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IndexPart {
    /// None: an expression.
    pub(crate) column: Option<usize>,
    /// Only so much of the value, in characters or bytes.
    pub(crate) prefix: Option<u32>,
    pub(crate) descending: bool,
}

/// What `information_schema.tables` calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) name: TableName,
    /// `BASE TABLE`, `VIEW`, `SEQUENCE`, `SYSTEM VERSIONED`.
    pub(crate) kind: String,
}

/// The names of the tables that are selected, sorted. Without `tables`, those of the database that the endpoint names,
/// and of all databases where it names none.
pub(crate) async fn selected(conn: &mut Conn, selection: &Selection, database: &str) -> Result<Vec<TableName>> {
    let base = list(conn, selection, database).await?.into_iter().filter(|listed| listed.kind == "BASE TABLE");
    Ok(base.map(|listed| listed.name).collect())
}

/// Everything that stands among the tables and is selected, sorted.
pub(crate) async fn list(conn: &mut Conn, selection: &Selection, database: &str) -> Result<Vec<Listed>> {
    let mut sql = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES".to_owned();
    let only = (selection.tables.is_empty() && !database.is_empty()).then_some(database);
    if let Some(database) = only {
        sql.push_str(&format!(" WHERE TABLE_SCHEMA = {}", quote::literal(database)));
    }
    let mut found = Vec::new();
    for row in rows(conn, sql).await? {
        let listed = Listed { name: TableName::new(text(&row, 0)?, text(&row, 1)?), kind: text(&row, 2)? };
        let is_there = only.is_none_or(|database| database == listed.name.schema) && !is_system(&listed.name.schema);
        if is_there && selection.selects(&listed.name) {
            found.push(listed);
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn is_system(database: &str) -> bool {
    SYSTEM.iter().any(|system| database.eq_ignore_ascii_case(system))
}

/// Those of these tables that are there and hold rows of their own, sorted by name.
pub(crate) async fn read(conn: &mut Conn, server: &Server, names: &[TableName]) -> Result<Vec<CatalogTable>> {
    let called = called(conn, names).await?;
    let own: Vec<TableName> = called.keys().cloned().collect();
    let mut found = BTreeMap::new();
    for (database, names) in by_database(&own) {
        let mut frames = frames(conn, server, database, &names).await?;
        frames.retain(|name, _| called.contains_key(name));
        columns(conn, server, database, &names, &mut frames).await?;
        indexes(conn, server, database, &names, &mut frames).await?;
        found.extend(frames);
    }
    let settled = found.into_iter().map(|(name, mut table)| {
        choose_key(&mut table);
        if let Some(name) = called.get(&name) {
            table.table.name.clone_from(name);
        }
        table
    });
    let mut settled: Vec<CatalogTable> = settled.collect();
    settled.sort_by(|one, other| one.table.name.cmp(&other.table.name));
    Ok(settled)
}

/// These names by those that the server's catalog has them under: in small letters where it knows no others
/// (`lower_case_table_names = 1`).
pub(crate) async fn called<'n>(conn: &mut Conn, names: &'n [TableName]) -> Result<HashMap<TableName, &'n TableName>> {
    let folds: Option<u8> = conn.query_first("SELECT @@lower_case_table_names").await.map_err(error::from_server)?;
    let own = |name: &TableName| match folds {
        Some(1) => TableName::new(name.schema.to_lowercase(), name.name.to_lowercase()),
        _ => name.clone(),
    };
    Ok(names.iter().map(|name| (own(name), name)).collect())
}

pub(crate) fn by_database(names: &[TableName]) -> BTreeMap<&str, Vec<&str>> {
    let mut databases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        databases.entry(&name.schema).or_default().push(&name.name);
    }
    databases
}

/// For the columns that `information_schema` has in most of its tables. Of a list that differs in case alone
/// (`'A', 'a'`) MariaDB 10.11 makes one name, and gives one table: so a list is compared by bytes.
pub(crate) fn of_tables(database: &str, names: &[&str]) -> String {
    let mut condition = format!("TABLE_SCHEMA = {}", quote::literal(database));
    match names {
        [name] => condition.push_str(&format!(" AND TABLE_NAME = {}", quote::literal(name))),
        names if names.len() <= LISTED => {
            let list = quote::list(names.iter().map(|name| quote::literal(name)));
            condition.push_str(&format!(" AND BINARY TABLE_NAME IN ({list})"));
        }
        _ => {}
    }
    condition
}

pub(crate) async fn rows(conn: &mut Conn, sql: String) -> Result<Vec<Row>> {
    conn.query(sql).await.map_err(error::from_server)
}

/// A cell of a text answer; None: NULL.
pub(crate) fn cell(row: &Row, at: usize) -> Result<Option<String>> {
    match row.as_ref(at) {
        Some(Value::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Error::internal("a catalog that is no UTF-8"))?;
            Ok(Some(text.to_owned()))
        }
        Some(Value::NULL) => Ok(None),
        _ => Err(Error::internal("a catalog that answers otherwise than asked")),
    }
}

/// As `cell`, where NULL says the same as nothing.
pub(crate) fn text(row: &Row, at: usize) -> Result<String> {
    Ok(cell(row, at)?.unwrap_or_default())
}

fn number(row: &Row, at: usize) -> Result<Option<u64>> {
    Ok(cell(row, at)?.and_then(|text| text.parse().ok()))
}

type Frames = BTreeMap<TableName, CatalogTable>;

async fn frames(conn: &mut Conn, server: &Server, database: &str, names: &[&str]) -> Result<Frames> {
    if server.flavor == Flavor::MySql {
        // else it tells of a day ago
        conn.query_drop("SET SESSION information_schema_stats_expiry = 0").await.map_err(error::from_server)?;
    }
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_ROWS, DATA_LENGTH, AUTO_INCREMENT FROM information_schema.TABLES";
    let mut found = Frames::new();
    for row in rows(conn, format!("{sql} WHERE TABLE_TYPE = 'BASE TABLE' AND {}", of_tables(database, names))).await? {
        let name = TableName::new(text(&row, 0)?, text(&row, 1)?);
        let table = Table {
            name: name.clone(),
            columns: Vec::new(),
            key: None,
            uniques: Vec::new(),
            estimated_rows: number(&row, 3)?.unwrap_or(0),
            estimated_bytes: number(&row, 4)?.unwrap_or(0),
            key_is_exact: true,
        };
        let next_value = number(&row, 5)?;
        found.insert(name, CatalogTable { table, engine: text(&row, 2)?, key_index: None, indexes: Vec::new(), next_value });
    }
    Ok(found)
}

async fn columns(conn: &mut Conn, server: &Server, database: &str, names: &[&str], frames: &mut Frames) -> Result<()> {
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE, \
        GENERATION_EXPRESSION FROM information_schema.COLUMNS";
    for row in rows(conn, format!("{sql} WHERE {} ORDER BY TABLE_NAME, ORDINAL_POSITION", of_tables(database, names))).await? {
        let Some(frame) = frames.get_mut(&TableName::new(text(&row, 0)?, text(&row, 1)?)) else { continue };
        let (name, mut declared) = (text(&row, 2)?, tokens::pieces(text(&row, 3)?.as_bytes()));
        if server.flavor == Flavor::MariaDb && cell(&row, 4)?.is_some_and(|charset| members::may_be_cut(&declared, &charset)) {
            members::restore(conn, &frame.table.name, &name, &mut declared).await?;
        }
        frame.table.columns.push(Column {
            name,
            type_name: type_name(&declared, cell(&row, 4)?, cell(&row, 5)?),
            nullable: text(&row, 6)? == "YES",
            generated: !text(&row, 7)?.is_empty(),
        });
    }
    Ok(())
}

/// Members of an enum are written there with backslashes, whatever the session's mode is.
pub(crate) fn type_name(declared: &[Piece], charset: Option<String>, collation: Option<String>) -> String {
    let declared = tokens::written(declared);
    match (charset, collation) {
        (Some(charset), Some(collation)) => format!("{declared} CHARACTER SET {charset} COLLATE {collation}"),
        _ => declared,
    }
}

async fn indexes(conn: &mut Conn, server: &Server, database: &str, names: &[&str], frames: &mut Frames) -> Result<()> {
    let own = match server.flavor {
        Flavor::MariaDb if server.version >= 100_600 => "IGNORED = 'NO'",
        Flavor::MariaDb => "1",
        Flavor::MySql => "IS_VISIBLE = 'YES'",
    };
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, NON_UNIQUE, INDEX_TYPE, COLUMN_NAME, SUB_PART, COLLATION, {own} \
        FROM information_schema.STATISTICS WHERE {}",
        of_tables(database, names)
    );
    for row in rows(conn, sql).await? {
        let Some(frame) = frames.get_mut(&TableName::new(text(&row, 0)?, text(&row, 1)?)) else { continue };
        let name = text(&row, 2)?;
        let column = cell(&row, 5)?.and_then(|column| frame.table.column(&column));
        let prefix = number(&row, 6)?.and_then(|length| u32::try_from(length).ok());
        let part = IndexPart { column, prefix, descending: text(&row, 7)? == "D" };
        match frame.indexes.iter_mut().find(|index| index.name == name) {
            Some(index) => index.parts.push(part),
            None => {
                let (unique, used) = (text(&row, 3)? == "0", text(&row, 8)? == "1");
                frame.indexes.push(Index { name, unique, method: text(&row, 4)?, used, parts: vec![part] });
            }
        }
    }
    Ok(())
}

const PRIMARY: &str = "PRIMARY";

/// The primary key, else the unique index of the fewest columns that are never NULL.
fn choose_key(frame: &mut CatalogTable) {
    let columns = |index: &Index| index.parts.iter().map(|part| part.column).collect::<Option<Vec<usize>>>();
    let identifies = |index: &&Index| {
        let is_primary = index.name == PRIMARY;
        let fits = |part: &IndexPart| {
            part.column.is_some_and(|column| {
                let column = &frame.table.columns[column];
                !column.nullable && !column.generated && (is_primary || part.prefix.is_none())
            })
        };
        index.unique && (is_primary || (index.used && index.method == "BTREE")) && index.parts.iter().all(fits)
    };
    let best = frame.indexes.iter().filter(identifies).min_by_key(|index| (index.name != PRIMARY, index.parts.len()));
    let key_index = best.map(|index| index.name.clone());
    let key = best.and_then(columns).map(|columns| Key { columns });
    let exact =
        |part: &IndexPart| part.prefix.is_none() && part.column.is_some_and(|column| is_exact(&frame.table.columns[column].type_name));
    let key_is_exact = best.is_none_or(|index| index.parts.iter().all(exact));
    let others = frame.indexes.iter().filter(|index| index.unique && Some(&index.name) != key_index.as_ref());
    let uniques = others.map(|index| {
        let whole = index.parts.iter().all(|part| part.prefix.is_none());
        UniqueKey { name: index.name.clone(), columns: columns(index).filter(|_| whole).unwrap_or_default() }
    });
    let uniques = uniques.collect();
    frame.key_index = key_index;
    frame.table = Table { key, key_is_exact, uniques, ..frame.table.clone() };
}

/// Whether the server calls two values of the column equal exactly where their bytes are. Most collations know no case
/// or no accents; binary ones without `nopad` take no notice of spaces at the end. A CHAR has none there.
fn is_exact(type_name: &str) -> bool {
    match Kind::parse(type_name) {
        Ok(Kind::Text { collation, fixed, .. }) => {
            collation == "binary"
                || collation.ends_with("_nopad_bin")
                || collation.ends_with("_0900_bin")
                || (fixed && collation.ends_with("_bin"))
        }
        Ok(Kind::Float | Kind::Double | Kind::Json | Kind::Geometry) | Err(_) => false,
        Ok(_) => true,
    }
}
