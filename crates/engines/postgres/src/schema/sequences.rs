//! Sequences: those that belong to columns, as DDL; and where sequences stand.

use std::collections::HashMap;

use godwit_model::{Create, Error, Result, SequenceValue, TableMapping, TableName, Task, Value, codes};
use tokio_postgres::{Client, Row};

use super::catalog::{self, CatalogTable, SYSTEM_SCHEMAS};
use super::ddl::{Mapped, Sequences};
use crate::{error, quote};

/// A sequence that a column owns or draws its default from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedSequence {
    pub(crate) name: TableName,
    /// By the column; else the column only draws from it, as others may.
    pub(crate) owned: bool,
    type_name: String,
    start: i64,
    increment: i64,
    minimum: i64,
    maximum: i64,
    cache: i64,
    cycles: bool,
}

impl OwnedSequence {
    /// One that the column owns follows its table into another schema.
    pub(crate) fn renamed(&self, table: &Mapped<'_>) -> Self {
        OwnedSequence { name: target_name(self, table.mapping), ..self.clone() }
    }

    pub(crate) fn create(&self) -> String {
        format!("CREATE SEQUENCE IF NOT EXISTS {} AS {} {}", quote::table(&self.name), self.type_name, self.options(false))
    }

    pub(crate) fn options(&self, with_name: bool) -> String {
        let name = if with_name { format!("SEQUENCE NAME {} ", quote::table(&self.name)) } else { String::new() };
        let cycle = if self.cycles { " CYCLE" } else { "" };
        format!(
            "{name}START WITH {} INCREMENT BY {} MINVALUE {} MAXVALUE {} CACHE {}{cycle}",
            self.start, self.increment, self.minimum, self.maximum, self.cache
        )
    }
}

fn target_name(sequence: &OwnedSequence, mapping: &TableMapping) -> TableName {
    let name = &sequence.name;
    let follows = sequence.owned && name.schema == mapping.source.schema;
    let schema = if follows { &mapping.target.schema } else { &name.schema };
    TableName::new(schema.clone(), name.name.clone())
}

/// `a` and `i`: owned by a column. `n`: a column's default depends on it.
const OF_COLUMNS: &str = "
SELECT o.relation, o.number, n.nspname::text, c.relname::text, format_type(s.seqtypid, NULL),
       s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle, bool_or(o.owned)
FROM (
    SELECT d.refobjid AS relation, d.refobjsubid::int2 AS number, d.objid AS sequence, true AS owned FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
      AND d.refobjid = ANY($1)
    UNION
    SELECT a.adrelid, a.adnum, d.refobjid, false FROM pg_depend d JOIN pg_attrdef a ON a.oid = d.objid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'n'
      AND a.adrelid = ANY($1)
) o
JOIN pg_class c ON c.oid = o.sequence AND c.relkind = 'S'
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_sequence s ON s.seqrelid = c.oid
GROUP BY o.relation, o.number, n.nspname, c.relname, s.seqtypid, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
ORDER BY n.nspname, c.relname";

pub(crate) async fn of_columns(client: &Client, tables: &[CatalogTable]) -> Result<Sequences> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = client.query(OF_COLUMNS, &[&oids]).await.map_err(error::from_server)?;
    let sequence = |row: &Row| OwnedSequence {
        name: TableName::new(row.get::<_, String>(2), row.get::<_, String>(3)),
        owned: row.get(11),
        type_name: row.get(4),
        start: row.get(5),
        increment: row.get(6),
        minimum: row.get(7),
        maximum: row.get(8),
        cache: row.get(9),
        cycles: row.get(10),
    };
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), sequence(row))).collect())
}

/// Sequences asked in one statement; each takes a lock of its own for the moment.
const VALUES_AT_ONCE: usize = 200;

/// Those of the selected tables' columns, and with `create: all` every user's sequence.
pub(crate) async fn read_values(client: &Client, task: &Task) -> Result<Vec<SequenceValue>> {
    let names = names_of(client, task).await?;
    let mut values = Vec::with_capacity(names.len());
    for part in names.chunks(VALUES_AT_ONCE) {
        let selects: Vec<String> = part
            .iter()
            .enumerate()
            .map(|(index, (source, _))| format!("SELECT {index}::int4, last_value, is_called FROM {}", quote::table(source)))
            .collect();
        for row in client.query(&selects.join(" UNION ALL "), &[]).await.map_err(error::from_server)? {
            let index = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
            let (_, target) = part.get(index).ok_or_else(|| Error::internal("a sequence was read that was not asked for"))?;
            values.push(SequenceValue { name: target.clone(), last: Value::Int(row.get(1)), called: row.get(2) });
        }
    }
    Ok(values)
}

/// The sequences whose values are read, by their names at the source.
pub(crate) async fn sequence_names(client: &Client, task: &Task) -> Result<Vec<TableName>> {
    Ok(names_of(client, task).await?.into_iter().map(|(source, _)| source).collect())
}

/// Source and target names.
async fn names_of(client: &Client, task: &Task) -> Result<Vec<(TableName, TableName)>> {
    let tables = catalog::read_selected(client, &task.select).await?;
    let mut names: HashMap<TableName, TableName> = HashMap::new();
    if task.schema.create == Create::All {
        let sql = format!(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND NOT {SYSTEM_SCHEMAS}
              AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')"
        );
        for row in client.query(&sql, &[]).await.map_err(error::from_server)? {
            let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
            names.insert(name.clone(), name);
        }
    }
    let owned = of_columns(client, &tables).await?;
    for table in &tables {
        let mapping = TableMapping::resolve(&task.map, &table.table)?;
        for column in &table.columns {
            if let Some(sequence) = owned.get(&(table.oid, column.number)) {
                names.insert(sequence.name.clone(), target_name(sequence, &mapping));
            }
        }
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort();
    Ok(names)
}

/// Sequences moved in one transaction; each holds a lock until its end.
pub(crate) const MOVED_AT_ONCE: usize = 200;

/// Moves sequences ahead in their own direction, never back. Those that the target lacks are passed over: a table that
/// was there already may draw its numbers from elsewhere.
pub(crate) async fn set_values(client: &Client, values: &[SequenceValue]) -> Result<()> {
    let names: Vec<String> = values.iter().map(|value| quote::table(&value.name)).collect();
    let sql = "SELECT w.place, s.seqincrement > 0 FROM unnest($1::text[]) WITH ORDINALITY w(name, place)
        JOIN pg_sequence s ON s.seqrelid = to_regclass(w.name)";
    let mut moves = Vec::with_capacity(values.len());
    for row in client.query(sql, &[&names]).await.map_err(error::from_server)? {
        let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
        let (Some(value), Some(name)) = (values.get(place), names.get(place)) else { continue };
        let Value::Int(last) = value.last else {
            return Err(Error::new(&codes::INTERNAL, "a sequence's value is no integer").at(format!("sequence {}", value.name)));
        };
        let behind = if row.get(1) { "<" } else { ">" };
        moves.push(format!(
            "SELECT setval({}::regclass, {last}, {called}) FROM {name} AS s
             WHERE s.last_value {behind} {last} OR (s.last_value = {last} AND {called} AND NOT s.is_called)",
            quote::literal(name),
            called = value.called,
        ));
    }
    client.batch_execute(&moves.join("; ")).await.map_err(error::from_server)
}
