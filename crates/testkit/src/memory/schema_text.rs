//! The memory engine's own DDL: a definition as text that another memory store understands.
//!
//! Parts are separated by a control character, so that names may hold anything else.

use godwit_model::{Bearing, Column, Error, Feature, Result, SchemaItem, Scope, Stage, Table, TableMapping, TableName, UniqueKey, codes};

use super::heap::Heap;
use super::spec::TableSpec;
use super::state::State;

const SEPARATOR: char = '\u{1f}';

/// The steps that make the table elsewhere under its mapped names: the table, its key, its indexes, and last each unique
/// constraint.
pub(super) fn items(spec: &TableSpec, mapping: &TableMapping) -> Vec<SchemaItem> {
    let mut sql = vec![line(&["table", &mapping.target.schema, &mapping.target.name])];
    for column in &mapping.columns {
        let source = spec.index_of(&column.source).expect("a mapping names the table's own columns");
        let nullable = if spec.columns[source].nullable { "null" } else { "not null" };
        let large = if spec.large.contains(&column.source) { "large" } else { "" };
        sql.push(line(&["column", &column.target, &column.type_name, nullable, large]));
    }
    sql.push(line(&["folds", if spec.folds_case { "yes" } else { "" }]));
    sql.push(line(&["full", if spec.full_old_images { "yes" } else { "" }]));
    let table = &mapping.target;
    let item = |stage, id: String, sql| SchemaItem { id, stage, table: Some(table.clone()), sql };
    let mut items = vec![item(Stage::BeforeLoad, format!("TABLE {table}"), sql)];
    if mapping.has_key() {
        let key = line(&[&["key", &table.schema, &table.name], mapping.key_targets().as_slice()].concat());
        items.push(item(Stage::Key, format!("KEY {table}"), vec![key]));
    }
    let index = |name: &String| {
        let sql = line(&["index", &table.schema, &table.name, name]);
        item(Stage::Index, format!("INDEX {table} {name}"), vec![sql])
    };
    items.extend(spec.indexes.iter().map(index));
    items.extend(spec.uniques.iter().filter_map(|unique| unique_item(spec, mapping, unique)));
    items
}

/// None where one of its columns is left out.
fn unique_item(spec: &TableSpec, mapping: &TableMapping, unique: &UniqueKey) -> Option<SchemaItem> {
    let target = |index: &usize| {
        let source = &spec.columns[*index].name;
        mapping.columns.iter().find(|column| column.source == *source).map(|column| column.target.as_str())
    };
    let columns = unique.columns.iter().map(target).collect::<Option<Vec<_>>>()?;
    let table = &mapping.target;
    let sql = line(&[&["unique", &table.schema, &table.name, &unique.name], columns.as_slice()].concat());
    let id = format!("UNIQUE {table} {}", unique.name);
    Some(SchemaItem { id, stage: Stage::AfterLoad, table: Some(table.clone()), sql: vec![sql] })
}

fn line(parts: &[&str]) -> String {
    parts.join(&SEPARATOR.to_string())
}

/// Runs one step. `file` is the number of a new table's heap.
pub(super) fn perform(state: &mut State, item: &SchemaItem, file: u64) -> Result<()> {
    let Some(first) = item.sql.first() else { return Ok(()) };
    match first.split(SEPARATOR).collect::<Vec<_>>().as_slice() {
        ["table", schema, name] => create(state, TableSpec::new(schema, name), &item.sql[1..], file),
        _ => item.sql.iter().try_for_each(|text| statement(state, text)),
    }
}

fn statement(state: &mut State, text: &str) -> Result<()> {
    let parts: Vec<&str> = text.split(SEPARATOR).collect();
    match parts.as_slice() {
        ["key", schema, table, columns @ ..] => add_key(state, &TableName::new(*schema, *table), columns),
        ["index", schema, table, name] => add_index(state, &TableName::new(*schema, *table), name),
        ["drop index", schema, table, name] => {
            bound(state, &TableName::new(*schema, *table), |spec| spec.indexes.retain(|there| there != name))
        }
        ["drop unique", schema, table, name] => {
            bound(state, &TableName::new(*schema, *table), |spec| spec.uniques.retain(|there| there.name != *name))
        }
        ["nullable", schema, table, column, answer] => bound(state, &TableName::new(*schema, *table), |spec| {
            spec.columns.iter_mut().filter(|there| there.name == *column).for_each(|there| there.nullable = *answer == "yes");
        }),
        ["unique", schema, table, name, columns @ ..] => add_unique(state, &TableName::new(*schema, *table), name, columns),
        _ => Err(refused(text)),
    }
}

