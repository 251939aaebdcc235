//! Shuts users out of writing, by triggers that refuse every row.

use godwit_model::{Result, Table};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;

use crate::capture::Names;
use crate::error::Told;
use crate::tokens::quoted;

const EVENTS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

pub(crate) fn set(connection: &mut Connection, names: &Names, tables: &[Arc<Table>], on: bool) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    for (number, table) in tables.iter().enumerate() {
        for event in EVENTS {
            let name = quoted(&names.fence(number, &event.to_ascii_lowercase()));
            let sql = if on {
                let table = quoted(&table.name.name);
                format!(
                    "CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON {table} BEGIN
                     SELECT RAISE(ABORT, 'this database moved: it takes no more writes'); END"
                )
            } else {
                format!("DROP TRIGGER IF EXISTS {name}")
            };
            transaction.execute_batch(&sql).told()?;
        }
    }
    transaction.commit().told()
}
