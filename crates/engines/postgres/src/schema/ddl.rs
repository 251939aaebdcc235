//! `CREATE TABLE` for one mapped table: columns, defaults, identity; and its key, a step of its own.

use std::collections::{HashMap, HashSet};

use godwit_model::{NotCarried, SchemaItem, Stage, TableMapping, TableName};

use super::catalog::{CatalogColumn, CatalogTable, Persistence};
use super::sequences::OwnedSequence;
use crate::quote;

/// What the tables' steps are written from and into.
pub(crate) struct Outline {
    pub(crate) items: Vec<SchemaItem>,
    pub(crate) not_carried: Vec<NotCarried>,
    /// Names of indexes and constraints given out so far, by schema: two schemas may become one.
    taken: HashSet<TableName>,
    functions: Functions,
}

/// Which of the users' functions are at the target when our own tables are made.
pub(crate) enum Functions {
    None,
    /// Under the names that the catalog prints.
    AllBut(HashSet<String>),
}

impl Functions {
    /// The first of these that is not there, in words.
    pub(crate) fn missing(&self, calls: &[String]) -> Option<String> {
        match self {
            Functions::None if calls.is_empty() => None,
            Functions::None => Some(format!("it calls {}, which is not made without pg_dump", calls.join(", "))),
            Functions::AllBut(lost) => {
                calls.iter().find(|call| lost.contains(*call)).map(|call| format!("it calls {call}, which is not made"))
            }
        }
    }
}

impl Outline {
    pub(crate) fn new(functions: Functions) -> Self {
        Outline { items: Vec::new(), not_carried: Vec::new(), taken: HashSet::new(), functions }
    }

    pub(crate) fn missing_function(&self, calls: &[String]) -> Option<String> {
        self.functions.missing(calls)
    }

    /// The same for users' operators, their classes, collations.
    pub(crate) fn missing_object(&self, uses: &[String]) -> Option<String> {
        let first = uses.first().filter(|_| matches!(self.functions, Functions::None))?;
        Some(format!("it uses {first}, which is not made without pg_dump"))
    }

    pub(crate) fn leave(&mut self, object: String, reason: &str) {
        self.not_carried.push(NotCarried { object, reason: reason.to_owned() });
    }

    /// The name again, or None where another index of that schema has it: the server then chooses one.
    pub(crate) fn index_name(&mut self, schema: &str, name: &str) -> Option<String> {
        self.taken.insert(TableName::new(schema, name)).then(|| quote::identifier(name))
    }
}

/// A selected table and what it becomes.
#[derive(Clone, Copy)]
pub(crate) struct Mapped<'a> {
    pub(crate) source: &'a CatalogTable,
    pub(crate) mapping: &'a TableMapping,
}

impl Mapped<'_> {
    /// The target's name of a source column; None where it is left out (or generated and not carried).
    pub(crate) fn target_column(&self, index: usize) -> Option<&str> {
        let name = &self.source.table.columns[index].name;
        match self.mapping.columns.iter().find(|column| column.source == *name) {
            Some(column) => Some(&column.target),
            None => (self.source.columns[index].generated.is_some() && self.keeps_columns()).then_some(name),
        }
    }

    /// Whether every column arrives under its own name, so that the server's own expressions hold.
    pub(crate) fn keeps_columns(&self) -> bool {
        let carried = self.source.table.columns.iter().filter(|column| !column.generated).count();
        carried == self.mapping.columns.len() && self.mapping.columns.iter().all(|column| column.source == column.target)
    }

    /// Target columns of these source columns, quoted and joined; None if one is missing.
    pub(crate) fn column_list(&self, indices: &[usize]) -> Option<String> {
        let names: Option<Vec<String>> = indices.iter().map(|index| self.target_column(*index).map(quote::identifier)).collect();
        names.map(|names| names.join(", "))
    }
}

pub(crate) type Sequences = HashMap<(u32, i16), OwnedSequence>;

pub(crate) fn create_table(table: &Mapped<'_>, sequences: &Sequences, outline: &mut Outline) {
    let target = &table.mapping.target;
    let mut lines = Vec::new();
    let mut before = vec![format!("CREATE SCHEMA IF NOT EXISTS {}", quote::identifier(&target.schema))];
    let mut after = Vec::new();
    for (index, own) in table.source.columns.iter().enumerate() {
        let Some(name) = table.target_column(index) else {
            if own.generated.is_some() {
                let object = format!("COLUMN {}.{}", table.mapping.source, table.source.table.columns[index].name);
                outline.leave(object, "its expression speaks of columns that are renamed or left out");
            }
            continue;
        };
        let sequence = sequences.get(&(table.source.oid, own.number)).map(|sequence| sequence.renamed(table));
        if let Some(sequence) = sequence.as_ref().filter(|_| own.identity.is_none()) {
            before.push(format!("CREATE SCHEMA IF NOT EXISTS {}", quote::identifier(&sequence.name.schema)));
            before.push(sequence.create());
            if sequence.owned {
                after.push(format!(
                    "ALTER SEQUENCE {} OWNED BY {}.{}",
                    quote::table(&sequence.name),
                    quote::table(target),
                    quote::identifier(name)
                ));
            }
        }
        lines.push(column(table, index, name, sequence.as_ref(), outline));
        if own.identity == Some('a') {
            always_at_finish(target, name, outline);
        }
    }
    let unlogged = if table.source.persistence == Persistence::Unlogged { "UNLOGGED " } else { "" };
    before.push(format!("CREATE {unlogged}TABLE {} (\n    {}\n)", quote::table(target), lines.join(",\n    ")));
    before.extend(after);
    outline.items.push(SchemaItem { id: format!("TABLE {target}"), stage: Stage::BeforeLoad, table: Some(target.clone()), sql: before });
    if let Some(sql) = key_constraint(table, outline).or_else(|| key_index(table, outline)) {
        outline.items.push(SchemaItem { id: format!("KEY {target}"), stage: Stage::Key, table: Some(target.clone()), sql: vec![sql] });
    }
}

