//! The shape of a table as SQLite itself tells it: columns, keys with their collations, unique indexes, triggers.
//!
//! A key is the primary key or else a unique index over columns that are never NULL. SQLite lets a primary key that is
//! not INTEGER hold NULLs unless the table is STRICT or WITHOUT ROWID: such a key identifies nothing and is no key.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use godwit_model::{Appearance, Column, Error, Key, Result, Table, TableName, UniqueKey, codes};
use rusqlite::Connection;

use crate::error::Told;
use crate::tokens::{quoted, tokens};

/// SQLite's schema of a file's own tables.
pub(crate) const MAIN: &str = "main";
/// Everything Godwit makes begins with this; such tables are never selected.
pub(crate) const OWN: &str = "godwit_";

/// What SQLite tells of one table without a look through the file's schema table: enough to read and write rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) columns: Vec<ShapeColumn>,
    pub(crate) key: Option<Vec<KeyPart>>,
    pub(crate) row: RowName,
    /// The column that is the rowid itself (INTEGER PRIMARY KEY).
    pub(crate) integer_key: Option<usize>,
    /// All unique indexes, those of constraints too.
    pub(crate) uniques: Vec<UniqueIndex>,
    pub(crate) without_rowid: bool,
    pub(crate) strict: bool,
}

/// The same with all texts: enough to make the table elsewhere and to capture its changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) frame: Frame,
    pub(crate) sql: String,
    /// Name and text of all indexes that have one, the oldest first.
    pub(crate) indexes: Vec<(String, String)>,
    /// All triggers on the table, the oldest first.
    pub(crate) triggers: Vec<TriggerText>,
    /// Whether some trigger of users, on whatever table, inserts rows here.
    pub(crate) filled_by_triggers: bool,
    /// Columns by which a row may refer to itself and which a foreign key's ON UPDATE action writes.
    pub(crate) self_updated: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShapeColumn {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
    /// Place in the primary key, from 1; 0: not part of it.
    pub(crate) primary: u32,
    pub(crate) generated: bool,
    pub(crate) collation: String,
}

/// A column as an index compares it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyPart {
    pub(crate) column: usize,
    pub(crate) collation: String,
}

/// How a row is told from all others while a statement runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowName {
    /// One of rowid, _rowid_, oid that no column hides, or the INTEGER PRIMARY KEY.
    Rowid(String),
    /// A table WITHOUT ROWID: its primary key.
    Key(Vec<KeyPart>),
    /// Every name of the rowid is hidden by a column.
    Hidden,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    /// `c` a CREATE INDEX, `u` a UNIQUE constraint, `pk` a primary key.
    pub(crate) origin: String,
    pub(crate) partial: bool,
    pub(crate) parts: Vec<IndexPart>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IndexPart {
    /// None: an expression, or the rowid.
    pub(crate) column: Option<usize>,
    pub(crate) collation: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TriggerText {
    pub(crate) name: String,
    pub(crate) sql: String,
}

impl Deref for Shape {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.frame
    }
}

impl Shape {
    /// The triggers that users made.
    pub(crate) fn user_triggers(&self) -> impl Iterator<Item = &TriggerText> {
        self.triggers.iter().filter(|trigger| !trigger.name.starts_with(OWN))
    }

    /// Whether the table is AUTOINCREMENT.
    pub(crate) fn counts_up(&self) -> bool {
        self.integer_key.is_some() && tokens(&self.sql).iter().any(|token| token.is_word("AUTOINCREMENT"))
    }

    /// None: SQLite made it for a constraint.
    pub(crate) fn text_of(&self, index: &UniqueIndex) -> Option<&str> {
        self.indexes.iter().find(|(name, _)| *name == index.name).map(|(_, sql)| sql.as_str())
    }
}

