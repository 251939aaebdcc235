//! What happens once, before rows move: tables described and mapped, existing ones dealt with, the schema made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{
    Alteration, Capabilities, Column, ColumnMapping, Create, DdlPolicy, Description, Error, Existing, Lease, Observer, Present, Result,
    SchemaItem, Source, Stage, Table, TableMapping, TableName, Target, Task, Writes, codes,
};

use crate::carry;
use crate::facts::{self, Facts};
use crate::job::Described;
use crate::load::Route;
use crate::script;
use crate::steps::{AtOnce, Builder, Waiting};
use crate::structure::Leftover;

/// Tables whose columns are asked for in one question.
const LOOKED_AT_ONCE: usize = 500;

pub(crate) struct Setup<'a> {
    pub task: &'a Task,
    pub source: &'a dyn Source,
    pub target: &'a dyn Target,
    pub lease: &'a Lease,
    pub observer: &'a Arc<dyn Observer>,
    pub described: &'a Described,
}

/// The selected tables as they stand now, and the steps that the task asks for.
pub(crate) async fn describe(task: &Task, source: &dyn Source, target: &dyn Target) -> Result<Description> {
    let mut description = source.describe(task).await?;
    if description.tables.is_empty() {
        return Err(Error::new(&codes::NOTHING_SELECTED, "the selection matches no table of the source")
            .at("select")
            .remedy("compare `select` with the names that `godwit plan` lists without it"));
    }
    match &task.schema.create {
        Create::All | Create::Tables => {}
        Create::None => description.items.clear(),
        Create::File(path) => {
            let sql = tokio::fs::read_to_string(path).await.map_err(|cause| {
                Error::new(&codes::TASK_REFERENCE, "the schema file cannot be read").at(path.display().to_string()).caused_by(cause)
            })?;
            // a person's own script is not judged: what the target refuses, it says
            let items = script::read(&sql).unwrap_or_else(|| target.staged(&sql));
            description.items = if task.phases.schema { items } else { Vec::new() };
            return Ok(description);
        }
    }
    if !task.phases.schema {
        description.items.clear();
    }
    target.adapt(description).await
}

/// What a task may ask for and no engine pair does yet.
pub(crate) fn refuse_unbuilt(task: &Task, source: &Capabilities, target: &Capabilities) -> Result<()> {
    let refuse = |what: String, place: &str, remedy: &str| {
        Err(Error::new(&codes::TASK_UNSUPPORTED, what).at(place).remedy(remedy).effect("nothing was changed"))
    };
    if source.dialect != target.dialect {
        let what = format!("this version does not move data from {} to {}", source.dialect, target.dialect);
        return refuse(what, "target", "name a target of the source's own engine");
    }
    if task.writes == Writes::Never && task.phases.changes && !source.follows_unwritten {
        let what = format!("changes of {} are captured by what Godwit writes there, and `writes: never` forbids it", source.version);
        let remedy = "let it write (`writes: marker`), or load only: `phases: [schema, load]`";
        return refuse(what, "source.writes", remedy);
    }
    Ok(())
}

pub(crate) fn routes(task: &Task, tables: Vec<Table>) -> Result<Vec<Route>> {
    let mappings = TableMapping::resolve_all(&task.map, &tables)?;
    Ok(tables.into_iter().zip(mappings).map(|(table, mapping)| Route { table: Arc::new(table), mapping: Arc::new(mapping) }).collect())
}

