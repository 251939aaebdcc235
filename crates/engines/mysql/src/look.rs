//! How tables look now: their columns, and a stamp that says whether rows may have moved outside of the log.
//!
//! Seen on MariaDB 10.11: InnoDB gives a table, and each of its partitions, another id when it is rebuilt, truncated, or
//! exchanged; columns that are added or dropped at once, indexes and renamings leave the id and change `CREATE_TIME`,
//! which is when the definition was last written, in whole seconds. A truncate leaves that time. Neither changes by
//! inserts, ANALYZE or FLUSH. The ids show only to whoever has the right PROCESS; without it the stamp has none, and a
//! truncate is told by the log alone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use godwit_model::{Appearance, Result, TableAppearance, TableName, codes};
use mysql_async::Conn;

use crate::catalog::{self, CatalogTable, by_database, cell, of_tables, rows, text};
use crate::connect::{Flavor, Server};
use crate::quote;

const VERSION: &str = "1";
/// Two changes within one second bear one time: a definition of this very second is asked for again.
const SECOND: Duration = Duration::from_secs(1);
/// A file's time may be ahead of the server's clock for ever.
const PATIENCE: usize = 3;

pub(crate) type Stamps = HashMap<TableName, String>;

/// Of those of these tables that are there.
pub(crate) async fn appearances(conn: &mut Conn, server: &Server, names: &[TableName]) -> Result<Vec<TableAppearance>> {
    let stamps = stamps(conn, server, names).await?;
    let tables = catalog::read(conn, server, names).await?;
    Ok(tables.iter().map(|table| TableAppearance { table: table.table.name.clone(), look: of(table, &stamps) }).collect())
}

/// What is computed is no part of it: changes do not state it.
pub(crate) fn of(table: &CatalogTable, stamps: &Stamps) -> Appearance {
    let stored = table.table.columns.iter().filter(|column| !column.generated);
    Appearance {
        columns: stored.map(|column| (column.name.clone(), column.type_name.clone())).collect(),
        in_parts: false,
        stamp: stamps.get(&table.table.name).cloned().unwrap_or_default(),
    }
}

pub(crate) async fn stamps(conn: &mut Conn, server: &Server, names: &[TableName]) -> Result<Stamps> {
    let mut found = Stamps::new();
    for (database, names) in by_database(names) {
        let ids = ids(conn, server, database).await?;
        let times = times(conn, database, &names).await?;
        for name in &names {
            let Some(time) = times.get(*name) else { continue };
            let ids = match &ids {
                None => "-".to_owned(),
                Some(ids) => {
                    ids.get(*name).map(|parts| parts.values().map(String::as_str).collect::<Vec<_>>().join(",")).unwrap_or_default()
                }
            };
            found.insert(TableName::new(database, *name), format!("{VERSION} {time} {ids}"));
        }
    }
    Ok(found)
}

/// When each table's definition was written.
async fn times(conn: &mut Conn, database: &str, names: &[&str]) -> Result<HashMap<String, String>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, CREATE_TIME, CREATE_TIME >= NOW() FROM information_schema.TABLES WHERE {}",
        of_tables(database, names)
    );
    for attempt in 1.. {
        let (mut found, mut is_fresh) = (HashMap::new(), false);
        for row in rows(conn, sql.clone()).await? {
            if text(&row, 0)? == database {
                let name = text(&row, 1)?;
                is_fresh |= cell(&row, 3)?.as_deref() == Some("1") && names.contains(&name.as_str());
                found.insert(name, text(&row, 2)?);
            }
        }
        if !is_fresh || attempt == PATIENCE {
            return Ok(found);
        }
        tokio::time::sleep(SECOND).await;
    }
    Ok(HashMap::new())
}

/// By table: the id of each of its parts. None: this account may not ask.
async fn ids(conn: &mut Conn, server: &Server, database: &str) -> Result<Option<HashMap<String, BTreeMap<String, String>>>> {
    let source = match server.flavor {
        Flavor::MariaDb => "INNODB_SYS_TABLES",
        Flavor::MySql => "INNODB_TABLES",
    };
    // names stand there as the names of files; a hash is none of a name's characters
    let named = |text: &str| format!("CONVERT(CONVERT(CAST({text} AS BINARY) USING filename) USING utf8mb4)");
    let sql = format!(
        "SELECT {}, SUBSTRING_INDEX(NAME, '/', -1), TABLE_ID FROM information_schema.{source} \
        WHERE CAST({} AS BINARY) = CAST({} AS BINARY)",
        named("SUBSTRING_INDEX(SUBSTRING_INDEX(NAME, '/', -1), '#', 1)"),
        named("SUBSTRING_INDEX(NAME, '/', 1)"),
        quote::literal(database)
    );
    let answer = match rows(conn, sql).await {
        Err(error) if error.is(&codes::RIGHTS_MISSING) => return Ok(None),
        answer => answer?,
    };
    let mut found: HashMap<String, BTreeMap<String, String>> = HashMap::new();
    for row in answer {
        found.entry(text(&row, 0)?).or_default().insert(text(&row, 1)?, text(&row, 2)?);
    }
    Ok(Some(found))
}