fn column(table: &Mapped<'_>, index: usize, name: &str, sequence: Option<&OwnedSequence>, outline: &mut Outline) -> String {
    let own = &table.source.columns[index];
    let shared = &table.source.table.columns[index];
    let mut line = format!("{} {}", quote::identifier(name), shared.type_name);
    match &own.collation {
        Some(collation) if own.collation_is_system => line.push_str(&format!(" COLLATE {collation}")),
        Some(collation) => {
            outline.leave(
                format!("COLLATION {collation} of {}.{}", table.mapping.source, shared.name),
                "a collation of its own; the column gets the database's",
            );
        }
        None => {}
    }
    if !shared.nullable {
        line.push_str(" NOT NULL");
    }
    line.push_str(&value_source(table, own, &shared.name, sequence, outline));
    line
}

/// Default, identity or generation clause.
fn value_source(table: &Mapped<'_>, own: &CatalogColumn, name: &str, sequence: Option<&OwnedSequence>, outline: &mut Outline) -> String {
    if let (Some(_), Some(sequence)) = (own.identity, sequence) {
        return format!(" GENERATED BY DEFAULT AS IDENTITY ({})", sequence.options(true));
    }
    let Some(expression) = &own.expression else { return String::new() };
    match (own.generated, sequence) {
        (Some('v'), _) => format!(" GENERATED ALWAYS AS ({expression}) VIRTUAL"),
        (Some(_), _) => format!(" GENERATED ALWAYS AS ({expression}) STORED"),
        (None, Some(sequence)) if expression.starts_with("nextval(") => {
            format!(" DEFAULT nextval({}::regclass)", quote::literal(&quote::table(&sequence.name)))
        }
        (None, _) if outline.missing_function(&own.expression_calls).is_some() => {
            let reason = outline.missing_function(&own.expression_calls).unwrap_or_default();
            outline.leave(format!("DEFAULT of {}.{name}", table.mapping.source), &reason);
            String::new()
        }
        (None, _) if expression.contains("nextval(") => {
            outline.leave(format!("DEFAULT of {}.{name}", table.mapping.source), "it uses a sequence that belongs to no column");
            String::new()
        }
        (None, _) => format!(" DEFAULT {expression}"),
    }
}

/// A row's own value may be written to such a column in an INSERT, never in an UPDATE: it becomes what it was at finish.
fn always_at_finish(target: &TableName, name: &str, outline: &mut Outline) {
    outline.items.push(SchemaItem {
        id: format!("IDENTITY {target}.{name}"),
        stage: Stage::AtFinish,
        table: Some(target.clone()),
        sql: vec![format!("ALTER TABLE {} ALTER COLUMN {} SET GENERATED ALWAYS", quote::table(target), quote::identifier(name))],
    });
}

fn key_constraint(table: &Mapped<'_>, outline: &mut Outline) -> Option<String> {
    let index = table.source.key_index.as_ref()?;
    let constraint = index.constraint.as_ref()?;
    let columns = table.column_list(index.columns.as_deref()?)?;
    let name = outline.index_name(&table.mapping.target.schema, constraint).map(|name| format!("CONSTRAINT {name} ")).unwrap_or_default();
    let kind = if index.primary { "PRIMARY KEY" } else { "UNIQUE" };
    let definition = if table.keeps_columns() { index.definition.clone() } else { format!("{kind} ({columns})") };
    let options = index.options.as_ref().map(|options| format!(" WITH ({options})")).unwrap_or_default();
    Some(format!("ALTER TABLE {} ADD {name}{definition}{options}", quote::table(&table.mapping.target)))
}

/// A key that is an index and no constraint.
fn key_index(table: &Mapped<'_>, outline: &mut Outline) -> Option<String> {
    let index = table.source.key_index.as_ref().filter(|index| index.constraint.is_none())?;
    let columns = table.column_list(index.columns.as_deref()?)?;
    let target = &table.mapping.target;
    let name = outline.index_name(&target.schema, &index.name).unwrap_or_default();
    let definition = if table.keeps_columns() { index.definition.clone() } else { format!("({columns})") };
    Some(format!("CREATE UNIQUE INDEX {name} ON {} {definition}", quote::table(target)))
}