impl Frame {
    /// Indices of the columns that travel: all but generated ones.
    pub(crate) fn carried(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|index| !self.columns[*index].generated).collect()
    }

    /// The stream itself stops where a table is altered: there is nothing to tell by a stamp.
    pub(crate) fn look(&self) -> Appearance {
        let column = |index: usize| (self.columns[index].name.clone(), self.columns[index].type_name.clone());
        Appearance { columns: self.carried().into_iter().map(column).collect(), in_parts: false, stamp: String::new() }
    }

    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    pub(crate) fn quoted_column(&self, index: usize) -> String {
        quoted(&self.columns[index].name)
    }

    /// ` COLLATE x` where an index compares a column otherwise than the column itself; an unneeded one would keep SQLite
    /// from using the rowid.
    pub(crate) fn collate(&self, column: usize, collation: &str) -> String {
        if self.columns[column].collation.eq_ignore_ascii_case(collation) {
            return String::new();
        }
        format!(" COLLATE {}", quoted(collation))
    }

    /// Whether two values of the key that SQLite calls equal always have the same bytes.
    fn key_is_exact(&self) -> bool {
        let exact = |part: &KeyPart| part.collation.eq_ignore_ascii_case("BINARY") && self.is_exact(part.column);
        self.key.as_ref().is_none_or(|key| key.iter().all(exact))
    }

    /// Columns without affinity may hold 1 and 1.0, real ones 0.0 and -0.0.
    fn is_exact(&self, column: usize) -> bool {
        let type_name = self.columns[column].type_name.to_ascii_uppercase();
        let is = |part: &str| type_name.contains(part);
        if is("INT") || is("CHAR") || is("CLOB") || is("TEXT") {
            return true;
        }
        let has_no_affinity = is("BLOB") || type_name.is_empty();
        if has_no_affinity {
            return self.strict && is("BLOB");
        }
        let is_real = is("REAL") || is("FLOA") || is("DOUB");
        !(is_real || self.strict && type_name == "ANY")
    }

    fn key_index(&self) -> Option<&UniqueIndex> {
        self.uniques.iter().find(|index| self.is_key_index(index))
    }

    /// Whether this index is what makes the key hold.
    pub(crate) fn is_key_index(&self, index: &UniqueIndex) -> bool {
        let Some(key) = &self.key else { return false };
        let plain = !index.partial && index.parts.len() == key.len();
        plain && index.parts.iter().zip(key).all(|(part, key)| part.column == Some(key.column) && part.collation == key.collation)
    }

    /// In the words that every engine shares.
    pub(crate) fn table(&self, rows: u64) -> Table {
        let column = |column: &ShapeColumn| Column {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            nullable: !column.not_null,
            generated: column.generated,
        };
        let key_index = self.key_index().map(|index| index.name.clone());
        let others = self.uniques.iter().filter(|index| Some(&index.name) != key_index.as_ref());
        Table {
            name: TableName::new(MAIN, &self.name),
            columns: self.columns.iter().map(column).collect(),
            key: self.key.as_ref().map(|key| Key { columns: key.iter().map(|part| part.column).collect() }),
            uniques: others.map(unique_key).collect(),
            estimated_rows: rows,
            estimated_bytes: rows.saturating_mul(ESTIMATED_ROW_BYTES * self.columns.len() as u64),
            key_is_exact: self.key_is_exact(),
        }
    }
}

/// SQLite keeps no statistics of sizes; a guess for progress bars only.
const ESTIMATED_ROW_BYTES: u64 = 16;

fn unique_key(index: &UniqueIndex) -> UniqueKey {
    let columns: Option<Vec<usize>> = index.parts.iter().map(|part| part.column).collect();
    UniqueKey { name: index.name.clone(), columns: columns.unwrap_or_default() }
}

/// What kind of thing a name in the file is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// `table`, `view`, `shadow`, `virtual`.
    pub(crate) kind: String,
}

/// Tables and views of users, sorted by name.
pub(crate) fn list(connection: &Connection) -> Result<Vec<Listed>> {
    let mut statement = connection.prepare("SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name").told()?;
    let rows = statement.query_map([], |row| Ok(Listed { name: row.get(0)?, kind: row.get(1)? })).told()?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>().told()?;
    Ok(all.into_iter().filter(|listed| !is_internal(&listed.name)).collect())
}

