//! The SQL that makes a table and its indexes elsewhere.
//!
//! A table that keeps all its names is made with its own text, as SQLite stores it. A mapped one is put together from
//! what SQLite says of it; checks, generated columns and index expressions, which only the text holds, are taken from
//! there with the columns' new names. What mentions a column that is left out is listed as not carried.

use std::collections::HashMap;

use godwit_model::{NotCarried, Result, TableMapping};
use rusqlite::Connection;

use crate::error::Told;
use crate::schema::{Shape, ShapeColumn, UniqueIndex};
use crate::tokens::{Token, in_parentheses, mentions, parts, quoted, renamed, tokens, written};

/// All selected tables and what becomes of them.
pub(crate) struct Carried<'a> {
    mappings: HashMap<String, &'a TableMapping>,
    plain: HashMap<String, bool>,
}

/// A table on its way.
pub(crate) struct Made {
    pub(crate) sql: String,
    pub(crate) not_carried: Vec<NotCarried>,
}

struct ForeignKey {
    parent: String,
    columns: Vec<(String, Option<String>)>,
    on_update: String,
    on_delete: String,
}

impl<'a> Carried<'a> {
    pub(crate) fn new(connection: &Connection, shapes: &[Shape], mappings: &'a [TableMapping]) -> Result<Self> {
        let by_name = mappings.iter().map(|mapping| (mapping.source.name.to_ascii_lowercase(), mapping)).collect();
        let mut carried = Carried { mappings: by_name, plain: HashMap::new() };
        for shape in shapes {
            let keeps_names = carried.mapping(&shape.name).is_some_and(|mapping| keeps_all(shape, mapping));
            carried.plain.insert(shape.name.to_ascii_lowercase(), keeps_names);
        }
        let keeps = carried.plain.clone();
        for shape in shapes {
            let keys = foreign_keys(connection, shape)?;
            let fit = keys.iter().all(|key| keeps.get(&key.parent.to_ascii_lowercase()).copied().unwrap_or(false));
            if !fit {
                carried.plain.insert(shape.name.to_ascii_lowercase(), false);
            }
        }
        Ok(carried)
    }

    /// Whether the table's own text is used.
    pub(crate) fn is_plain(&self, table: &str) -> bool {
        self.plain.get(&table.to_ascii_lowercase()).copied().unwrap_or(false)
    }

    /// Whether other objects' texts that mention the table still mean the same: its names are kept.
    pub(crate) fn keeps_names(&self, shape: &Shape) -> bool {
        self.mapping(&shape.name).is_some_and(|mapping| keeps_all(shape, mapping))
    }

    fn mapping(&self, table: &str) -> Option<&'a TableMapping> {
        self.mappings.get(&table.to_ascii_lowercase()).copied()
    }

    pub(crate) fn table(&self, connection: &Connection, shape: &Shape, mapping: &TableMapping) -> Result<Made> {
        if self.is_plain(&shape.name) {
            return Ok(Made { sql: shape.sql.clone(), not_carried: Vec::new() });
        }
        let keys = foreign_keys(connection, shape)?;
        let mut writing = Writing::new(shape, mapping);
        writing.columns();
        writing.primary_key();
        writing.uniques();
        for key in &keys {
            writing.foreign_key(key, self.mapping(&key.parent));
        }
        writing.checks();
        writing.note_lost_words();
        Ok(writing.made())
    }
}

fn keeps_all(shape: &Shape, mapping: &TableMapping) -> bool {
    mapping.is_identity() && mapping.columns.len() == shape.carried().len()
}

fn foreign_keys(connection: &Connection, shape: &Shape) -> Result<Vec<ForeignKey>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq";
    let mut statement = connection.prepare_cached(sql).told()?;
    let mut rows = statement.query([&shape.name]).told()?;
    let mut found: Vec<ForeignKey> = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next().told()? {
        let id: i64 = row.get(0).told()?;
        if last != Some(id) {
            last = Some(id);
            let (on_update, on_delete) = (row.get(4).told()?, row.get(5).told()?);
            found.push(ForeignKey { parent: row.get(1).told()?, columns: Vec::new(), on_update, on_delete });
        }
        if let Some(key) = found.last_mut() {
            key.columns.push((row.get(2).told()?, row.get(3).told()?));
        }
    }
    Ok(found)
}

/// A mapped table's text while it is put together.
struct Writing<'a> {
    shape: &'a Shape,
    mapping: &'a TableMapping,
    tokens: Vec<Token>,
    left_out: Vec<&'a str>,
    definitions: Vec<String>,
    not_carried: Vec<NotCarried>,
}

