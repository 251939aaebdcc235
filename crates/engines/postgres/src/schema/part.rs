//! The part of a database that can be made as it is, when tables are not selected, renamed or cut.
//!
//! What leans on a table that is not selected falls away. A table that is mapped is made by our own DDL, and what leans
//! on it falls away too, for its definition speaks of the old names. A selected table that leans on something that
//! falls away is made by our own DDL as well. With `select.tables` objects of schemas that hold no selected table come
//! only where something needs them. Nothing falls away without being listed, but the parts of tables that were not
//! asked for.

use std::collections::{BTreeMap, HashMap, HashSet};

use godwit_model::{Error, NotCarried, Result, TableMapping, TableName, Task, codes};
use tokio_postgres::Client;

use super::catalog::CatalogTable;
use super::depends::{Graph, Loss, Lost, Object, RELATION};
use super::dump::is_ours;
use super::entries::DumpEntry;
use crate::error;

const TYPE: u32 = 1247;
const FUNCTION: u32 = 1255;

pub(crate) struct Part {
    graph: Graph,
    lost: Lost,
    pub(crate) own: HashSet<u32>,
    excepted: HashMap<u32, TableName>,
    names: HashMap<u32, TableName>,
    targets: HashMap<u32, TableName>,
    /// None: all of them.
    schemas: Option<HashSet<String>>,
}

pub(crate) struct Chosen {
    pub(crate) kept: Vec<DumpEntry>,
    pub(crate) left: Vec<NotCarried>,
}

enum Fate {
    Kept,
    /// Made otherwise, or of no interest to this task.
    Passed,
    Falls(String),
    Elsewhere,
}

impl Part {
    pub(crate) async fn choose(
        client: &Client,
        task: &Task,
        tables: &[CatalogTable],
        mappings: &[TableMapping],
        excepted: HashMap<u32, TableName>,
        roots: &HashMap<u32, u32>,
    ) -> Result<Self> {
        let graph = Graph::read(client).await?;
        let mapped = tables.iter().zip(mappings).filter(|(table, mapping)| is_mapped(table, mapping));
        let mut own: HashSet<u32> = mapped.map(|(table, _)| table.oid).collect();
        let selected: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
        let lost = loop {
            let seeds: Vec<Object> = excepted.keys().chain(&own).map(|oid| (RELATION, *oid)).collect();
            let lost = graph.lost(&seeds);
            let before = own.len();
            own.extend(tables.iter().map(|table| table.oid).filter(|oid| lost.of((RELATION, *oid)).is_some()));
            let lost_leaf = |leaf: &u32| lost.of((RELATION, *leaf)).is_some();
            own.extend(roots.iter().filter(|(leaf, root)| lost_leaf(leaf) && selected.contains(root)).map(|(_, root)| *root));
            if own.len() == before {
                break lost;
            }
        };
        let names = tables.iter().map(|table| (table.oid, table.table.name.clone())).collect();
        let targets = tables.iter().zip(mappings).map(|(table, mapping)| (table.oid, mapping.target.clone())).collect();
        let in_schemas = || tables.iter().map(|table| table.table.name.schema.clone()).collect();
        let schemas = (!task.select.tables.is_empty()).then(in_schemas);
        let part = Part { graph, lost, own, excepted, names, targets, schemas };
        tables.iter().zip(mappings).try_for_each(|(table, mapping)| part.types_are_there(table, mapping))?;
        Ok(part)
    }

    /// A column may be of a type that is another table's row.
    fn types_are_there(&self, table: &CatalogTable, mapping: &TableMapping) -> Result<()> {
        for (column, own) in table.table.columns.iter().zip(&table.columns) {
            let arrives = column.generated || mapping.columns.iter().any(|mapped| mapped.source == column.name);
            let Some(loss) = self.lost.of((TYPE, own.type_oid)).filter(|_| arrives) else { continue };
            let reason = format!("the type {} of its column `{}` is not made: {}", column.type_name, column.name, self.because(loss));
            return Err(Error::new(&codes::TASK_UNSUPPORTED, reason)
                .at(format!("table {}", mapping.source))
                .remedy("select that table under its own name, leave the column out (map), or leave this table out too (select.except)")
                .effect("nothing was changed"));
        }
        Ok(())
    }