fn is_internal(name: &str) -> bool {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    begins("sqlite_") || begins(OWN)
}

pub(crate) fn missing(name: &str) -> Error {
    Error::new(&codes::TABLE_MISSING, format!("table `{name}` is not there")).at(format!("table {MAIN}.{name}"))
}

impl Frame {
    /// `TABLE_MISSING` if it is not there.
    pub(crate) fn of(connection: &Connection, name: &str) -> Result<Frame> {
        Frame::find(connection, name)?.ok_or_else(|| missing(name))
    }

    /// If it is there.
    pub(crate) fn find(connection: &Connection, name: &str) -> Result<Option<Frame>> {
        let facts = "SELECT wr, strict FROM pragma_table_list(?1) WHERE schema = 'main' AND type = 'table' AND name = ?1";
        let mut statement = connection.prepare_cached(facts).told()?;
        let mut rows = statement.query([name]).told()?;
        let Some(row) = rows.next().told()? else { return Ok(None) };
        let (without_rowid, strict): (bool, bool) = (row.get(0).told()?, row.get(1).told()?);
        let columns = columns(connection, name)?;
        let uniques = uniques(connection, name, &columns)?;
        let integer_key = integer_key(&columns, &uniques, without_rowid);
        let key = key(&columns, &uniques, integer_key);
        let row = row_name(&columns, &uniques, integer_key, without_rowid);
        Ok(Some(Frame { name: name.to_owned(), columns, key, row, integer_key, uniques, without_rowid, strict }))
    }
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<ShapeColumn>> {
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid";
    let mut statement = connection.prepare_cached(sql).told()?;
    let rows = statement.query_map([table], |row| {
        Ok(ShapeColumn {
            name: row.get(0)?,
            type_name: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            primary: row.get(4)?,
            generated: row.get::<_, i64>(5)? >= 2,
            collation: String::new(),
        })
    });
    let mut columns = rows.told()?.collect::<rusqlite::Result<Vec<_>>>().told()?;
    for column in &mut columns {
        let (_, collation, ..) = connection.column_metadata(None, table, column.name.as_str()).told()?;
        column.collation = collation.map_or_else(|| "BINARY".to_owned(), |name| name.to_string_lossy().into_owned());
    }
    Ok(columns)
}

fn uniques(connection: &Connection, table: &str, columns: &[ShapeColumn]) -> Result<Vec<UniqueIndex>> {
    let sql = "SELECT name, origin, partial FROM pragma_index_list(?1) WHERE \"unique\" ORDER BY name";
    let mut statement = connection.prepare_cached(sql).told()?;
    let rows = statement
        .query_map([table], |row| Ok(UniqueIndex { name: row.get(0)?, origin: row.get(1)?, partial: row.get(2)?, parts: Vec::new() }));
    let mut found = rows.told()?.collect::<rusqlite::Result<Vec<_>>>().told()?;
    for index in &mut found {
        index.parts = index_parts(connection, &index.name, columns.len())?;
    }
    Ok(found)
}

fn index_parts(connection: &Connection, index: &str, columns: usize) -> Result<Vec<IndexPart>> {
    let mut statement = connection.prepare_cached("SELECT cid, coll FROM pragma_index_xinfo(?1) WHERE \"key\" ORDER BY seqno").told()?;
    let rows = statement.query_map([index], |row| {
        let column = usize::try_from(row.get::<_, i64>(0)?).ok().filter(|column| *column < columns);
        Ok(IndexPart { column, collation: row.get(1)? })
    });
    rows.told()?.collect::<rusqlite::Result<Vec<_>>>().told()
}

/// An INTEGER PRIMARY KEY is the rowid, unless SQLite made an index for it (the DESC quirk) or the table has no rowid.
fn integer_key(columns: &[ShapeColumn], uniques: &[UniqueIndex], without_rowid: bool) -> Option<usize> {
    let mut primary = columns.iter().enumerate().filter(|(_, column)| column.primary > 0);
    let (index, column) = primary.next()?;
    let alone = primary.next().is_none() && column.type_name.eq_ignore_ascii_case("INTEGER");
    (alone && !without_rowid && uniques.iter().all(|index| index.origin != "pk")).then_some(index)
}

fn key(columns: &[ShapeColumn], uniques: &[UniqueIndex], integer_key: Option<usize>) -> Option<Vec<KeyPart>> {
    if let Some(column) = integer_key {
        return Some(vec![KeyPart { column, collation: "BINARY".into() }]);
    }
    let identifies = |index: &&UniqueIndex| {
        let solid = |part: &IndexPart| part.column.is_some_and(|column| columns[column].not_null && !columns[column].generated);
        !index.partial && index.parts.iter().all(solid)
    };
    let primary = uniques.iter().find(|index| index.origin == "pk" && identifies(index));
    let chosen = primary.or_else(|| uniques.iter().filter(identifies).min_by_key(|index| index.parts.len()))?;
    key_parts(chosen)
}

fn key_parts(index: &UniqueIndex) -> Option<Vec<KeyPart>> {
    index.parts.iter().map(|part| Some(KeyPart { column: part.column?, collation: part.collation.clone() })).collect()
}

fn row_name(columns: &[ShapeColumn], uniques: &[UniqueIndex], integer_key: Option<usize>, without_rowid: bool) -> RowName {
    if without_rowid {
        let primary = uniques.iter().find(|index| index.origin == "pk").and_then(key_parts);
        return primary.map_or(RowName::Hidden, RowName::Key);
    }
    if let Some(column) = integer_key {
        return RowName::Rowid(quoted(&columns[column].name));
    }
    let hidden: HashSet<String> = columns.iter().map(|column| column.name.to_ascii_lowercase()).collect();
    let free = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !hidden.contains(*name));
    free.map_or(RowName::Hidden, |name| RowName::Rowid(name.to_owned()))
}

