//! What the source holds of what the task selects, and the steps that make it elsewhere.

use std::collections::{HashMap, HashSet};

use godwit_model::{
    Create, Description, Error, NotCarried, Result, SchemaItem, SequenceValue, Stage, Table, TableMapping, TableName, Task, Value, codes,
};
use rusqlite::Connection;

use crate::catalog::{Catalog, names_of_selected};
use crate::ddl::{self, Carried};
use crate::error::Told;
use crate::schema::{self, Estimates, Frame, MAIN, OWN, Shape};
use crate::tokens::{mentions, tokens};

pub(crate) fn describe(connection: &Connection, task: &Task) -> Result<Description> {
    let shapes = Catalog::read(connection)?.selected(connection, &task.select)?;
    let estimates = Estimates::read(connection)?;
    let tables = shapes.iter().map(|shape| Ok(shape.table(estimates.of(connection, shape)?))).collect::<Result<Vec<Table>>>()?;
    let mappings = TableMapping::resolve_all(&task.map, &tables)?;
    let looks = shapes.iter().map(|shape| shape.look()).collect();
    let mut description = Description { tables, looks, ..Description::default() };
    let all = task.schema.create == Create::All;
    if (all || task.schema.create == Create::Tables) && task.target.engine == task.source.engine {
        refuse_bad_names(&mappings)?;
        let carried = Carried::new(connection, &shapes, &mappings)?;
        for (shape, mapping) in shapes.iter().zip(&mappings) {
            add_table(connection, &mut description, &carried, shape, mapping)?;
        }
        if all {
            add_views_and_triggers(connection, &mut description, &carried, &shapes)?;
            add_version(connection, &mut description)?;
        }
    }
    add_virtual_tables(connection, &mut description)?;
    Ok(description)
}

/// SQLite has one schema for a file's own tables, and its names know no case.
fn refuse_bad_names(mappings: &[TableMapping]) -> Result<()> {
    let mut seen = HashSet::new();
    for mapping in mappings {
        if mapping.target.schema != MAIN {
            return Err(Error::new(&codes::TASK_UNSUPPORTED, format!("a SQLite file has no schema `{}`", mapping.target.schema))
                .at("map")
                .remedy(format!("map to {MAIN}.{}", mapping.target.name)));
        }
        if mapping.target.name.to_ascii_lowercase().starts_with(OWN) || !seen.insert(mapping.target.name.to_ascii_lowercase()) {
            return Err(Error::new(&codes::NAMES_COLLIDE, format!("the name {} is taken", mapping.target))
                .at("map")
                .remedy("choose another name"));
        }
    }
    Ok(())
}

fn add_table(
    connection: &Connection,
    description: &mut Description,
    carried: &Carried<'_>,
    shape: &Shape,
    mapping: &TableMapping,
) -> Result<()> {
    let made = carried.table(connection, shape, mapping)?;
    description.not_carried.extend(made.not_carried);
    let mut table_sql = vec![made.sql];
    let mut later = Vec::new();
    for (name, sql) in &shape.indexes {
        let sql = if carried.keeps_names(shape) { Some(sql.clone()) } else { ddl::index(shape, mapping, name, sql) };
        let Some(sql) = sql else {
            let reason = "it mentions a column that is left out".to_owned();
            description.not_carried.push(NotCarried { object: format!("INDEX {MAIN}.{name}"), reason });
            continue;
        };
        // Without it no row is found by its key during the load.
        if shape.uniques.iter().any(|index| index.name == *name && shape.is_key_index(index)) {
            table_sql.push(sql);
        } else {
            later.push(item(format!("INDEX {MAIN}.{name}"), Stage::AfterLoad, Some(&mapping.target), sql));
        }
    }
    let id = format!("TABLE {}", mapping.target);
    description.items.push(SchemaItem { id, stage: Stage::BeforeLoad, table: Some(mapping.target.clone()), sql: table_sql });
    description.items.extend(later);
    Ok(())
}

fn item(id: String, stage: Stage, table: Option<&TableName>, sql: String) -> SchemaItem {
    SchemaItem { id, stage, table: table.cloned(), sql: vec![sql] }
}

