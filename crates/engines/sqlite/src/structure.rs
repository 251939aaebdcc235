//! What tables are besides their rows, as far as it may change while a task runs: a table that is altered stops the task,
//! so that what is left to compare is its indexes. They stand in the file as they were written, and are carried so.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{Bearing, Feature, Result, Scope, TableMapping};
use rusqlite::Connection;

use crate::error::Told;
use crate::tokens::quoted;

const INDEXES: &str = "SELECT tbl_name, name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name";

/// Of tables that keep all their names: the texts hold on both sides.
pub(crate) fn of_tables(connection: &Connection, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
    let mut indexes: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let mut statement = connection.prepare(INDEXES).told()?;
    let mut rows = statement.query([]).told()?;
    while let Some(row) = rows.next().told()? {
        let table: String = row.get(0).told()?;
        indexes.entry(table.to_ascii_lowercase()).or_default().push((row.get(1).told()?, row.get(2).told()?));
    }
    let mut features = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.is_identity()) {
        for (name, sql) in indexes.remove(&mapping.source.name.to_ascii_lowercase()).unwrap_or_default() {
            let unique = sql.get(..13).is_some_and(|head| head.eq_ignore_ascii_case("CREATE UNIQUE"));
            features.push(Feature {
                table: mapping.target.clone(),
                what: format!("INDEX {name}"),
                definition: sql.clone(),
                make: vec![sql],
                remove: vec![format!("DROP INDEX {}", quoted(&name))],
                change: Vec::new(),
                bearing: if unique { Bearing::Refuses } else { Bearing::None },
                scope: Scope::Table,
                leans_on: None,
            });
        }
    }
    Ok(features)
}