pub(crate) fn self_updated(connection: &Connection, table: &str) -> Result<Vec<String>> {
    let sql = "SELECT \"from\" FROM pragma_foreign_key_list(?1)
               WHERE \"table\" = ?1 COLLATE NOCASE AND on_update NOT IN ('NO ACTION', 'RESTRICT') ORDER BY 1";
    let mut statement = connection.prepare_cached(sql).told()?;
    let rows = statement.query_map([table], |row| row.get(0)).told()?;
    rows.collect::<rusqlite::Result<Vec<_>>>().told()
}

/// Rows as far as SQLite knows without counting: what ANALYZE noted, else the highest rowid.
pub(crate) struct Estimates(HashMap<String, u64>);

impl Estimates {
    pub(crate) fn read(connection: &Connection) -> Result<Self> {
        let mut noted: HashMap<String, u64> = HashMap::new();
        if connection.table_exists(None, "sqlite_stat1").told()? {
            let mut statement =
                connection.prepare_cached("SELECT tbl, CAST(stat AS INTEGER) FROM sqlite_stat1 WHERE stat IS NOT NULL").told()?;
            let mut rows = statement.query([]).told()?;
            while let Some(row) = rows.next().told()? {
                let (table, rows): (String, i64) = (row.get(0).told()?, row.get(1).told()?);
                let most = noted.entry(table).or_default();
                *most = rows.unsigned_abs().max(*most);
            }
        }
        Ok(Estimates(noted))
    }

    pub(crate) fn of(&self, connection: &Connection, table: &Frame) -> Result<u64> {
        if let Some(noted) = self.0.get(&table.name) {
            return Ok(*noted);
        }
        let RowName::Rowid(rowid) = &table.row else { return Ok(0) };
        let sql = format!("SELECT max({rowid}) FROM {}", table.quoted());
        let highest: Option<i64> = connection.query_row(&sql, [], |row| row.get(0)).told()?;
        Ok(highest.unwrap_or(0).max(0).unsigned_abs())
    }
}