impl Setup<'_> {
    /// Once per task; after that the stored tables are the truth, whatever the source's catalog says meanwhile.
    pub async fn run(&self, facts: &mut Facts) -> Result<Vec<Route>> {
        let described = self.described.take();
        if let Some(tables) = facts.tables()? {
            return routes(self.task, tables);
        }
        let mut description = match described {
            Some(description) => description,
            None => describe(self.task, self.source, self.target).await?,
        };
        let routes = routes(self.task, std::mem::take(&mut description.tables))?;
        self.existing(facts, &routes).await?;
        let keys = if self.task.phases.load { &[][..] } else { &[Stage::Key][..] };
        for stage in [Stage::BeforeLoad].iter().chain(keys) {
            self.perform(facts, &self.open(facts, &description.items, *stage)?, AtOnce::Many).await?;
        }
        // done, and the larger part of the text
        description.items.retain(|item| item.stage != Stage::BeforeLoad);
        let waiting: Vec<&SchemaItem> =
            description.items.iter().filter(|item| matches!(item.stage, Stage::Key | Stage::Index | Stage::AfterLoad)).collect();
        self.bring(facts, &routes).await?;
        self.fit(&routes, &self.open(facts, &description.items, Stage::Key)?).await?;
        let tables: Vec<Arc<Table>> = routes.iter().map(|route| route.table.clone()).collect();
        let mut entries = vec![facts::tables_entry(&tables), facts::steps_entry(&waiting)];
        if self.task.from.is_none() {
            // behind a position of the past the stream begins with how the tables looked then
            entries.extend(tables.iter().zip(&description.looks).map(|(table, look)| facts::look_entry(&table.name, look)));
        }
        self.record(facts, entries).await?;
        Ok(routes)
    }

    /// Steps after the load, from the source's catalog as it is now.
    pub async fn after_load(&self, facts: &mut Facts) -> Result<()> {
        let description = self.described_now(facts).await?;
        for stage in [Stage::Index, Stage::AfterLoad] {
            let items = self.open(facts, &description.items, stage)?;
            let done = self.builder().by_table(&items, self.task.limits.target_connections).await?;
            facts.apply(&done);
        }
        Ok(())
    }

    /// Steps at finish, from the source's catalog as it is now.
    pub async fn at_finish(&self, facts: &mut Facts) -> Result<()> {
        let description = self.described_now(facts).await?;
        self.perform(facts, &self.open(facts, &description.items, Stage::AtFinish)?, AtOnce::One).await
    }

    /// Makes the objects that came to the source since the task's began: types, functions, views, indexes. Gives those that
    /// the target refused.
    pub async fn make_new(&self, facts: &mut Facts) -> Result<Vec<Leftover>> {
        let description = self.described_now(facts).await?;
        let mut left = Vec::new();
        for stage in [Stage::BeforeLoad, Stage::Index, Stage::AfterLoad] {
            // what a table was made of before its rows is compared piece by piece
            let of_table = |item: &&SchemaItem| stage == Stage::BeforeLoad && item.table.is_some();
            for item in self.open(facts, &description.items, stage)?.into_iter().filter(|item| !of_table(item)) {
                match self.builder().perform(&[item]).await {
                    Ok(done) => facts.apply(&done),
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => {
                        let why = format!("it is new at the source, and the target refused: {}", error.what());
                        left.push(Leftover { what: item.id.clone(), why, statements: item.sql.clone() });
                    }
                }
            }
        }
        Ok(left)
    }

    /// After the target refused an alteration: makes what it may need (a type that came to the source), and says whether there
    /// was any.
    pub async fn bring_new(&self, facts: &mut Facts) -> Result<bool> {
        let makes_all = self.task.phases.schema && self.task.schema.create == Create::All;
        if self.task.schema.changes != DdlPolicy::Carry || !makes_all {
            return Ok(false);
        }
        let description = self.described_now(facts).await?;
        let mut made = false;
        for item in self.open(facts, &description.items, Stage::BeforeLoad)?.into_iter().filter(|item| item.table.is_none()) {
            match self.builder().perform(&[item]).await {
                Ok(_) => made = true,
                Err(error) if error.is_transient() => return Err(error),
                // a view of columns that are to come: at finish
                Err(error) => tracing::info!(%error, item = item.id, "not made yet"),
            }
        }
        Ok(made)
    }

    /// Tables that the task selects and that came after it began.
    pub async fn newcomers(&self, facts: &Facts) -> Result<Vec<TableName>> {
        let known: HashSet<TableName> = facts.tables()?.unwrap_or_default().into_iter().map(|table| table.name).collect();
        let names = self.source.selected(self.task).await?;
        Ok(names.into_iter().filter(|name| !known.contains(name)).collect())
    }

    /// Without tables that came after the task began, and what leans on them.
    async fn described_now(&self, facts: &Facts) -> Result<Description> {
        let newcomers = self.newcomers(facts).await?;
        let mut task = self.task.clone();
        task.select.except.extend(newcomers.iter().map(TableName::pattern));
        describe(&task, self.source, self.target).await
    }

    pub async fn record(&self, facts: &mut Facts, entries: Vec<godwit_model::Entry>) -> Result<()> {
        self.target.record(self.lease, &entries).await?;
        facts.apply(&entries);
        Ok(())
    }

    /// Decided once and recorded with the tables that were there: their structure is their owner's, not ours.
    async fn existing(&self, facts: &mut Facts, routes: &[Route]) -> Result<()> {
        if facts.existing()?.is_some() {
            return Ok(());
        }
        let names: Vec<TableName> = routes.iter().map(|route| route.mapping.target.clone()).collect();
        let present = self.target.present(&names).await?;
        let there: Vec<TableName> = present.iter().map(|present| present.table.name.clone()).collect();
        let policy = self.task.existing;
        judge_existing(policy, &present)?;
        let kept = if policy == Existing::Replace { Vec::new() } else { there.clone() };
        let with_rows = policy == Existing::Append && present.iter().any(|present| present.has_rows);
        let done = facts::existing_entry(&kept, with_rows);
        match policy {
            Existing::Truncate | Existing::Replace if !there.is_empty() => {
                self.target.empty(self.lease, &there, policy == Existing::Replace, std::slice::from_ref(&done)).await?;
                facts.apply(&[done]);
                Ok(())
            }
            _ => self.record(facts, vec![done]).await,
        }
    }

    /// Tables that an earlier attempt or an earlier life of the task made may be older than the source's by now.
    async fn bring(&self, facts: &Facts, routes: &[Route]) -> Result<()> {
        let kept = facts.existing()?.unwrap_or_default();
        let made = routes.iter().filter(|route| !kept.contains(&route.mapping.target));
        let made: HashMap<&TableName, &Route> = made.map(|route| (&route.mapping.target, route)).collect();
        // what a person's file makes is as it says; only columns that came since are added
        let of_file = matches!(self.task.schema.create, Create::File(_));
        let ours = self.task.schema.create != Create::None && (!of_file || facts.is_done("resync"));
        if self.task.schema.changes != DdlPolicy::Carry || !ours {
            return Ok(());
        }
        let names: Vec<TableName> = made.keys().map(|name| (*name).clone()).collect();
        for present in self.target.present(&names).await? {
            let Some(route) = made.get(&present.table.name) else { continue };
            let before = as_present(&route.mapping, &present.table);
            let after = if of_file { with_all_of(&before, &route.mapping) } else { TableMapping::clone(&route.mapping) };
            if !is_same_set(&before, &after) {
                self.target.alter(self.lease, &Alteration { before: &before, after: &after, fills: &[], renamed: &[] }, &[]).await?;
            }
        }
        Ok(())
    }

    /// Where a person's file makes the tables, those with columns of other types than the source's: a store's own form of
    /// a value is one type's alone.
    pub async fn other_types(&self, routes: &[Route]) -> Result<HashSet<TableName>> {
        if !matches!(self.task.schema.create, Create::File(_)) {
            return Ok(HashSet::new());
        }
        let names: Vec<TableName> = routes.iter().map(|route| route.mapping.target.clone()).collect();
        let present = self.target.present(&names).await?;
        let tables: HashMap<&TableName, &Table> = present.iter().map(|present| (&present.table.name, &present.table)).collect();
        let differs = |mapping: &TableMapping, there: &Table| {
            let column = |mapped: &ColumnMapping| there.column(&mapped.target).map(|index| there.columns[index].type_name.as_str());
            mapping.columns.iter().any(|mapped| column(mapped) != Some(mapped.type_name.as_str()))
        };
        let other = routes.iter().filter(|route| tables.get(&route.mapping.target).is_some_and(|there| differs(&route.mapping, there)));
        Ok(other.map(|route| route.mapping.target.clone()).collect())
    }

    /// A copy is made by the description. Where no stream tells what was altered since, the source is asked: a column of
    /// another type would arrive as something else. Columns that came are not the task's, if changes are followed without them.
    pub async fn refuse_altered(&self, facts: &Facts, routes: &[Route]) -> Result<()> {
        let names: Vec<TableName> = routes.iter().map(|route| route.table.name.clone()).collect();
        for some in names.chunks(LOOKED_AT_ONCE) {
            for found in self.source.appearances(some).await? {
                let Some(before) = facts.look(&found.table)? else { continue };
                let after = &found.look.columns;
                if before.columns != *after && !(self.task.phases.changes && carry::is_only_wider(&before, after)) {
                    let what = format!("the table was altered before its copy was whole: {}", carry::describe(&before, after));
                    return Err(Error::new(&codes::DDL_STOPPED, what)
                        .at(format!("table {}", found.table))
                        .remedy("begin anew with `run --resync`: it copies the table as it is now")
                        .effect("what was copied so far stays in the target"));
                }
            }
        }
        Ok(())
    }

    /// Every key that waits, before its table is altered.
    pub async fn make_keys(&self, facts: &mut Facts) -> Result<()> {
        let waiting = Waiting::of(facts)?;
        waiting.make_all_keys(self.builder(), self.task.limits.target_connections).await?;
        facts.apply(&waiting.made());
        Ok(())
    }

    /// Every mapped column must be there, and the key must be one, unless it comes by one of these steps.
    async fn fit(&self, routes: &[Route], keys: &[&SchemaItem]) -> Result<()> {
        let names: Vec<TableName> = routes.iter().map(|route| route.mapping.target.clone()).collect();
        let present = self.target.present(&names).await?;
        let there: HashMap<&TableName, &Table> = present.iter().map(|present| (&present.table.name, &present.table)).collect();
        let coming: HashSet<&TableName> = keys.iter().filter_map(|item| item.table.as_ref()).collect();
        for route in routes {
            let key = if coming.contains(&route.mapping.target) { Key::Comes } else { Key::IsThere };
            fits(&route.mapping, there.get(&route.mapping.target).copied(), key)?;
        }
        Ok(())
    }

    pub fn builder(&self) -> Builder<'_> {
        Builder { target: self.target, lease: self.lease, observer: self.observer }
    }

    /// Steps of a stage that are not done, without those on tables that were there before the task.
    fn open<'i>(&self, facts: &Facts, items: &'i [SchemaItem], stage: Stage) -> Result<Vec<&'i SchemaItem>> {
        let kept = facts.existing()?.unwrap_or_default();
        let is_open = |item: &&SchemaItem| {
            let of_kept = item.table.as_ref().is_some_and(|table| kept.contains(table));
            item.stage == stage && !of_kept && !facts.is_done(&facts::step_key(&item.id))
        };
        Ok(items.iter().filter(is_open).collect())
    }

    async fn perform(&self, facts: &mut Facts, items: &[&SchemaItem], at_once: AtOnce) -> Result<()> {
        let done = self.builder().in_order(items, at_once).await?;
        facts.apply(&done);
        Ok(())
    }
}

