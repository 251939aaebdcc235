//! What writing has to know of a target table besides the mapping.

use std::collections::HashMap;

use godwit_model::{Error, Result, TableMapping, Value, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::values::Codec;
use crate::{error, quote};

pub(crate) struct Shape {
    /// Quoted, with its database.
    pub(crate) table: String,
    pub(crate) columns: Vec<Written>,
    pub(crate) upsert: Upsert,
}

/// A column of the mapping.
pub(crate) struct Written {
    /// Quoted.
    pub(crate) name: String,
    pub(crate) codec: Codec,
    /// `ON UPDATE CURRENT_TIMESTAMP`: changes by itself where a statement does not name it.
    pub(crate) renews: bool,
    /// Takes no NULL. A server may put something else there in silence: the time, the next number.
    pub(crate) is_required: bool,
}

/// How rows that may be there are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upsert {
    /// `ON DUPLICATE KEY UPDATE`: right only where no other unique index can find another row.
    Overwrite,
    /// Deleted and inserted: right only for whole rows.
    Replace,
    /// Updated by key, and inserted where nothing was found.
    Search,
}

impl Shape {
    pub(crate) async fn read(conn: &mut Conn, mapping: &TableMapping) -> Result<Self> {
        let found = columns(conn, mapping).await?;
        let by_name: HashMap<&str, &Found> = found.iter().map(|column| (column.name.as_str(), column)).collect();
        let columns = mapping.columns.iter().map(|column| {
            let found = by_name.get(column.target.as_str()).ok_or_else(|| misses(mapping, &column.target))?;
            Ok(Written {
                name: quote::identifier(&column.target),
                codec: Codec::of(&column.type_name)?,
                renews: found.renews,
                is_required: found.is_required,
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>().map_err(|error| error.at_least_at(|| format!("table {}", mapping.target)))?;
        let is_whole = found.iter().filter(|column| !column.is_generated).count() == columns.len();
        let upsert = match found_by_key_alone(conn, mapping).await? {
            true => Upsert::Overwrite,
            false if is_whole => Upsert::Replace,
            false => Upsert::Search,
        };
        Ok(Shape { table: quote::table(&mapping.target), columns, upsert })
    }

    /// Whether a value may stand in a column; `Codec` says whether it can.
    pub(crate) fn accepts(&self, column: usize, value: &Value) -> Result<()> {
        match value {
            Value::Null if self.columns[column].is_required => Err(Error::new(&codes::VALUE_REFUSED, "NULL for a column that takes none")
                .at(format!("column {} of {}", self.columns[column].name, self.table))
                .remedy("give the target column the source column's type, NULL included")),
            Value::Absent | Value::Unsent => Err(Error::internal("a value that is not known was to be written")),
            _ => Ok(()),
        }
    }
}

struct Found {
    name: String,
    renews: bool,
    is_required: bool,
    is_generated: bool,
}

async fn columns(conn: &mut Conn, mapping: &TableMapping) -> Result<Vec<Found>> {
    // names that differ by case alone are two tables on some servers and one on others
    let sql = format!(
        "SELECT table_name = BINARY {1}, column_name, is_nullable, extra, coalesce(generation_expression, '') FROM information_schema.columns
         WHERE table_schema = {0} AND table_name = {1} ORDER BY table_name = BINARY {1} DESC, table_name, ordinal_position",
        quote::literal(&mapping.target.schema),
        quote::literal(&mapping.target.name)
    );
    let rows: Vec<(bool, String, String, String, String)> = conn.query(sql).await.map_err(error::from_server)?;
    let is_exact = rows.first().is_some_and(|row| row.0);
    if rows.is_empty() {
        return Err(Error::new(&codes::TABLE_MISSING, "the table is not there").at(format!("table {}", mapping.target)));
    }
    let found = rows.into_iter().filter(|row| row.0 == is_exact).map(|(_, name, nullable, extra, expression)| Found {
        name,
        renews: extra.to_ascii_lowercase().contains("on update"),
        is_required: nullable == "NO",
        is_generated: !expression.is_empty(),
    });
    Ok(found.collect())
}

/// Whether the key has a unique index and no other columns have one.
async fn found_by_key_alone(conn: &mut Conn, mapping: &TableMapping) -> Result<bool> {
    if mapping.has_uniques || !mapping.has_key() {
        return Ok(false);
    }
    let sql = format!(
        "SELECT index_name, coalesce(column_name, ''), sub_part IS NOT NULL FROM information_schema.statistics
         WHERE table_schema = {} AND table_name = {} AND non_unique = 0",
        quote::literal(&mapping.target.schema),
        quote::literal(&mapping.target.name)
    );
    let rows: Vec<(String, String, bool)> = conn.query(sql).await.map_err(error::from_server)?;
    let mut indexes: HashMap<String, Vec<(String, bool)>> = HashMap::new();
    for (index, column, is_prefix) in rows {
        indexes.entry(index).or_default().push((column, is_prefix));
    }
    let key = mapping.key_targets();
    let is_key = |columns: &Vec<(String, bool)>| {
        columns.len() == key.len() && columns.iter().all(|(column, is_prefix)| !is_prefix && key.contains(&column.as_str()))
    };
    Ok(!indexes.is_empty() && indexes.values().all(is_key))
}

fn misses(mapping: &TableMapping, column: &str) -> Error {
    Error::new(&codes::SCHEMA_MISMATCH, format!("column `{column}` is not there"))
        .at(format!("table {}", mapping.target))
        .remedy("give the target table the source table's columns")
}
