//! What tables are besides their rows: columns and their properties, checks, indexes, partitions, foreign keys.
//!
//! Both sides are read alike and spelled by servers of one family, so that equal texts mean equal things. Names are the
//! target's. A column's properties can only be given all at once (`MODIFY`), so every statement that gives one gives all
//! that the source's column has: whatever of them is run last, the column is the source's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{Bearing, Feature, Result, Scope, Table, TableMapping, TableName};
use mysql_async::Conn;

use crate::catalog::{self, CatalogTable};
use crate::connect::Server;
use crate::created::{self, ClauseKind, ColumnText, Created, KeyText};
use crate::quote;
use crate::renaming::{Renaming, definition, without_default};
use crate::tokens::{Token, written};

const PARTITIONS: &str = "PARTITIONS";

/// Features in the order in which they can be made.
#[derive(Default)]
struct Gathered {
    columns: Vec<Feature>,
    partitions: Vec<Feature>,
    checks: Vec<Feature>,
    indexes: Vec<Feature>,
    foreign_keys: Vec<Feature>,
}

impl Gathered {
    fn all(self) -> Vec<Feature> {
        [self.columns, self.partitions, self.checks, self.indexes, self.foreign_keys].into_iter().flatten().collect()
    }
}

/// A table as one side has it.
struct Side<'a> {
    catalog: &'a CatalogTable,
    renaming: Renaming<'a>,
}

/// The tables of one side and their definitions.
struct Read {
    tables: Vec<CatalogTable>,
    created: HashMap<TableName, Created>,
}

pub(crate) async fn of_source(conn: &mut Conn, server: &Server, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
    let read = read(conn, server, mappings.iter().map(|mapping| mapping.source.clone()).collect()).await?;
    let by_name = mappings.iter().map(|mapping| (&mapping.source, &**mapping)).collect();
    Ok(gather(&read.sides(&by_name, Renaming::new)).all())
}

pub(crate) async fn of_target(conn: &mut Conn, server: &Server, mappings: &[Arc<TableMapping>], asked: &[Feature]) -> Result<Vec<Feature>> {
    let read = read(conn, server, mappings.iter().map(|mapping| mapping.target.clone()).collect()).await?;
    let by_name: HashMap<&TableName, &TableMapping> = mappings.iter().map(|mapping| (&mapping.target, &**mapping)).collect();
    let sides = read.sides(&by_name, Renaming::own);
    let mut found = gather(&sides).all();
    let names: HashSet<(&TableName, &str)> = asked.iter().map(|asked| (&asked.table, asked.what.as_str())).collect();
    // properties of a column that is the owner's own are the owner's too
    found.retain(|feature| {
        let Some((_, column)) = feature.what.split_once(" of ").filter(|_| feature.scope == Scope::OfColumn) else { return true };
        let is_mapped = by_name.get(&feature.table).is_some_and(|mapping| mapping.columns.iter().any(|mapped| mapped.target == column));
        is_mapped || names.contains(&(&feature.table, format!("COLUMN {column}").as_str()))
    });
    // a table that is not cut into partitions has room for the rows of all of them
    let whole: HashSet<&TableName> = sides.iter().filter(|side| side.is_in_one()).map(|side| side.target()).collect();
    found.extend(asked.iter().filter(|asked| asked.what == PARTITIONS && whole.contains(&asked.table)).cloned());
    Ok(found)
}

async fn read(conn: &mut Conn, server: &Server, names: Vec<TableName>) -> Result<Read> {
    let tables = catalog::read(conn, server, &names).await?;
    let there: Vec<&TableName> = tables.iter().map(|table| &table.table.name).collect();
    let created = created::read(conn, &there).await?;
    Ok(Read { tables, created })
}

impl Read {
    fn sides<'a>(
        &'a self,
        mappings: &HashMap<&TableName, &'a TableMapping>,
        renaming: impl Fn(&'a Table, &'a Created, &'a TableMapping) -> Renaming<'a>,
    ) -> Vec<Side<'a>> {
        let side = |catalog: &'a CatalogTable| {
            let name = &catalog.table.name;
            Some(Side { catalog, renaming: renaming(&catalog.table, self.created.get(name)?, mappings.get(name)?) })
        };
        self.tables.iter().filter_map(side).collect()
    }
}