fn create(state: &mut State, mut spec: TableSpec, lines: &[String], file: u64) -> Result<()> {
    if state.tables.contains_key(&spec.name) {
        return Err(Error::new(&codes::SERVER_REFUSED, format!("table {} is there already", spec.name)));
    }
    for text in lines {
        match text.split(SEPARATOR).collect::<Vec<_>>().as_slice() {
            ["column", name, type_name, nullable, large] => {
                let column = Column {
                    name: (*name).to_owned(),
                    type_name: (*type_name).to_owned(),
                    nullable: *nullable == "null",
                    generated: false,
                };
                spec.columns.push(column);
                if *large == "large" {
                    spec.large.push((*name).to_owned());
                }
            }
            ["folds", answer] => spec.folds_case = *answer == "yes",
            ["full", answer] => spec.full_old_images = *answer == "yes",
            _ => return Err(refused(text)),
        }
    }
    state.tables.insert(spec.name.clone(), Heap::new(spec, file).into());
    Ok(())
}

fn add_key(state: &mut State, table: &TableName, columns: &[&str]) -> Result<()> {
    let heap = state.heap(table)?;
    if !heap.spec.key.is_empty() {
        return Err(Error::new(&codes::SERVER_REFUSED, format!("table {table} has a key already")));
    }
    let next = heap.reshaped((*heap.spec).clone().key(columns), Clone::clone)?;
    state.tables.insert(table.clone(), next.into());
    Ok(())
}

fn add_index(state: &mut State, table: &TableName, name: &str) -> Result<()> {
    let heap = state.heap(table)?;
    if heap.spec.indexes.iter().any(|there| there == name) {
        return Err(Error::new(&codes::SERVER_REFUSED, format!("index `{name}` is there already")));
    }
    let next = heap.reshaped((*heap.spec).clone().index(name), Clone::clone)?;
    state.tables.insert(table.clone(), next.into());
    Ok(())
}

fn add_unique(state: &mut State, table: &TableName, name: &str, columns: &[&str]) -> Result<()> {
    let heap = state.heap(table)?;
    if heap.spec.uniques.iter().any(|unique| unique.name == name) {
        return Err(Error::new(&codes::SERVER_REFUSED, format!("unique constraint `{name}` is there already")));
    }
    let spec = (*heap.spec).clone().unique(name, columns);
    let next = heap.reshaped(spec, Clone::clone)?;
    state.tables.insert(table.clone(), next.into());
    Ok(())
}

/// The same rows under a definition that is changed so.
fn bound(state: &mut State, table: &TableName, change: impl FnOnce(&mut TableSpec)) -> Result<()> {
    let heap = state.heap(table)?;
    let mut spec = (*heap.spec).clone();
    change(&mut spec);
    let next = heap.reshaped(spec, Clone::clone)?;
    state.tables.insert(table.clone(), next.into());
    Ok(())
}

/// What the table is besides its rows, under these names; what speaks of a column without one is left out.
pub(super) fn features(spec: &TableSpec, table: &TableName, named: impl Fn(&str) -> Option<String>) -> Vec<Feature> {
    let of_table = |first: &str, rest: &[&str]| vec![line(&[&[first, &table.schema, &table.name], rest].concat())];
    let feature = |what: String, definition: String, make: Vec<String>, remove: Vec<String>| Feature {
        table: table.clone(),
        what,
        definition,
        make,
        remove,
        change: Vec::new(),
        bearing: Bearing::None,
        scope: Scope::Table,
        leans_on: None,
    };
    let mut features = Vec::new();
    for column in spec.columns.iter().filter(|column| !column.nullable) {
        let Some(name) = named(&column.name) else { continue };
        let (make, remove) = (of_table("nullable", &[&name, "no"]), of_table("nullable", &[&name, "yes"]));
        let found = feature(format!("NOT NULL of {name}"), String::new(), make, remove);
        features.push(Feature { bearing: Bearing::Refuses, scope: Scope::OfColumn, ..found });
    }
    for name in &spec.indexes {
        features.push(feature(format!("INDEX {name}"), String::new(), of_table("index", &[name]), of_table("drop index", &[name])));
    }
    for unique in &spec.uniques {
        let columns: Option<Vec<String>> = unique.columns.iter().map(|index| named(&spec.columns[*index].name)).collect();
        let Some(columns) = columns else { continue };
        let names: Vec<&str> = [unique.name.as_str()].into_iter().chain(columns.iter().map(String::as_str)).collect();
        let (make, remove) = (of_table("unique", &names), of_table("drop unique", &[&unique.name]));
        let found = feature(format!("UNIQUE {}", unique.name), columns.join(", "), make, remove);
        features.push(Feature { bearing: Bearing::Refuses, ..found });
    }
    features
}

fn refused(text: &str) -> Error {
    let word = text.split(SEPARATOR).next().unwrap_or_default();
    Error::new(&codes::SERVER_REFUSED, format!("the memory engine does not know `{word}`"))
}

/// A heap's table in the words all engines share.
pub(super) fn describe(heap: &Heap) -> Table {
    heap.spec.table(heap.rows.len() as u64, heap.weight())
}
