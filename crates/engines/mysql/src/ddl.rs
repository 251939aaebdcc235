//! The steps that make tables at a server of the same family.
//!
//! A table's key stays in CREATE TABLE: InnoDB's rows lie in it, and to add it later would write them all again. So does
//! the index that AUTO_INCREMENT must have, and checks, which later would look at every row. Other indexes come when the
//! rows are there; unique ones when replay has met P1; foreign keys at finish.

use std::collections::{BTreeMap, HashMap, HashSet};

use godwit_model::{NotCarried, SchemaItem, Stage, TableMapping, TableName};

use crate::catalog::CatalogTable;
use crate::created::{Created, KeyText};
use crate::quote;
use crate::renaming::{Lost, Renaming, definition, without_default};
use crate::tokens::{Piece, Token, written};

/// A database's own character set and collation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charset {
    pub(crate) name: String,
    pub(crate) collation: String,
}

/// In characters.
const LONGEST_NAME: usize = 64;

#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) items: Vec<SchemaItem>,
    pub(crate) not_carried: Vec<NotCarried>,
    foreign_keys: Vec<SchemaItem>,
    /// Names of constraints given out: InnoDB's foreign keys share one room in a database.
    taken: HashSet<TableName>,
}

/// Tables as described, their mappings in the same order, their definitions and their databases'.
pub(crate) fn steps(
    tables: &[CatalogTable],
    mappings: &[TableMapping],
    created: &HashMap<TableName, Created>,
    databases: &BTreeMap<String, Charset>,
) -> Steps {
    let mut steps = Steps::default();
    let pairs = tables.iter().zip(mappings);
    let renamed = pairs.filter_map(|(table, mapping)| Some((table, Renaming::new(&table.table, created.get(&table.table.name)?, mapping))));
    let renamed: Vec<(&CatalogTable, Renaming<'_>)> = renamed.collect();
    steps.databases(mappings, databases);
    for (table, renaming) in &renamed {
        steps.table(table, renaming);
    }
    let by_name: HashMap<&TableName, &Renaming<'_>> = renamed.iter().map(|(_, renaming)| (&renaming.mapping.source, renaming)).collect();
    for (_, renaming) in &renamed {
        steps.references(renaming, &by_name);
    }
    let foreign_keys = std::mem::take(&mut steps.foreign_keys);
    steps.items.extend(foreign_keys);
    steps
}

impl Steps {
    fn databases(&mut self, mappings: &[TableMapping], known: &BTreeMap<String, Charset>) {
        let mut wanted: BTreeMap<&str, &TableMapping> = BTreeMap::new();
        for mapping in mappings {
            wanted.entry(&mapping.target.schema).or_insert(mapping);
        }
        for (database, mapping) in wanted {
            let charset = known.get(&mapping.source.schema);
            let charset =
                charset.map(|charset| format!(" CHARACTER SET {} COLLATE {}", charset.name, charset.collation)).unwrap_or_default();
            let sql = format!("CREATE DATABASE IF NOT EXISTS {}{charset}", quote::identifier(database));
            self.items.push(SchemaItem { id: format!("DATABASE {database}"), stage: Stage::BeforeLoad, table: None, sql: vec![sql] });
        }
    }

    fn lose(&mut self, lost: Vec<Lost>) {
        self.not_carried.extend(lost.into_iter().map(|lost| NotCarried { object: lost.what, reason: lost.reason }));
    }

    fn table(&mut self, table: &CatalogTable, renaming: &Renaming<'_>) {
        let (source, target) = (&renaming.mapping.source, &renaming.mapping.target);
        let mut lost = Vec::new();
        let columns = renaming.columns(&mut lost);
        let mut lines: Vec<String> = columns.iter().map(|column| definition(column, &[])).collect();
        lines.extend(renaming.created.periods.iter().filter_map(|period| renaming.renamed(period)).map(|period| written(&period)));
        let at_once = at_once(table, renaming.created);
        let mut later = Vec::new();
        for key in &renaming.created.keys {
            let name = key.name.as_deref().unwrap_or("PRIMARY");
            match renaming.key(key) {
                Some(text) if at_once.contains(name) => lines.push(text),
                Some(text) => later.push(index(target, key, name, &text)),
                None => lost.push(left_out(format!("INDEX {name} of {source}"))),
            }
        }
        for check in &renaming.created.checks {
            match renaming.renamed(&check.text) {
                Some(text) => lines.push(format!("CONSTRAINT {} {}", quote::identifier(&check.name), written(&text))),
                None => lost.push(left_out(format!("CONSTRAINT {} of {source}", check.name))),
            }
        }
        let options = written(&kept_options(&renaming.created.options, &mut lost, source));
        let partitions = renaming.partitions().map(|pieces| written(&kept_options(&pieces, &mut lost, source)));
        if partitions.is_none() {
            lost.push(left_out(format!("PARTITIONS of {source}")));
        }
        let partitions = partitions.filter(|text| !text.is_empty()).map(|text| format!("\n{text}")).unwrap_or_default();
        let mut sql = vec![format!("CREATE TABLE {} (\n  {}\n) {options}{partitions}", quote::table(target), lines.join(",\n  "))];
        sql.extend(columns.iter().filter_map(without_default).map(|what| format!("ALTER TABLE {} {what}", quote::table(target))));
        self.items.push(SchemaItem { id: format!("TABLE {target}"), stage: Stage::BeforeLoad, table: Some(target.clone()), sql });
        self.items.extend(later);
        self.lose(lost);
    }

    fn references(&mut self, renaming: &Renaming<'_>, all: &HashMap<&TableName, &Renaming<'_>>) {
        let (source, target) = (&renaming.mapping.source, &renaming.mapping.target);
        for key in &renaming.created.foreign_keys {
            let object = format!("FOREIGN KEY {} of {source}", key.name);
            let Some(other) = all.get(&key.table) else {
                let reason = format!("it refers to {}, which is not selected", key.table);
                self.not_carried.push(NotCarried { object, reason });
                continue;
            };
            let Some(text) = renaming.foreign_key(key, &other.mapping.target, Some(*other)) else {
                self.lose(vec![left_out(object)]);
                continue;
            };
            let name = self.free_name(&target.schema, &key.name);
            let id = format!("FOREIGN KEY {target}.{}", key.name);
            let sql = vec![format!("ALTER TABLE {} ADD CONSTRAINT {} {text}", quote::table(target), quote::identifier(&name))];
            self.foreign_keys.push(SchemaItem { id, stage: Stage::AtFinish, table: Some(target.clone()), sql });
        }
    }

    /// The name, with a number if another has it. One that the server gives would be another each time that the statement
    /// runs: what was cut off behind it would be made twice.
    fn free_name(&mut self, database: &str, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while !self.taken.insert(TableName::new(database, name.to_lowercase())) {
            number += 1;
            let suffix = format!("_{number}");
            name = wanted.chars().take(LONGEST_NAME - suffix.len()).chain(suffix.chars()).collect();
        }
        name
    }
}

fn left_out(what: String) -> Lost {
    Lost { what, reason: "it mentions a column that is left out".to_owned() }
}

/// Names of the keys that stand in CREATE TABLE.
fn at_once<'a>(table: &'a CatalogTable, created: &'a Created) -> HashSet<&'a str> {
    let mut names: HashSet<&str> = HashSet::from(["PRIMARY"]);
    names.extend(table.key_index.as_deref());
    if let Some(counter) = created.columns.iter().find(|column| column.counts_up()) {
        let leads = |key: &&KeyText| key.leads_with().is_some_and(|name| name.eq_ignore_ascii_case(&counter.name));
        let mut leading = created.keys.iter().filter(leads);
        let name = |key: &'a KeyText| key.name.as_deref().unwrap_or("PRIMARY");
        if !leading.clone().any(|key| names.contains(name(key))) {
            // one that refuses nothing, where there is one
            let best = leading.clone().find(|key| !key.is_unique()).or_else(|| leading.next());
            names.extend(best.map(name));
        }
    }
    names
}

fn index(target: &TableName, key: &KeyText, name: &str, text: &str) -> SchemaItem {
    let stage = if key.is_unique() { Stage::AfterLoad } else { Stage::Index };
    let sql = vec![format!("ALTER TABLE {} ADD {text}", quote::table(target))];
    SchemaItem { id: format!("INDEX {target}.{name}"), stage, table: Some(target.clone()), sql }
}

/// Without the counter, which is carried as a sequence, and without places on the source's disk.
pub(crate) fn kept_options(options: &[Piece], lost: &mut Vec<Lost>, table: &TableName) -> Vec<Piece> {
    let mut kept: Vec<Piece> = Vec::new();
    let mut at = 0;
    while let Some(piece) = options.get(at) {
        let assigned = |from: usize| options.get(from).is_some_and(|piece| piece.is(&Token::Other("=".to_owned())));
        let is_directory = |next: Option<&Piece>| next.is_some_and(|next| next.is_word("DIRECTORY"));
        if piece.is_word("AUTO_INCREMENT") && assigned(at + 1) {
            at += 3;
        } else if (piece.is_word("DATA") || piece.is_word("INDEX")) && is_directory(options.get(at + 1)) && assigned(at + 2) {
            let what = format!("{} of {table}", written(&options[at..at + 2]));
            lost.push(Lost { what, reason: "it is a place on the source's disk".to_owned() });
            at += 4;
        } else {
            kept.push(piece.clone());
            at += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_foreign_key_has_a_name_of_its_own() {
        let mut steps = Steps::default();
        let long = "é".repeat(64);
        let names: Vec<String> = ["fk", "FK", "fk_2", "fk", &long, &long].map(|name| steps.free_name("a", name)).into();
        assert_eq!(names[..4], ["fk", "FK_2", "fk_2_2", "fk_3"]);
        assert!(names[4] == long && names[5].chars().count() == 64 && names[5].ends_with("é_2"));
        assert_eq!(steps.free_name("b", "fk"), "fk");
    }
}