fn gather(sides: &[Side<'_>]) -> Gathered {
    let mut gathered = Gathered::default();
    let by_name: HashMap<&TableName, &Side<'_>> = sides.iter().map(|side| (&side.catalog.table.name, side)).collect();
    for side in sides {
        side.columns(&mut gathered.columns);
        gathered.columns.extend(side.comment());
        gathered.partitions.extend(side.partitions());
        gathered.checks.extend(side.checks());
        gathered.indexes.extend(side.renaming.created.keys.iter().filter_map(|key| side.index(key)));
        gathered.foreign_keys.extend(side.foreign_keys(&by_name));
    }
    gathered
}

impl Side<'_> {
    fn target(&self) -> &TableName {
        &self.renaming.mapping.target
    }

    fn is_in_one(&self) -> bool {
        self.renaming.created.partitions.is_empty()
    }

    fn alter(&self, what: &str) -> Vec<String> {
        vec![format!("ALTER TABLE {} {what}", quote::table(self.target()))]
    }

    fn feature(&self, what: String, definition: impl Into<String>) -> Feature {
        Feature {
            table: self.target().clone(),
            what,
            definition: definition.into(),
            make: Vec::new(),
            remove: Vec::new(),
            change: Vec::new(),
            bearing: Bearing::None,
            scope: Scope::Table,
            leans_on: None,
        }
    }

    fn columns(&self, features: &mut Vec<Feature>) {
        let arriving = self.renaming.created.columns.iter().filter(|column| self.renaming.column(&column.name).is_some());
        let written = self.renaming.columns(&mut Vec::new());
        for (own, column) in arriving.zip(written) {
            let Some(at) = self.catalog.table.column(&own.name) else { continue };
            self.column(&column, &self.catalog.table.columns[at].type_name, features);
        }
    }

    fn column(&self, column: &ColumnText, type_name: &str, features: &mut Vec<Feature>) {
        let (name, quoted) = (&column.name, quote::identifier(&column.name));
        let modify = |without: &[ClauseKind]| {
            let bare = without_default(column).map(|what| self.alter(&what)).unwrap_or_default();
            [self.alter(&format!("MODIFY COLUMN {}", definition(column, without))), bare].concat()
        };
        let remove = self.alter(&format!("DROP COLUMN {quoted}"));
        let make = self.alter(&format!("ADD COLUMN {}", definition(column, &[])));
        let generation = column.clause(ClauseKind::Generated).map(|clause| format!(" {}", written(&clause.text)));
        let change = if generation.is_some() { [remove.clone(), make.clone()].concat() } else { modify(&[]) };
        let text = format!("{type_name}{}", generation.unwrap_or_default());
        features.push(Feature { make, remove, change, scope: Scope::Column, ..self.feature(format!("COLUMN {name}"), text) });
        if column.clause(ClauseKind::NotNull).is_some() {
            features.push(Feature {
                make: modify(&[]),
                remove: modify(&[ClauseKind::NotNull]),
                bearing: Bearing::Refuses,
                scope: Scope::OfColumn,
                ..self.feature(format!("NOT NULL of {name}"), "")
            });
        }
        let is_property = |kind| !matches!(kind, ClauseKind::Type | ClauseKind::Generated | ClauseKind::NotNull | ClauseKind::Null);
        let properties = column.clauses.iter().filter(|clause| is_property(clause.kind)).map(|clause| written(&clause.text));
        let is_checked = column.clause(ClauseKind::Check).is_some();
        features.push(Feature {
            make: modify(&[]),
            // with NOT NULL, which may have given way before, it would come back
            remove: modify(&[ClauseKind::Check, ClauseKind::NotNull]),
            change: modify(&[]),
            bearing: if is_checked { Bearing::Refuses } else { Bearing::None },
            scope: Scope::OfColumn,
            ..self.feature(format!("ATTRIBUTES of {name}"), properties.collect::<Vec<_>>().join(" "))
        });
    }

    fn comment(&self) -> Option<Feature> {
        let options = &self.renaming.created.options;
        let at = options.iter().position(|piece| piece.is_word("COMMENT"))?;
        let Token::Text(_) = options.get(at + 2)?.token else { return None };
        let text = written(&options[at + 2..at + 3]);
        let make = self.alter(&format!("COMMENT = {text}"));
        let remove = self.alter("COMMENT = ''");
        Some(Feature { change: make.clone(), make, remove, scope: Scope::OfColumn, ..self.feature("COMMENT".to_owned(), text) })
    }

    fn partitions(&self) -> Option<Feature> {
        let text = written(&crate::ddl::kept_options(&self.renaming.partitions()?, &mut Vec::new(), self.target()));
        if text.is_empty() {
            return None;
        }
        let make = self.alter(&text);
        Some(Feature {
            change: make.clone(),
            make,
            remove: self.alter("REMOVE PARTITIONING"),
            bearing: Bearing::Admits,
            ..self.feature(PARTITIONS.to_owned(), text)
        })
    }

    fn checks(&self) -> Vec<Feature> {
        let feature = |check: &created::CheckText| {
            let text = written(&self.renaming.renamed(&check.text)?);
            let quoted = quote::identifier(&check.name);
            Some(Feature {
                make: self.alter(&format!("ADD CONSTRAINT {quoted} {text}")),
                remove: self.alter(&format!("DROP CONSTRAINT {quoted}")),
                bearing: Bearing::Refuses,
                ..self.feature(format!("CONSTRAINT {}", check.name), text)
            })
        };
        self.renaming.created.checks.iter().filter_map(feature).collect()
    }

    fn index(&self, key: &KeyText) -> Option<Feature> {
        let text = self.renaming.key(key)?;
        let (what, remove) = match &key.name {
            Some(name) => (format!("INDEX {name}"), format!("DROP INDEX {}", quote::identifier(name))),
            None => ("PRIMARY KEY".to_owned(), "DROP PRIMARY KEY".to_owned()),
        };
        // rows are found by the key
        let is_own_key = key.is_primary() || self.catalog.key_index == key.name;
        Some(Feature {
            make: self.alter(&format!("ADD {text}")),
            remove: self.alter(&remove),
            bearing: if key.is_unique() && !is_own_key { Bearing::Refuses } else { Bearing::None },
            ..self.feature(what, text)
        })
    }

    fn foreign_keys(&self, sides: &HashMap<&TableName, &Side<'_>>) -> Vec<Feature> {
        let feature = |key: &created::ForeignKey| {
            let other = sides.get(&key.table);
            let target = other.map_or(&key.table, |other| other.target());
            let text = self.renaming.foreign_key(key, target, other.map(|other| &other.renaming))?;
            let quoted = quote::identifier(&key.name);
            Some(Feature {
                make: self.alter(&format!("ADD CONSTRAINT {quoted} {text}")),
                remove: self.alter(&format!("DROP FOREIGN KEY {quoted}")),
                leans_on: Some(key.table.clone()),
                ..self.feature(format!("FOREIGN KEY {}", key.name), text)
            })
        };
        self.renaming.created.foreign_keys.iter().filter_map(feature).collect()
    }
}