/// In the order they were made, so that a view comes after those it is made of. Their texts are never changed: one
/// that mentions something that does not arrive under its own name is not carried.
fn add_views_and_triggers(connection: &Connection, description: &mut Description, carried: &Carried<'_>, shapes: &[Shape]) -> Result<()> {
    let fit: HashSet<&str> = shapes.iter().filter(|shape| carried.keeps_names(shape)).map(|shape| shape.name.as_str()).collect();
    let listed = schema::list(connection)?;
    let mut unfit: Vec<String> = listed
        .into_iter()
        .filter(|listed| listed.kind != "view" && !fit.contains(listed.name.as_str()))
        .map(|listed| listed.name)
        .collect();
    let sql = "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('view', 'trigger') ORDER BY rowid";
    let mut statement = connection.prepare(sql).told()?;
    let mut rows = statement.query([]).told()?;
    while let Some(row) = rows.next().told()? {
        let (kind, name, sql): (String, String, String) = (row.get(0).told()?, row.get(1).told()?, row.get(2).told()?);
        if name.starts_with(OWN) {
            continue;
        }
        let id = format!("{} {MAIN}.{name}", kind.to_ascii_uppercase());
        let all = tokens(&sql);
        match unfit.iter().find(|name| mentions(&all, &[name.as_str()])) {
            None => description.items.push(item(id, Stage::AtFinish, None, sql)),
            Some(other) => {
                let reason = format!("it mentions {other}, which does not arrive under its own names");
                description.not_carried.push(NotCarried { object: id, reason });
                unfit.extend((kind == "view").then_some(name));
            }
        }
    }
    Ok(())
}

/// Applications keep the version of their schema, and what kind of file it is, in the file's header.
fn add_version(connection: &Connection, description: &mut Description) -> Result<()> {
    for name in ["user_version", "application_id"] {
        let value: i64 = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).told()?;
        if value != 0 {
            let id = format!("PRAGMA {name}");
            description.items.push(item(id, Stage::AtFinish, None, format!("PRAGMA {name} = {value}")));
        }
    }
    Ok(())
}

fn add_virtual_tables(connection: &Connection, description: &mut Description) -> Result<()> {
    for listed in schema::list(connection)?.into_iter().filter(|listed| listed.kind == "virtual") {
        let reason = "virtual tables (full text and the like) keep their rows in ways that no trigger sees; make it anew".to_owned();
        description.not_carried.push(NotCarried { object: format!("VIRTUAL TABLE {MAIN}.{}", listed.name), reason });
    }
    Ok(())
}

/// Each table's counter, and where it is. Anyone may write there anything: what is no number counts as none. Of two rows of one
/// name SQLite goes by the first.
pub(crate) const COUNTERS: &str = "
SELECT CAST(name AS TEXT), rowid, CAST(ifnull(seq, 0) AS INTEGER) FROM sqlite_sequence WHERE name IS NOT NULL ORDER BY rowid";

/// AUTOINCREMENT counters of the selected tables, under their names at the target.
pub(crate) fn sequences(connection: &Connection, task: &Task) -> Result<Vec<SequenceValue>> {
    if !connection.table_exists(None, "sqlite_sequence").told()? {
        return Ok(Vec::new());
    }
    let mut counted = HashMap::new();
    let mut statement = connection.prepare_cached(COUNTERS).told()?;
    let mut rows = statement.query([]).told()?;
    while let Some(row) = rows.next().told()? {
        counted.entry(row.get::<_, String>(0).told()?).or_insert(row.get::<_, i64>(2).told()?);
    }
    let names = names_of_selected(connection, &task.select)?;
    let tables = names.iter().filter(|name| counted.contains_key(*name)).map(|name| Ok(Frame::of(connection, name)?.table(0)));
    let mut found = Vec::new();
    for mapping in TableMapping::resolve_all(&task.map, &tables.collect::<Result<Vec<Table>>>()?)? {
        if let Some(last) = counted.get(&mapping.source.name) {
            found.push(SequenceValue { name: mapping.target, last: Value::Int(*last), called: true });
        }
    }
    Ok(found)
}
