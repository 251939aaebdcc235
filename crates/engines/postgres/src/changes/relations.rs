//! Which selected table a relation of the stream belongs to.
//!
//! The stream speaks of leaf partitions by their own names; to a task they are their root. The catalog is asked when
//! the stream begins, and again when it speaks of a relation that was made since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{Error, Result, Table, TableName, codes};
use tokio_postgres::Client;

use crate::error;
use crate::pgoutput::Relation;

#[derive(Clone, Debug, Default)]
pub(crate) struct Relations {
    /// By OID, tables without partitions and leaves alike.
    owners: HashMap<u32, Owner>,
    /// Leaves of each partitioned table.
    leaves: HashMap<TableName, HashSet<u32>>,
    /// The columns of each, and whether the server computes and stores them: a stream may tell those too, and the target
    /// computes its own. Partitions mostly share theirs.
    columns: HashMap<u32, Arc<HashMap<String, bool>>>,
}

#[derive(Clone, Debug)]
struct Owner {
    table: TableName,
    is_leaf: bool,
}

const RELATIONS: &str = "
SELECT w.place, c.relkind = 'p', coalesce(t.relid::oid, c.oid),
       l.names, l.computed
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(schema, name, place)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(c.oid) WHERE c.relkind = 'p' AND isleaf) t ON true
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(a.attname::text), '{}') AS names, coalesce(array_agg(a.attgenerated = 's'), '{}') AS computed
    FROM pg_attribute a WHERE a.attrelid = coalesce(t.relid::oid, c.oid) AND a.attnum > 0 AND NOT a.attisdropped) l";

impl Relations {
    pub(crate) async fn read(client: &Client, tables: &[Arc<Table>]) -> Result<Self> {
        let (schemas, names) = columns(tables);
        let rows = client.query(RELATIONS, &[&schemas, &names]).await.map_err(error::from_server)?;
        let mut relations = Relations::default();
        let mut last = Arc::default();
        for row in rows {
            let (place, is_leaf, oid): (i64, bool, u32) = (row.get(0), row.get(1), row.get(2));
            let table = usize::try_from(place - 1).ok().and_then(|place| tables.get(place));
            let Some(table) = table.map(|table| table.name.clone()) else { continue };
            if is_leaf {
                relations.leaves.entry(table.clone()).or_default().insert(oid);
            }
            relations.owners.insert(oid, Owner { table, is_leaf });
            let named: HashMap<String, bool> = row.get::<_, Vec<String>>(3).into_iter().zip(row.get::<_, Vec<bool>>(4)).collect();
            if *last != named {
                last = Arc::new(named);
            }
            relations.columns.insert(oid, last.clone());
        }
        Ok(relations)
    }

    #[cfg(test)]
    pub(crate) fn of_plain(oid: u32, table: TableName, columns: &[(&str, bool)]) -> Self {
        let columns = columns.iter().map(|(name, is_computed)| ((*name).to_owned(), *is_computed)).collect();
        Relations {
            owners: HashMap::from([(oid, Owner { table, is_leaf: false })]),
            columns: HashMap::from([(oid, Arc::new(columns))]),
            ..Relations::default()
        }
    }

    /// Whether what the catalog said when it was read may not hold for what the stream describes now: the relation or a
    /// column came since, perhaps computed, or one that was computed may be so no longer.
    pub(crate) fn may_be_behind(&self, relation: &Relation) -> bool {
        let Some(columns) = self.columns.get(&relation.oid) else { return true };
        relation.columns.iter().any(|column| columns.get(&column.name) != Some(&false))
    }

    pub(crate) fn knows(&self, oid: u32) -> bool {
        self.owners.contains_key(&oid)
    }

    /// None: the catalog names no such column.
    pub(crate) fn is_computed(&self, oid: u32, column: &str) -> Option<bool> {
        self.columns.get(&oid).and_then(|columns| columns.get(column)).copied()
    }

    pub(crate) fn computes(&self, oid: u32, column: &str) -> bool {
        self.is_computed(oid, column).unwrap_or(false)
    }

    /// What the stream still tells of columns that are gone by now was computed if they were.
    pub(crate) fn keep_computed_of(&mut self, before: &Relations) {
        for (oid, columns) in &before.columns {
            let gone = |column: &&String| self.is_computed(*oid, column).is_none();
            let gone: Vec<String> =
                columns.iter().filter(|(_, computed)| **computed).map(|(column, _)| column).filter(gone).cloned().collect();
            if !gone.is_empty() {
                Arc::make_mut(self.columns.entry(*oid).or_default()).extend(gone.into_iter().map(|column| (column, true)));
            }
        }
    }

    /// The selected table a relation belongs to.
    pub(crate) fn owner(&self, relation: &Relation) -> Result<TableName> {
        let name = TableName::new(&relation.schema, &relation.name);
        let Some(owner) = self.owners.get(&relation.oid) else {
            return Err(Error::new(
                &codes::OUT_OF_SIGHT,
                "the log holds changes of a table that is no longer one of the task's tables or their partitions",
            )
            .at(format!("table {name}"))
            .remedy("it was renamed, dropped or detached: `run --resync` makes the target equal again"));
        };
        if !owner.is_leaf && owner.table != name {
            return Err(Error::new(&codes::DDL_STOPPED, format!("the table was renamed to {name}"))
                .at(format!("table {}", owner.table))
                .remedy("rename it back, or select it by its new name in a new task"));
        }
        Ok(owner.table.clone())
    }

    /// One relation for each table that a truncation of these empties. Partitions that are emptied alone would leave
    /// the others' rows: the target has no partition to empty, so that stops.
    pub(crate) fn emptied(&self, oids: &[u32]) -> Result<Vec<u32>> {
        let mut tables: HashSet<&TableName> = HashSet::new();
        let mut emptied = Vec::new();
        for oid in oids {
            let Some(owner) = self.owners.get(oid) else { continue };
            if !tables.insert(&owner.table) {
                continue;
            }
            let is_whole = self.leaves.get(&owner.table).is_none_or(|leaves| leaves.iter().all(|leaf| oids.contains(leaf)));
            if !is_whole {
                return Err(Error::new(&codes::OUT_OF_SIGHT, "one partition was truncated, which the log tells without its rows")
                    .at(format!("table {}", owner.table))
                    .remedy("`run --resync` makes the target equal again"));
            }
            emptied.push(*oid);
        }
        Ok(emptied)
    }
}

pub(crate) fn columns(tables: &[Arc<Table>]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|table| (table.name.schema.as_str(), table.name.name.as_str())).unzip()
}

const UNPUBLISHED: &str = "
SELECT w.schema || '.' || w.name
FROM unnest($1::text[], $2::text[]) w(schema, name)
LEFT JOIN pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
WHERE NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $3 AND r.prrelid = c.oid)
ORDER BY 1 LIMIT 10";

/// A table that is dropped leaves its publication, and one made anew under its name is not in it: its changes would
/// never be told.
pub(crate) async fn all_published(client: &Client, publication: &str, tables: &[Arc<Table>]) -> Result<()> {
    let (schemas, names) = columns(tables);
    let rows = client.query(UNPUBLISHED, &[&schemas, &names, &publication]).await.map_err(error::from_server)?;
    let missing = rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>().join(", ");
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        &codes::OUT_OF_SIGHT,
        format!("publication {publication} does not hold {missing}, so that the log did not show every change"),
    )
    .remedy("the table was dropped and made anew, or taken out of the publication: `run --resync` makes the target equal again"))
}
