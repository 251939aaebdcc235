//! What the source holds of what a task selects, and the steps that make it at a target of this engine.

use godwit_model::{Create, Description, Error, Grants, NotCarried, Result, SchemaItem, Stage, TableMapping, Task, codes};
use tokio_postgres::Client;

use super::catalog::{self, CatalogTable, TableKind};
use super::ddl::{Mapped, Outline, create_table};
use super::{constraints, dump, entries, indexes, remainder, sequences, types};

pub(crate) async fn describe(client: &Client, task: &Task) -> Result<Description> {
    let (tables, foreign): (Vec<_>, Vec<_>) =
        catalog::read_selected(client, &task.select).await?.into_iter().partition(|table| table.kind != TableKind::Foreign);
    let mappings = TableMapping::resolve_all(&task.map, tables.iter().map(|table| &table.table))?;
    let mut description = Description { tables: tables.iter().map(|table| table.table.clone()).collect(), ..Description::default() };
    for table in &foreign {
        let object = format!("FOREIGN TABLE {}", table.table.name);
        description.not_carried.push(NotCarried { object, reason: "its rows live on another server".to_owned() });
    }
    let (items, left) = steps(client, task, &tables, &mappings).await?;
    description.items = items;
    description.not_carried.extend(left);
    description.not_carried.extend(remainder::never_carried(client, &tables).await?);
    if task.schema.create != Create::None && task.schema.grants == Grants::List {
        description.not_carried.extend(remainder::grants(client, &tables).await?);
    }
    Ok(description)
}

async fn steps(
    client: &Client,
    task: &Task,
    tables: &[CatalogTable],
    mappings: &[TableMapping],
) -> Result<(Vec<SchemaItem>, Vec<NotCarried>)> {
    match &task.schema.create {
        Create::None => Ok((Vec::new(), Vec::new())),
        Create::File(path) => Ok((from_file(path).await?, Vec::new())),
        Create::All => match dump::try_steps(client, task, tables, mappings).await? {
            dump::Outcome::Steps(items, left) => Ok((items, left)),
            dump::Outcome::Unfit(reason) => own_steps(client, task, tables, mappings, &reason).await,
        },
        Create::Tables => own_steps(client, task, tables, mappings, "the task makes tables only (schema.create)").await,
    }
}

async fn from_file(path: &std::path::Path) -> Result<Vec<SchemaItem>> {
    let text = tokio::fs::read_to_string(path).await.map_err(|problem| {
        Error::new(&codes::TASK_REFERENCE, "the schema's file cannot be read").at(path.display().to_string()).caused_by(problem)
    })?;
    let split = entries::split(&text);
    if split.is_empty() {
        return Ok(vec![SchemaItem { id: format!("FILE {}", path.display()), stage: Stage::BeforeLoad, table: None, sql: vec![text] }]);
    }
    Ok(dump::staged_by_kind(split))
}

async fn own_steps(
    client: &Client,
    task: &Task,
    tables: &[CatalogTable],
    mappings: &[TableMapping],
    reason: &str,
) -> Result<(Vec<SchemaItem>, Vec<NotCarried>)> {
    let mapped: Vec<Mapped<'_>> = tables.iter().zip(mappings).map(|(source, mapping)| Mapped { source, mapping }).collect();
    let types = types::needed(client, tables).await?;
    let sequences = sequences::of_columns(client, tables).await?;
    let mut outline = Outline::new();
    outline.items.extend(types.items);
    outline.not_carried.extend(types.not_carried);
    for table in &mapped {
        create_table(table, &sequences, &mut outline);
    }
    indexes::write(client, &mapped, &mut outline).await?;
    constraints::write(client, &mapped, &mut outline).await?;
    outline.not_carried.extend(remainder::flattened(&mapped));
    outline.not_carried.extend(remainder::unmade(client, &task.select, reason).await?);
    Ok((outline.items, outline.not_carried))
}
