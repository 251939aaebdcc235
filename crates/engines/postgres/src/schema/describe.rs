//! What the source holds of what a task selects, and the steps that make it at a target of this engine.

use std::collections::HashSet;

use godwit_model::{Create, Description, Grants, NotCarried, Owners, Result, TableMapping, Task};
use tokio_postgres::Client;

use super::catalog::{self, CatalogTable, TableKind};
use super::ddl::{Functions, Mapped, Outline, create_table};
use super::dump::Dumped;
use super::{attributes, constraints, dump, indexes, look, remainder, sequences, types};

pub(crate) async fn describe(client: &Client, task: &Task) -> Result<Description> {
    let (tables, foreign): (Vec<_>, Vec<_>) =
        catalog::read_selected(client, &task.select).await?.into_iter().partition(|table| table.kind != TableKind::Foreign);
    let mappings = TableMapping::resolve_all(&task.map, tables.iter().map(|table| &table.table))?;
    let mut description = Description { tables: tables.iter().map(|table| table.table.clone()).collect(), ..Description::default() };
    description.looks = look::of_tables(client, &tables).await?;
    for table in &foreign {
        let object = format!("FOREIGN TABLE {}", table.table.name);
        description.not_carried.push(NotCarried { object, reason: "its rows live on another server".to_owned() });
    }
    make(client, task, &tables, &mappings, &mut description).await?;
    description.not_carried.extend(remainder::never_carried(client, &tables).await?);
    Ok(description)
}

/// Adds the steps.
async fn make(
    client: &Client,
    task: &Task,
    tables: &[CatalogTable],
    mappings: &[TableMapping],
    description: &mut Description,
) -> Result<()> {
    let mapped: Vec<Mapped<'_>> = tables.iter().zip(mappings).map(|(source, mapping)| Mapped { source, mapping }).collect();
    let reason = match &task.schema.create {
        Create::None | Create::File(_) => return Ok(()),
        Create::Tables => "the task makes tables only (schema.create)".to_owned(),
        Create::All => match dump::try_steps(client, task, tables, mappings).await? {
            Ok(dumped) => return beside(client, task, tables, &mapped, dumped, description).await,
            Err(found) => found.reason(),
        },
    };
    own_steps(client, task, tables, &mapped, &reason, description).await
}

const GRANTS_LISTED: &str = "grants are listed, not carried (schema.grants)";
const GRANTS_OF_OWN: &str = "without pg_dump, or under new names, a table's grants are not carried";

/// What `pg_dump` makes, and beside it our own DDL for the tables that it does not make.
async fn beside(
    client: &Client,
    task: &Task,
    tables: &[CatalogTable],
    mapped: &[Mapped<'_>],
    dumped: Dumped,
    description: &mut Description,
) -> Result<()> {
    description.items = dumped.items;
    description.leans_on = dumped.leans_on;
    description.not_carried.extend(dumped.not_carried);
    if task.schema.grants == Grants::List {
        description.not_carried.extend(remainder::grants(client, tables, true, GRANTS_LISTED).await?);
    }
    if dumped.own.is_empty() {
        return Ok(());
    }
    let own: Vec<Mapped<'_>> = mapped.iter().filter(|table| dumped.own.contains(&table.source.oid)).copied().collect();
    if task.schema.owners == Owners::Keep {
        description.not_carried.extend(remainder::owners(client, task, &own).await?);
    }
    let outline = Outline::new(Functions::AllBut(dumped.lost_functions));
    write_tables(client, mapped, &own, outline, description).await
}

async fn own_steps(
    client: &Client,
    task: &Task,
    tables: &[CatalogTable],
    mapped: &[Mapped<'_>],
    reason: &str,
    description: &mut Description,
) -> Result<()> {
    let types = types::needed(client, tables).await?;
    description.items.extend(types.items);
    description.not_carried.extend(types.not_carried);
    write_tables(client, mapped, mapped, Outline::new(Functions::None), description).await?;
    let known: HashSet<String> = description.not_carried.iter().map(|left| left.object.clone()).collect();
    let unmade = remainder::unmade(client, &task.select, tables, &description.items, reason).await?;
    description.not_carried.extend(unmade.into_iter().filter(|left| !known.contains(&left.object)));
    let grants = if task.schema.grants == Grants::List { GRANTS_LISTED } else { GRANTS_OF_OWN };
    description.not_carried.extend(remainder::grants(client, tables, false, grants).await?);
    if task.schema.owners == Owners::Keep {
        description.not_carried.extend(remainder::owners(client, task, mapped).await?);
    }
    Ok(())
}

/// Our own DDL for `own`, which are among `all`.
async fn write_tables(
    client: &Client,
    all: &[Mapped<'_>],
    own: &[Mapped<'_>],
    mut outline: Outline,
    description: &mut Description,
) -> Result<()> {
    let sources: Vec<CatalogTable> = own.iter().map(|table| table.source.clone()).collect();
    let sequences = sequences::of_columns(client, &sources).await?;
    for table in own {
        create_table(table, &sequences, &mut outline);
    }
    attributes::write(client, own, &mut outline).await?;
    indexes::write(client, own, &mut outline).await?;
    constraints::write(client, all, own, &mut outline).await?;
    description.items.extend(outline.items);
    description.not_carried.extend(outline.not_carried);
    description.not_carried.extend(remainder::flattened(own));
    Ok(())
}
