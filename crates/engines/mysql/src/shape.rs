//! What writing has to know of a target table besides the mapping.

use std::collections::HashMap;

use godwit_model::{Error, Result, TableMapping, Value, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::connect::Flavor;
use crate::values::Codec;
use crate::writers::Writer;
use crate::{catalog, error, fitting, members, quote, tokens};

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
    /// `SCHEMA_MISMATCH` where the table would not hold every value as it is.
    pub(crate) async fn read(conn: &mut Writer, mapping: &TableMapping) -> Result<Self> {
        let found = columns(conn, mapping).await?;
        let by_name: HashMap<&str, &Found> = found.iter().map(|column| (column.name.as_str(), column)).collect();
        let columns = mapping.columns.iter().enumerate().map(|(index, column)| {
            let found = by_name.get(column.target.as_str()).ok_or_else(|| misses(&column.target))?;
            if let Some(what) = fitting::misfit(mapping, index, &found.type_name) {
                return Err(unfit(what, fitting::REMEDY));
            }
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
    type_name: String,
    renews: bool,
    is_required: bool,
    is_generated: bool,
}

type FoundRow = (bool, Option<String>, String, String, String, String, String, Option<String>, Option<String>);

async fn columns(conn: &mut Writer, mapping: &TableMapping) -> Result<Vec<Found>> {
    // names that differ by case alone are two tables on some servers and one on others
    let sql = format!(
        "SELECT c.table_name = BINARY {1}, t.engine, c.column_name, c.is_nullable, c.extra, coalesce(c.generation_expression, ''), c.column_type,
           c.character_set_name, c.collation_name
         FROM information_schema.columns c JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = BINARY c.table_name
         WHERE c.table_schema = {0} AND c.table_name = {1} AND t.table_schema = {0} AND t.table_name = {1}
         ORDER BY c.table_name = BINARY {1} DESC, c.table_name, c.ordinal_position",
        quote::literal(&mapping.target.schema),
        quote::literal(&mapping.target.name)
    );
    let rows: Vec<FoundRow> = conn.query(sql).await.map_err(error::from_server)?;
    let Some((is_exact, engine)) = rows.first().map(|row| (row.0, row.1.clone())) else {
        return Err(Error::new(&codes::TABLE_MISSING, "the table is not there").at(format!("table {}", mapping.target)));
    };
    if let Some(what) = fitting::wrong_engine(engine.as_deref()) {
        return Err(unfit(what, fitting::ENGINE_REMEDY).at(format!("table {}", mapping.target)));
    }
    let mut found = Vec::with_capacity(rows.len());
    for (_, _, name, nullable, extra, expression, declared, charset, collation) in rows.into_iter().filter(|row| row.0 == is_exact) {
        let mut declared = tokens::pieces(declared.as_bytes());
        if conn.flavor == Flavor::MariaDb && charset.as_ref().is_some_and(|charset| members::may_be_cut(&declared, charset)) {
            members::restore(conn, &mapping.target, &name, &mut declared).await?;
        }
        found.push(Found {
            type_name: catalog::type_name(&declared, charset, collation),
            name,
            renews: extra.to_ascii_lowercase().contains("on update"),
            is_required: nullable == "NO",
            is_generated: !expression.is_empty(),
        });
    }
    Ok(found)
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

fn misses(column: &str) -> Error {
    unfit(format!("column `{column}` is not there"), "give the target table the source table's columns")
}

fn unfit(what: String, remedy: &str) -> Error {
    Error::new(&codes::SCHEMA_MISMATCH, what).remedy(remedy).effect("nothing was written to the table")
}
