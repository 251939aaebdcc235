//! What a file's own schema table says, read in one go.
//!
//! `sqlite_schema` has no index, and while changes are captured it holds six long triggers for each table: one question to it
//! per table would make the time grow with the square of their number. So whoever looks at many tables reads it once.

use std::collections::{HashMap, HashSet};

use godwit_model::{Result, Selection, TableName};
use rusqlite::Connection;

use crate::error::Told;
use crate::schema::{self, Frame, MAIN, OWN, Shape, TriggerText, missing};
use crate::tokens::{Token, tokens};

/// The texts of tables, by their names in lower case.
pub(crate) struct Catalog {
    tables: HashMap<String, Texts>,
    /// Tables that some trigger of users inserts into, in lower case.
    filled: HashSet<String>,
}

/// What was written to make a table and what hangs on it, the oldest first.
#[derive(Clone, Default)]
struct Texts {
    sql: Option<String>,
    indexes: Vec<(String, String)>,
    triggers: Vec<TriggerText>,
}

impl Catalog {
    pub(crate) fn read(connection: &Connection) -> Result<Self> {
        Catalog::of(connection, |_| true)
    }

    /// Keeps no texts but those of tables with these names.
    pub(crate) fn of_names<'a>(connection: &Connection, names: impl Iterator<Item = &'a String>) -> Result<Self> {
        let names: HashSet<String> = names.map(|name| name.to_ascii_lowercase()).collect();
        Catalog::of(connection, |name| names.contains(name))
    }

    fn of(connection: &Connection, keeps: impl Fn(&str) -> bool) -> Result<Self> {
        let mut catalog = Catalog { tables: HashMap::new(), filled: HashSet::new() };
        let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('table', 'index', 'trigger') AND sql IS NOT NULL
                   ORDER BY rowid";
        let mut statement = connection.prepare_cached(sql).told()?;
        let mut rows = statement.query([]).told()?;
        while let Some(row) = rows.next().told()? {
            let (kind, name, table): (String, String, String) = (row.get(0).told()?, row.get(1).told()?, row.get(2).told()?);
            let table = table.to_ascii_lowercase();
            if kind == "trigger" && !name.starts_with(OWN) {
                catalog.filled.extend(filled_by(&row.get::<_, String>(3).told()?));
            }
            if !keeps(&table) {
                continue;
            }
            let (texts, sql) = (catalog.tables.entry(table).or_default(), row.get(3).told()?);
            match kind.as_str() {
                "table" => texts.sql = Some(sql),
                "index" => texts.indexes.push((name, sql)),
                _ => texts.triggers.push(TriggerText { name, sql }),
            }
        }
        Ok(catalog)
    }

    /// The shape of one table, if it is there.
    pub(crate) fn find(&self, connection: &Connection, name: &str) -> Result<Option<Shape>> {
        let lower = name.to_ascii_lowercase();
        let Some(texts) = self.tables.get(&lower) else { return Ok(None) };
        let (Some(sql), Some(frame)) = (&texts.sql, Frame::find(connection, name)?) else { return Ok(None) };
        Ok(Some(Shape {
            self_updated: schema::self_updated(connection, name)?,
            filled_by_triggers: self.filled.contains(&lower),
            sql: sql.clone(),
            indexes: texts.indexes.clone(),
            triggers: texts.triggers.clone(),
            frame,
        }))
    }

    /// The same; `TABLE_MISSING` if it is not there.
    pub(crate) fn shape(&self, connection: &Connection, name: &str) -> Result<Shape> {
        self.find(connection, name)?.ok_or_else(|| missing(name))
    }

    pub(crate) fn shapes<'a>(&self, connection: &Connection, names: impl Iterator<Item = &'a String>) -> Result<Vec<Shape>> {
        names.map(|name| self.shape(connection, name)).collect()
    }

    /// The ordinary tables that are selected, sorted by name.
    pub(crate) fn selected(&self, connection: &Connection, select: &Selection) -> Result<Vec<Shape>> {
        let names = names_of_selected(connection, select)?;
        self.shapes(connection, names.iter())
    }
}

/// The names alone of the ordinary tables that are selected, sorted.
pub(crate) fn names_of_selected(connection: &Connection, select: &Selection) -> Result<Vec<String>> {
    let ordinary = schema::list(connection)?.into_iter().filter(|listed| listed.kind == "table");
    Ok(ordinary.map(|listed| listed.name).filter(|name| select.selects(&TableName::new(MAIN, name))).collect())
}

/// Names in a trigger's body that inserts: among them are the tables that it inserts into.
fn filled_by(trigger: &str) -> Vec<String> {
    let all = tokens(trigger);
    let begin = all.iter().position(|token| token.is_word("BEGIN")).unwrap_or(0);
    let body = &all[begin..];
    if !body.iter().any(|token| token.is_word("INSERT") || token.is_word("REPLACE")) {
        return Vec::new();
    }
    let name = |token: &Token| match token {
        Token::Name { name, .. } => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    body.iter().filter_map(name).collect()
}