/// The mapping as the target's table has it now: every column of its own, by its own name where none is mapped to it.
fn as_present(mapping: &TableMapping, there: &Table) -> TableMapping {
    let column = |column: &Column| {
        let mapped = mapping.columns.iter().find(|mapped| mapped.target == column.name);
        ColumnMapping {
            source: mapped.map_or_else(|| column.name.clone(), |mapped| mapped.source.clone()),
            target: column.name.clone(),
            type_name: column.type_name.clone(),
        }
    };
    TableMapping { columns: there.columns.iter().filter(|column| !column.generated).map(column).collect(), ..mapping.clone() }
}

/// The columns that are there, and those of the mapping that are not.
fn with_all_of(there: &TableMapping, mapping: &TableMapping) -> TableMapping {
    let missing = mapping.columns.iter().filter(|column| there.columns.iter().all(|known| known.target != column.target));
    TableMapping { columns: there.columns.iter().chain(missing).cloned().collect(), ..mapping.clone() }
}

fn is_same_set(one: &TableMapping, other: &TableMapping) -> bool {
    one.columns.len() == other.columns.len() && one.columns.iter().all(|column| other.columns.contains(column))
}

pub(crate) fn judge_existing(policy: Existing, present: &[Present]) -> Result<()> {
    for there in present {
        let refuse = |code, what: String, remedy| {
            let error = Error::new(code, what).at(format!("target table {}", there.table.name)).remedy(remedy);
            Err(error.effect("nothing was changed"))
        };
        if policy == Existing::Refuse && there.has_rows {
            let remedy = "empty it, or say in the task what to do: `target: {existing: append | truncate | replace}`";
            return refuse(&codes::TARGET_NOT_EMPTY, "the table already holds rows".to_owned(), remedy);
        }
        if matches!(policy, Existing::Truncate | Existing::Replace) && !there.referenced_by.is_empty() {
            let by = there.referenced_by.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ");
            let remedy = "drop those foreign keys first, or select those tables too";
            return refuse(&codes::TARGET_REFERENCED, format!("the table is referenced by {by}"), remedy);
        }
    }
    Ok(())
}