    /// Cuts a dump's entries down to those that hold.
    pub(crate) async fn sort_out(&self, client: &Client, entries: Vec<DumpEntry>) -> Result<Chosen> {
        let objects = self.objects(client, &entries).await?;
        let mut fates: Vec<Fate> = entries.iter().zip(&objects).map(|(entry, object)| self.fate(entry, *object)).collect();
        let of_kept = objects.iter().zip(&fates).filter(|(_, fate)| matches!(fate, Fate::Kept)).filter_map(|(object, _)| *object);
        let needed = self.graph.needed(of_kept.chain(self.own.iter().map(|oid| (RELATION, *oid))), &self.lost);
        for (fate, object) in fates.iter_mut().zip(&objects) {
            if matches!(fate, Fate::Elsewhere) && object.is_some_and(|object| needed.contains(&object)) {
                *fate = Fate::Kept;
            }
        }
        let mut chosen = Chosen { kept: Vec::new(), left: Vec::new() };
        let mut elsewhere: BTreeMap<String, usize> = BTreeMap::new();
        for (entry, fate) in entries.into_iter().zip(fates) {
            match fate {
                Fate::Kept => chosen.kept.push(entry),
                Fate::Passed => {}
                Fate::Falls(reason) => chosen.left.push(NotCarried { object: entry.id(), reason }),
                Fate::Elsewhere => *elsewhere.entry(schema_of(&entry)).or_default() += 1,
            }
        }
        chosen.left.extend(elsewhere.into_iter().map(|(schema, count)| NotCarried {
            object: format!("SCHEMA {schema} ({count} objects)"),
            reason: "no table of it is selected, and nothing that is made needs them".to_owned(),
        }));
        Ok(chosen)
    }

    /// The object each entry makes or speaks of.
    async fn objects(&self, client: &Client, entries: &[DumpEntry]) -> Result<Vec<Option<Object>>> {
        let sql = "SELECT n.nspname::text, c.relname::text, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relispartition";
        let leaves: HashMap<(String, String), u32> =
            client.query(sql, &[]).await.map_err(error::from_server)?.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
        let by_number: HashMap<u32, &DumpEntry> = entries.iter().filter_map(|entry| entry.number.map(|number| (number, entry))).collect();
        let object = |entry: &DumpEntry| match (entry.object, entry.kind.as_str()) {
            ((0, table), "ROW SECURITY") => Some((RELATION, table)),
            ((0, _), "TABLE ATTACH" | "INDEX ATTACH") => {
                leaves.get(&(entry.schema.clone(), entry.name.clone())).map(|oid| (RELATION, *oid))
            }
            ((0, _), _) => entry.leans_on.iter().find_map(|number| by_number.get(number)).map(|entry| entry.object),
            (object, _) => Some(object),
        };
        Ok(entries.iter().map(|entry| object(entry).map(|object| self.graph.whole(object))).collect())
    }

    fn fate(&self, entry: &DumpEntry, object: Option<Object>) -> Fate {
        if is_ours(entry) {
            return Fate::Passed;
        }
        match object.and_then(|object| self.lost.of(object)) {
            Some(loss) if loss.part && self.excepted.contains_key(&loss.seed.1) => Fate::Passed,
            Some(loss) if self.own.contains(&loss.seed.1) && is_made_by_us(entry, loss.part) => Fate::Passed,
            Some(loss) => Fate::Falls(self.because(loss)),
            None if self.is_in_scope(entry) => Fate::Kept,
            None => Fate::Elsewhere,
        }
    }

    fn is_in_scope(&self, entry: &DumpEntry) -> bool {
        let schema = schema_of(entry);
        self.schemas.as_ref().is_none_or(|schemas| schema == "-" || schemas.contains(&schema))
    }