impl<'a> Writing<'a> {
    fn new(shape: &'a Shape, mapping: &'a TableMapping) -> Self {
        let left_out = left_out(shape, mapping);
        Writing { shape, mapping, tokens: tokens(&shape.sql), left_out, definitions: Vec::new(), not_carried: Vec::new() }
    }

    fn made(self) -> Made {
        let options: Vec<&str> = [("WITHOUT ROWID", self.shape.without_rowid), ("STRICT", self.shape.strict)]
            .iter()
            .filter(|(_, on)| *on)
            .map(|(word, _)| *word)
            .collect();
        let options = if options.is_empty() { String::new() } else { format!(" {}", options.join(", ")) };
        let sql = format!("CREATE TABLE {} (\n  {}\n){options}", quoted(&self.mapping.target.name), self.definitions.join(",\n  "));
        Made { sql, not_carried: self.not_carried }
    }

    fn skip(&mut self, what: &str, reason: &str) {
        let object = format!("{what} of table {}", self.mapping.source);
        self.not_carried.push(NotCarried { object, reason: reason.to_owned() });
    }

    fn columns(&mut self) {
        for (index, column) in self.shape.columns.iter().enumerate() {
            if column.generated {
                self.generated_column(column);
            } else if let Some(name) = new_name(self.mapping, &column.name) {
                let definition = self.plain_column(index, column, &name);
                self.definitions.push(definition);
            }
        }
    }

    fn plain_column(&self, index: usize, column: &ShapeColumn, name: &str) -> String {
        let mut text = vec![quoted(name), column.type_name.clone()];
        if self.shape.integer_key == Some(index) {
            text.push("PRIMARY KEY".into());
            if self.shape.counts_up() {
                text.push("AUTOINCREMENT".into());
            }
        }
        if column.not_null {
            text.push("NOT NULL".into());
        }
        if let Some(default) = &column.default {
            text.push(format!("DEFAULT ({default})"));
        }
        if !column.collation.eq_ignore_ascii_case("BINARY") {
            text.push(format!("COLLATE {}", quoted(&column.collation)));
        }
        text.join(" ")
    }

    fn generated_column(&mut self, column: &ShapeColumn) {
        let what = format!("generated column {}", column.name);
        let Some((expression, stored)) = generated(&self.tokens, &column.name) else {
            return self.skip(&what, "its definition is not understood");
        };
        if mentions(&expression, &self.left_out) {
            return self.skip(&what, "it is computed from a column that is left out");
        }
        let not_null = if column.not_null { " NOT NULL" } else { "" };
        let stored = if stored { "STORED" } else { "VIRTUAL" };
        let expression = written(&renamed(&expression, |name| mapped_name(self.mapping, name)));
        self.definitions.push(format!("{} {} AS ({expression}) {stored}{not_null}", quoted(&column.name), column.type_name));
    }

    fn primary_key(&mut self) {
        let primary = self.shape.uniques.iter().find(|index| index.origin == "pk");
        if let Some(columns) = primary.and_then(|index| self.index_columns(index)) {
            self.definitions.push(format!("PRIMARY KEY ({columns})"));
        }
    }

    fn uniques(&mut self) {
        for index in self.shape.uniques.iter().filter(|index| index.origin == "u") {
            match self.index_columns(index) {
                Some(columns) => self.definitions.push(format!("UNIQUE ({columns})")),
                None => self.skip("a UNIQUE constraint", "one of its columns is left out"),
            }
        }
    }

    fn index_columns(&self, index: &UniqueIndex) -> Option<String> {
        let part = |part: &crate::schema::IndexPart| {
            let column = &self.shape.columns[part.column?];
            let name = if column.generated { column.name.clone() } else { new_name(self.mapping, &column.name)? };
            Some(format!("{} COLLATE {}", quoted(&name), quoted(&part.collation)))
        };
        let columns: Option<Vec<String>> = index.parts.iter().map(part).collect();
        columns.map(|columns| columns.join(", "))
    }