/// What is expected of a table's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    IsThere,
    /// A step that was not done yet makes it.
    Comes,
}

pub(crate) fn fits(mapping: &TableMapping, there: Option<&Table>, key: Key) -> Result<()> {
    let place = || format!("target table {}", mapping.target);
    let Some(there) = there else {
        return Err(Error::new(&codes::TABLE_MISSING, "the table is not there and the task does not create it")
            .at(place())
            .remedy("create it, let the task do so (`schema: {create: all}`), or leave it out (`select.except`); `godwit plan` says what cannot be made"));
    };
    if let Some(missing) = mapping.columns.iter().find(|column| there.column(&column.target).is_none()) {
        return Err(Error::new(&codes::SCHEMA_MISMATCH, format!("the table has no column `{}`", missing.target))
            .at(place())
            .remedy("add the column, or map it to another name, or leave it out"));
    }
    if key == Key::Comes {
        return Ok(());
    }
    let wanted = mapping.key_targets();
    let unique = |columns: &[usize]| {
        let names: Vec<&str> = columns.iter().map(|index| there.columns[*index].name.as_str()).collect();
        names.len() == wanted.len() && wanted.iter().all(|name| names.contains(name))
    };
    let keys = there.key.iter().map(|key| &key.columns).chain(there.uniques.iter().map(|unique| &unique.columns));
    if mapping.has_key() && !keys.into_iter().any(|columns| unique(columns)) {
        return Err(Error::new(&codes::SCHEMA_MISMATCH, format!("no primary key or unique constraint covers ({})", wanted.join(", ")))
            .at(place())
            .remedy("add one: changes find their rows by it"));
    }
    Ok(())
}