    fn because(&self, loss: Loss) -> String {
        let word = if loss.part { "belongs to" } else { "depends on" };
        match (self.excepted.get(&loss.seed.1), self.names.get(&loss.seed.1)) {
            (Some(name), _) => format!("it {word} {name}, which is not selected"),
            (None, Some(name)) => format!("it {word} {name}, which is not made as it is at the source"),
            (None, None) => "it depends on what is not made".to_owned(),
        }
    }

    /// Whether this relation is made as it is at the source.
    pub(crate) fn makes(&self, relation: u32) -> bool {
        self.lost.of((RELATION, relation)).is_none()
    }

    /// For each entry that is kept the entries it needs, by their names; our own tables among them.
    pub(crate) fn leans_on(&self, kept: &[DumpEntry]) -> HashMap<String, Vec<String>> {
        let ids: Vec<String> = kept.iter().map(DumpEntry::id).collect();
        let own: Vec<(u32, String)> = self.own.iter().map(|oid| (*oid, format!("TABLE {}", self.targets[oid]))).collect();
        let made = kept.iter().zip(&ids).filter(|(entry, _)| entry.object.0 != 0);
        let mut known: HashMap<Object, &str> = own.iter().map(|(oid, id)| ((RELATION, *oid), id.as_str())).collect();
        known.extend(made.map(|(entry, id)| (self.graph.whole(entry.object), id.as_str())));
        let numbered: HashMap<u32, &str> =
            kept.iter().zip(&ids).filter_map(|(entry, id)| entry.number.map(|number| (number, id.as_str()))).collect();
        let objects = kept.iter().zip(&ids).map(|(entry, id)| (self.graph.whole(entry.object), id.clone(), Some(entry)));
        let tables = own.iter().map(|(oid, id)| ((RELATION, *oid), id.clone(), None));
        let below = |(object, id, entry): (Object, String, Option<&DumpEntry>)| {
            let numbers = entry.map_or(&[][..], |entry| &entry.leans_on);
            let spoken_of = numbers.iter().filter_map(|number| numbered.get(number).copied());
            let nearest = self.graph.nearest(object, &known).into_iter().chain(spoken_of).map(str::to_owned);
            let mut below: Vec<String> = nearest.chain(entry.and_then(attached)).filter(|below| *below != id).collect();
            below.sort_unstable();
            below.dedup();
            (id, below)
        };
        objects.chain(tables).map(below).collect()
    }

    /// What leans on what is asked no more: it is the largest part of all that is known here.
    pub(crate) fn forget_graph(&mut self) {
        self.graph = Graph::default();
    }

    pub(crate) async fn lost_functions(&self, client: &Client) -> Result<HashSet<String>> {
        let sql = "SELECT oid, oid::regprocedure::text FROM pg_proc WHERE oid >= 16384";
        let rows = client.query(sql, &[]).await.map_err(error::from_server)?;
        Ok(rows.iter().filter(|row| self.lost.of((FUNCTION, row.get(0))).is_some()).map(|row| row.get(1)).collect())
    }
}

/// What an entry that makes no object of its own puts in its place.
fn attached(entry: &DumpEntry) -> Option<String> {
    let kind = entry.kind.strip_suffix(" ATTACH")?;
    Some(format!("{kind} {}.{}", entry.schema, entry.name))
}

fn is_mapped(table: &CatalogTable, mapping: &TableMapping) -> bool {
    let carried = table.table.columns.iter().filter(|column| !column.generated).count();
    !mapping.is_identity() || mapping.columns.len() != carried
}

fn schema_of(entry: &DumpEntry) -> String {
    if entry.kind == "SCHEMA" { entry.name.clone() } else { entry.schema.clone() }
}

/// Parts of a table that our own DDL makes, or lists by itself.
fn is_made_by_us(entry: &DumpEntry, part: bool) -> bool {
    match entry.kind.as_str() {
        "FK CONSTRAINT" => true,
        "TABLE" | "TABLE ATTACH" | "INDEX" | "INDEX ATTACH" | "CONSTRAINT" | "CHECK CONSTRAINT" | "DEFAULT" | "SEQUENCE"
        | "SEQUENCE OWNED BY" => part,
        "COMMENT" => part && (entry.name.starts_with("TABLE ") || entry.name.starts_with("COLUMN ")),
        _ => false,
    }
}
