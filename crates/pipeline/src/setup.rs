//! What happens once, before rows move: tables described and mapped, existing ones dealt with, the schema made.

use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use godwit_model::{
    Alteration, Capabilities, Column, ColumnMapping, Create, DdlPolicy, Description, Error, Event, Existing, Lease, Observer, Present,
    Result, SchemaItem, Source, Stage, Table, TableMapping, TableName, Target, Task, Writes, codes, failpoint,
};

use crate::facts::{self, Facts};
use crate::load::Route;

pub(crate) struct Setup<'a> {
    pub task: &'a Task,
    pub source: &'a dyn Source,
    pub target: &'a dyn Target,
    pub lease: &'a Lease,
    pub observer: &'a Arc<dyn Observer>,
}

/// The selected tables as they stand now, and the steps that the task asks for.
pub(crate) async fn describe(task: &Task, source: &dyn Source) -> Result<Description> {
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
            let item = SchemaItem { id: "FILE schema.create".to_owned(), stage: Stage::BeforeLoad, table: None, sql: vec![sql] };
            description.items = vec![item];
        }
    }
    if !task.phases.schema {
        description.items.clear();
    }
    Ok(description)
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
        if let Some(tables) = facts.tables()? {
            return routes(self.task, tables);
        }
        let description = describe(self.task, self.source).await?;
        let routes = routes(self.task, description.tables)?;
        self.existing(facts, &routes).await?;
        self.perform(facts, &description.items, Stage::BeforeLoad, 1).await?;
        self.bring(facts, &routes).await?;
        self.fit(&routes).await?;
        let tables: Vec<Arc<Table>> = routes.iter().map(|route| route.table.clone()).collect();
        let mut entries = vec![facts::tables_entry(&tables)];
        if self.task.from.is_none() {
            // behind a position of the past the stream begins with how the tables looked then
            entries.extend(tables.iter().zip(&description.looks).map(|(table, look)| facts::look_entry(&table.name, look)));
        }
        self.record(facts, entries).await?;
        Ok(routes)
    }

    /// Steps of a later stage, from the source's catalog as it is now.
    pub async fn later(&self, facts: &mut Facts, stage: Stage, side_by_side: usize) -> Result<()> {
        let description = describe(self.task, self.source).await?;
        self.perform(facts, &description.items, stage, side_by_side).await
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
                self.target.empty(self.lease, &there, policy == Existing::Replace, &done).await?;
                facts.apply(&[done]);
                Ok(())
            }
            _ => self.record(facts, vec![done]).await,
        }
    }

    /// Tables that an earlier attempt or an earlier life of the task made may be older than the source's by now.
    async fn bring(&self, facts: &Facts, routes: &[Route]) -> Result<()> {
        let kept = facts.existing()?.unwrap_or_default();
        let made: Vec<&Route> = routes.iter().filter(|route| !kept.contains(&route.mapping.target)).collect();
        if self.task.schema.changes != DdlPolicy::Carry || self.task.schema.create == Create::None {
            return Ok(());
        }
        let names: Vec<TableName> = made.iter().map(|route| route.mapping.target.clone()).collect();
        for present in self.target.present(&names).await? {
            let Some(route) = made.iter().find(|route| route.mapping.target == present.table.name) else { continue };
            let before = as_present(&route.mapping, &present.table);
            if !is_same_set(&before, &route.mapping) {
                self.target.alter(self.lease, &Alteration { before: &before, after: &route.mapping, fills: &[] }, &[]).await?;
            }
        }
        Ok(())
    }

    /// Every mapped column must be there, and the key must be one.
    async fn fit(&self, routes: &[Route]) -> Result<()> {
        let names: Vec<TableName> = routes.iter().map(|route| route.mapping.target.clone()).collect();
        let present = self.target.present(&names).await?;
        for route in routes {
            let there = present.iter().find(|present| present.table.name == route.mapping.target);
            fits(&route.mapping, there.map(|present| &present.table))?;
        }
        Ok(())
    }

    async fn perform(&self, facts: &mut Facts, items: &[SchemaItem], stage: Stage, side_by_side: usize) -> Result<()> {
        let kept = facts.existing()?.unwrap_or_default();
        let wanted = items.iter().filter(|item| {
            let of_kept = item.table.as_ref().is_some_and(|table| kept.contains(table));
            item.stage == stage && !of_kept && !facts.is_done(&facts::step_key(&item.id))
        });
        let wanted: Vec<&SchemaItem> = wanted.collect();
        if side_by_side <= 1 {
            for item in wanted {
                self.step(item).await?;
            }
        } else {
            self.perform_by_table(&wanted, side_by_side).await?;
        }
        let done: Vec<_> =
            items.iter().filter(|item| item.stage == stage).map(|item| facts::done_entry(&facts::step_key(&item.id))).collect();
        facts.apply(&done);
        Ok(())
    }

    /// Steps of one table in their order, those of different tables side by side, those of none at the end.
    async fn perform_by_table(&self, items: &[&SchemaItem], side_by_side: usize) -> Result<()> {
        let mut tables: Vec<(&TableName, Vec<&SchemaItem>)> = Vec::new();
        for item in items {
            let Some(table) = &item.table else { continue };
            match tables.iter_mut().find(|(there, _)| *there == table) {
                Some((_, steps)) => steps.push(item),
                None => tables.push((table, vec![item])),
            }
        }
        stream::iter(tables.into_iter().map(Ok::<_, Error>))
            .try_for_each_concurrent(side_by_side, |(_, steps)| async move {
                for item in steps {
                    self.step(item).await?;
                }
                Ok(())
            })
            .await?;
        for item in items.iter().filter(|item| item.table.is_none()) {
            self.step(item).await?;
        }
        Ok(())
    }

    async fn step(&self, item: &SchemaItem) -> Result<()> {
        failpoint("schema.step.before");
        self.target.perform(self.lease, item, &facts::done_entry(&facts::step_key(&item.id))).await?;
        failpoint("schema.step.after");
        self.observer.event(Event::SchemaStep { id: item.id.clone() });
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

pub(crate) fn fits(mapping: &TableMapping, there: Option<&Table>) -> Result<()> {
    let place = || format!("target table {}", mapping.target);
    let Some(there) = there else {
        return Err(Error::new(&codes::TABLE_MISSING, "the table is not there and the task does not create it")
            .at(place())
            .remedy("create it, or let the task do so: `schema: {create: all}`"));
    };
    if let Some(missing) = mapping.columns.iter().find(|column| there.column(&column.target).is_none()) {
        return Err(Error::new(&codes::SCHEMA_MISMATCH, format!("the table has no column `{}`", missing.target))
            .at(place())
            .remedy("add the column, or map it to another name, or leave it out"));
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