    fn foreign_key(&mut self, key: &ForeignKey, parent: Option<&TableMapping>) {
        let what = format!("foreign key to {}", key.parent);
        let Some(parent) = parent else { return self.skip(&what, "the table it refers to is not selected") };
        let mut from = Vec::new();
        let mut to = Vec::new();
        for (child, referred) in &key.columns {
            let Some(child) = mapped_name(self.mapping, child) else { return self.skip(&what, "one of its columns is left out") };
            from.push(quoted(&child));
            match referred.as_ref().map(|column| mapped_name(parent, column)) {
                None => {}
                Some(Some(column)) => to.push(quoted(&column)),
                Some(None) => return self.skip(&what, "a column it refers to is left out"),
            }
        }
        let to = if to.is_empty() { String::new() } else { format!(" ({})", to.join(", ")) };
        let (update, delete) = (&key.on_update, &key.on_delete);
        let parent = quoted(&parent.target.name);
        self.definitions.push(format!("FOREIGN KEY ({}) REFERENCES {parent}{to} ON UPDATE {update} ON DELETE {delete}", from.join(", ")));
    }

    fn checks(&mut self) {
        for check in checks(&self.tokens) {
            if mentions(&check, &self.left_out) {
                self.skip(&format!("CHECK ({})", written(&check)), "it mentions a column that is left out");
            } else {
                let text = written(&renamed(&check, |name| mapped_name(self.mapping, name)));
                self.definitions.push(format!("CHECK ({text})"));
            }
        }
    }

    /// What SQLite does not say except in the text.
    fn note_lost_words(&mut self) {
        let has = |word: &str| self.tokens.iter().any(|token| token.is_word(word));
        let (conflict, deferrable) = (has("CONFLICT"), has("DEFERRABLE"));
        if conflict {
            self.skip("ON CONFLICT clauses", "the table is mapped");
        }
        if deferrable {
            self.skip("DEFERRABLE of foreign keys", "the table is mapped");
        }
    }
}

/// Columns that do not arrive.
fn left_out<'a>(shape: &'a Shape, mapping: &TableMapping) -> Vec<&'a str> {
    let gone = |column: &&ShapeColumn| !column.generated && new_name(mapping, &column.name).is_none();
    shape.columns.iter().filter(gone).map(|column| column.name.as_str()).collect()
}

fn new_name(mapping: &TableMapping, column: &str) -> Option<String> {
    mapping.columns.iter().find(|mapped| mapped.source == column).map(|mapped| mapped.target.clone())
}

/// As `new_name`, for names in the user's text, where case does not count.
fn mapped_name(mapping: &TableMapping, column: &str) -> Option<String> {
    mapping.columns.iter().find(|mapped| mapped.source.eq_ignore_ascii_case(column)).map(|mapped| mapped.target.clone())
}

fn checks(table: &[Token]) -> Vec<Vec<Token>> {
    let Some((body, _)) = in_parentheses(table) else { return Vec::new() };
    let mut found = Vec::new();
    for part in parts(body) {
        for (at, token) in part.iter().enumerate() {
            if token.is_word("CHECK") && depth(&part[..at]) == 0 && part.get(at + 1) == Some(&Token::Open) {
                found.extend(in_parentheses(&part[at..]).map(|(inner, _)| inner.to_vec()));
            }
        }
    }
    found
}

fn depth(tokens: &[Token]) -> usize {
    let count = |wanted: &Token| tokens.iter().filter(|token| *token == wanted).count();
    count(&Token::Open).saturating_sub(count(&Token::Close))
}

fn generated(table: &[Token], column: &str) -> Option<(Vec<Token>, bool)> {
    let (body, _) = in_parentheses(table)?;
    let part = parts(body).into_iter().find(|part| part.first().is_some_and(|token| token.is_name(column)))?;
    let at = part.windows(2).position(|pair| pair[0].is_word("AS") && pair[1] == Token::Open)?;
    let (expression, after) = in_parentheses(&part[at..])?;
    Some((expression.to_vec(), after.iter().any(|token| token.is_word("STORED"))))
}

/// A CREATE INDEX for the table under its new name; None: it mentions a column that is left out, or is not understood.
pub(crate) fn index(shape: &Shape, mapping: &TableMapping, name: &str, sql: &str) -> Option<String> {
    let all = tokens(sql);
    let on = all.iter().position(|token| token.is_word("ON"))?;
    let unique = if all[..on].iter().any(|token| token.is_word("UNIQUE")) { "UNIQUE " } else { "" };
    let rest = all.get(on + 2..)?;
    if mentions(rest, &left_out(shape, mapping)) {
        return None;
    }
    let rest = written(&renamed(rest, |column| mapped_name(mapping, column)));
    Some(format!("CREATE {unique}INDEX {} ON {} {rest}", quoted(name), quoted(&mapping.target.name)))
}
