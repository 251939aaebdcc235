//! What tables are besides their rows: properties of columns, constraints, indexes, partitions, labels of enums.
//!
//! Both sides are read alike and spelled by the server, so that equal texts mean equal things. Names are the target's. A
//! server may spell what it was given in another way than what it parsed it from: where texts differ, the target is asked
//! to spell the source's, on an empty table that is taken back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{Bearing, Feature, Result, Scope, TableMapping, TableName};
use tokio_postgres::{Client, Row};

use super::catalog::{self, CatalogTable, TableKind};
use super::ddl::{Mapped, Sequences};
use super::sequences::{self, OwnedSequence};
use crate::{error, quote};

/// A table as one side has it.
struct Side<'a> {
    catalog: CatalogTable,
    mapping: &'a TableMapping,
    /// By number: the columns' names at the target.
    names: HashMap<i16, String>,
    /// Whether every column has its own name at the target, so that the server's expressions hold there.
    whole: bool,
    /// Sequences of columns, by the names that they have at the target.
    sequences: HashMap<i16, OwnedSequence>,
}

impl Side<'_> {
    fn target(&self) -> &TableName {
        &self.mapping.target
    }

    fn feature(&self, what: String, definition: impl Into<String>) -> Feature {
        Feature {
            table: self.target().clone(),
            what,
            definition: definition.into(),
            make: Vec::new(),
            remove: Vec::new(),
            change: Vec::new(),
            bearing: Bearing::None,
            scope: Scope::Table,
            leans_on: None,
        }
    }
}

/// Features in the order in which they can be made.
#[derive(Default)]
struct Gathered {
    labels: Vec<Feature>,
    columns: Vec<Feature>,
    partitions: Vec<Feature>,
    constraints: Vec<Feature>,
    indexes: Vec<Feature>,
    foreign_keys: Vec<Feature>,
}

impl Gathered {
    fn all(self) -> Vec<Feature> {
        [self.labels, self.columns, self.partitions, self.constraints, self.indexes, self.foreign_keys].into_iter().flatten().collect()
    }
}

/// What the source has, by table and name.
type Asked<'f> = HashMap<(&'f TableName, &'f str), &'f Feature>;

pub(crate) async fn of_source(client: &Client, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
    let names: Vec<TableName> = mappings.iter().map(|mapping| mapping.source.clone()).collect();
    let tables = catalog::read_named(client, &names).await?;
    let sequences = sequences::of_columns(client, &tables).await?;
    let mut sides = Vec::new();
    let by_name: HashMap<&TableName, &Arc<TableMapping>> = mappings.iter().map(|mapping| (&mapping.source, mapping)).collect();
    for catalog in tables {
        let Some(mapping) = by_name.get(&catalog.table.name) else { continue };
        let mapped = Mapped { source: &catalog, mapping };
        let named = |index: usize| Some((catalog.columns[index].number, mapped.target_column(index)?.to_owned()));
        let names = (0..catalog.columns.len()).filter_map(named).collect();
        let own = own_sequences(&catalog, &sequences, |sequence| sequence.renamed(&mapped));
        let whole = mapped.keeps_columns();
        sides.push(Side { names, whole, sequences: own, mapping, catalog });
    }
    gather(client, &sides).await.map(Gathered::all)
}

pub(crate) async fn of_target(client: &Client, mappings: &[Arc<TableMapping>], wanted: &[Feature]) -> Result<Vec<Feature>> {
    let names: Vec<TableName> = mappings.iter().map(|mapping| mapping.target.clone()).collect();
    let tables = catalog::read_named(client, &names).await?;
    let sequences = sequences::of_columns(client, &tables).await?;
    let mut sides = Vec::new();
    let by_name: HashMap<&TableName, &Arc<TableMapping>> = mappings.iter().map(|mapping| (&mapping.target, mapping)).collect();
    let asked: Asked<'_> = wanted.iter().map(|wanted| ((&wanted.table, wanted.what.as_str()), wanted)).collect();
    for catalog in tables {
        let Some(mapping) = by_name.get(&catalog.table.name) else { continue };
        let columns = catalog.columns.iter().zip(&catalog.table.columns);
        let names = columns.map(|(own, column)| (own.number, column.name.clone())).collect();
        let own = own_sequences(&catalog, &sequences, OwnedSequence::clone);
        sides.push(Side { names, whole: true, sequences: own, mapping, catalog });
    }
    let mut found = gather(client, &sides).await?.all();
    // properties of a column that is the owner's own are the owner's too
    found.retain(|feature| {
        let of_task = |name: &str| {
            let is_mapped = by_name.get(&feature.table).is_some_and(|mapping| mapping.columns.iter().any(|column| column.target == name));
            is_mapped || asked.contains_key(&(&feature.table, format!("{COLUMN}{name}").as_str()))
        };
        let column = feature.what.split_once(" of ").or_else(|| feature.what.split_once(" on ")).map(|(_, name)| name);
        feature.scope != Scope::OfColumn || column.is_none_or(of_task)
    });
    // a table that is not cut into partitions has room for the rows of all of them
    let in_one: HashSet<&TableName> =
        sides.iter().filter(|side| side.catalog.kind != TableKind::Partitioned).map(|side| side.target()).collect();
    let is_held = |feature: &&Feature| feature.what.starts_with(PARTITION) && in_one.contains(&feature.table);
    found.extend(wanted.iter().filter(is_held).cloned());
    in_one_spelling(client, &mut found, &asked).await?;
    Ok(found)
}

fn own_sequences(
    table: &CatalogTable,
    sequences: &Sequences,
    named: impl Fn(&OwnedSequence) -> OwnedSequence,
) -> HashMap<i16, OwnedSequence> {
    let of = |number: i16| Some((number, named(sequences.get(&(table.oid, number))?)));
    table.columns.iter().filter_map(|column| of(column.number)).collect()
}

async fn gather(client: &Client, sides: &[Side<'_>]) -> Result<Gathered> {
    let mut gathered = Gathered::default();
    let oids: Vec<u32> = sides.iter().map(|side| side.catalog.oid).collect();
    let by_oid: HashMap<u32, &Side<'_>> = sides.iter().map(|side| (side.catalog.oid, side)).collect();
    labels(client, &oids, &by_oid, &mut gathered).await?;
    sides.iter().for_each(|side| columns(side, &mut gathered.columns));
    comments(client, &oids, &by_oid, &mut gathered.columns).await?;
    partitions(client, &oids, &by_oid, &mut gathered).await?;
    constraints(client, &oids, &by_oid, &mut gathered).await?;
    indexes(client, &oids, &by_oid, &mut gathered).await?;
    Ok(gathered)
}

fn columns(side: &Side<'_>, features: &mut Vec<Feature>) {
    let table = quote::table(side.target());
    for (column, own) in side.catalog.table.columns.iter().zip(&side.catalog.columns) {
        let Some(name) = side.names.get(&own.number) else { continue };
        let quoted = quote::identifier(name);
        let alter = |what: &str| vec![format!("ALTER TABLE {table} ALTER COLUMN {quoted} {what}")];
        let collation = own.collation.as_ref().filter(|_| own.collation_is_system).map(|name| format!(" COLLATE {name}"));
        let type_name = format!("{}{}", column.type_name, collation.unwrap_or_default());
        let generation = own
            .generated
            .zip(own.expression.as_ref())
            .map(|(kind, expression)| format!(" GENERATED ALWAYS AS ({expression}) {}", if kind == 'v' { "VIRTUAL" } else { "STORED" }));
        let definition = format!("{type_name}{}", generation.clone().unwrap_or_default());
        let remove = vec![format!("ALTER TABLE {table} DROP COLUMN {quoted}")];
        let make = vec![format!("ALTER TABLE {table} ADD COLUMN {quoted} {definition}")];
        let change = match generation {
            Some(_) => [remove.clone(), make.clone()].concat(),
            None => alter(&format!("TYPE {type_name} USING {quoted}::text::{}", column.type_name)),
        };
        features.push(Feature { make, remove, change, scope: Scope::Column, ..side.feature(format!("{COLUMN}{name}"), definition) });
        if !column.nullable {
            features.push(Feature {
                make: alter("SET NOT NULL"),
                remove: alter("DROP NOT NULL"),
                bearing: Bearing::Refuses,
                scope: Scope::OfColumn,
                ..side.feature(format!("NOT NULL of {name}"), "")
            });
        }
        features.extend(value_source(side, own, name));
    }
}

/// Default or identity.
fn value_source(side: &Side<'_>, own: &catalog::CatalogColumn, name: &str) -> Option<Feature> {
    let (table, quoted) = (quote::table(side.target()), quote::identifier(name));
    let alter = |what: &str| format!("ALTER TABLE {table} ALTER COLUMN {quoted} {what}");
    let sequence = side.sequences.get(&own.number);
    if let Some(kind) = own.identity {
        let kind = if kind == 'a' { "ALWAYS" } else { "BY DEFAULT" };
        let options = sequence.map(|sequence| format!(" ({})", sequence.options(true))).unwrap_or_default();
        return Some(Feature {
            make: vec![alter(&format!("ADD GENERATED {kind} AS IDENTITY{options}"))],
            remove: vec![alter("DROP IDENTITY")],
            change: vec![alter(&format!("SET GENERATED {kind}"))],
            scope: Scope::OfColumn,
            ..side.feature(format!("IDENTITY of {name}"), kind)
        });
    }
    let expression = own.expression.as_ref().filter(|_| own.generated.is_none())?;
    let drawn = sequence.filter(|_| expression.starts_with("nextval("));
    let (mut make, mut owned) = (Vec::new(), None);
    let definition = match drawn {
        Some(sequence) => {
            make.push(sequence.create());
            let own = format!("ALTER SEQUENCE {} OWNED BY {table}.{quoted}", quote::table(&sequence.name));
            owned = sequence.owned.then_some(own);
            format!("nextval({}::regclass)", quote::literal(&quote::table(&sequence.name)))
        }
        None => expression.clone(),
    };
    make.push(alter(&format!("SET DEFAULT {definition}")));
    make.extend(owned);
    Some(Feature {
        remove: vec![alter("DROP DEFAULT")],
        change: make.clone(),
        make,
        scope: Scope::OfColumn,
        ..side.feature(format!("{DEFAULT}{name}"), definition)
    })
}

const COLUMN: &str = "COLUMN ";
const DEFAULT: &str = "DEFAULT of ";
const CONSTRAINT: &str = "CONSTRAINT ";
const INDEX: &str = "INDEX ";
const PARTITION: &str = "PARTITION ";

const COMMENTS: &str = "
SELECT d.objoid, d.objsubid::int2, d.description FROM pg_description d
WHERE d.classoid = 'pg_class'::regclass AND d.objoid = ANY($1) ORDER BY d.objoid, d.objsubid";

async fn comments(client: &Client, oids: &[u32], sides: &HashMap<u32, &Side<'_>>, features: &mut Vec<Feature>) -> Result<()> {
    for row in client.query(COMMENTS, &[&oids]).await.map_err(error::from_server)? {
        let Some(side) = sides.get(&row.get(0)) else { continue };
        let (number, text): (i16, &str) = (row.get(1), row.get(2));
        let (what, object) = match side.names.get(&number) {
            Some(name) => (format!("COMMENT on {name}"), format!("COLUMN {}.{}", quote::table(side.target()), quote::identifier(name))),
            None if number == 0 => ("COMMENT".to_owned(), format!("TABLE {}", quote::table(side.target()))),
            None => continue,
        };
        let make = vec![format!("COMMENT ON {object} IS {}", quote::literal(text))];
        let remove = vec![format!("COMMENT ON {object} IS NULL")];
        features.push(Feature { change: make.clone(), make, remove, scope: Scope::OfColumn, ..side.feature(what, text) });
    }
    Ok(())
}

const LABELS: &str = "
SELECT e.oid, n.nspname::text, e.typname::text, array_agg(DISTINCT a.attrelid)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type e ON e.oid IN (t.oid, t.typelem, t.typbasetype) AND e.typtype = 'e'
JOIN pg_namespace n ON n.oid = e.typnamespace
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY e.oid, n.nspname, e.typname ORDER BY n.nspname, e.typname";

/// A type's labels stand at the first of its tables by name.
async fn labels(client: &Client, oids: &[u32], sides: &HashMap<u32, &Side<'_>>, gathered: &mut Gathered) -> Result<()> {
    let rows = client.query(LABELS, &[&oids]).await.map_err(error::from_server)?;
    let types: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let sql = "SELECT enumtypid, enumlabel::text FROM pg_enum WHERE enumtypid = ANY($1) ORDER BY enumtypid, enumsortorder";
    let mut of_type: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in client.query(sql, &[&types]).await.map_err(error::from_server)? {
        of_type.entry(row.get(0)).or_default().push(row.get(1));
    }
    for row in &rows {
        let tables: Vec<u32> = row.get(3);
        let Some(side) = tables.iter().filter_map(|oid| sides.get(oid)).min_by_key(|side| side.target()) else { continue };
        let name = TableName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        let labels = of_type.remove(&row.get(0)).unwrap_or_default();
        for (index, label) in labels.iter().enumerate() {
            let place = match (index.checked_sub(1).and_then(|before| labels.get(before)), labels.get(index + 1)) {
                (Some(before), _) => format!(" AFTER {}", quote::literal(before)),
                (None, Some(next)) => format!(" BEFORE {}", quote::literal(next)),
                (None, None) => String::new(),
            };
            let make = vec![format!("ALTER TYPE {} ADD VALUE IF NOT EXISTS {}{place}", quote::table(&name), quote::literal(label))];
            let what = format!("LABEL {} of type {name}", quote::literal(label).trim());
            gathered.labels.push(Feature { make, bearing: Bearing::Admits, ..side.feature(what, "") });
        }
    }
    Ok(())
}

const PARTITIONS: &str = "
SELECT r.oid, pn.nspname::text, p.relname::text, n.nspname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid),
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END
FROM unnest($1::oid[]) AS r(oid) CROSS JOIN LATERAL pg_partition_tree(r.oid) t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = t.parentrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE t.level > 0 AND c.relpartbound IS NOT NULL ORDER BY r.oid, t.level, n.nspname, c.relname";

async fn partitions(client: &Client, oids: &[u32], sides: &HashMap<u32, &Side<'_>>, gathered: &mut Gathered) -> Result<()> {
    for row in client.query(PARTITIONS, &[&oids]).await.map_err(error::from_server)? {
        let Some(side) = sides.get(&row.get(0)).filter(|side| side.mapping.source == side.mapping.target) else { continue };
        let name = |at: usize| TableName::new(row.get::<_, String>(at), row.get::<_, String>(at + 1));
        let Some(bound) = row.get::<_, Option<&str>>(5) else { continue };
        let (parent, part) = (name(1), name(3));
        let cut = row.get::<_, Option<String>>(6).map(|key| format!(" PARTITION BY {key}")).unwrap_or_default();
        let (of, quoted) = (quote::table(&parent), quote::table(&part));
        gathered.partitions.push(Feature {
            make: vec![format!("CREATE TABLE {quoted} PARTITION OF {of} {bound}{cut}")],
            remove: vec![drop_if_empty(&quoted)],
            change: vec![
                format!("ALTER TABLE {of} DETACH PARTITION {quoted}"),
                format!("ALTER TABLE {of} ATTACH PARTITION {quoted} {bound}"),
            ],
            bearing: Bearing::Admits,
            ..side.feature(format!("{PARTITION}{part}"), format!("OF {of} {bound}{cut}"))
        });
    }
    Ok(())
}

/// A partition goes where its rows went before it.
fn drop_if_empty(table: &str) -> String {
    let told = "RAISE EXCEPTION 'the partition holds rows'";
    let held = format!("LOCK TABLE {table}; IF EXISTS (SELECT FROM {table}) THEN {told}; END IF; DROP TABLE {table};");
    format!("DO {}", quote::literal(&format!("BEGIN {held} END")))
}

const CONSTRAINTS: &str = "
SELECT k.conrelid, k.conname::text, k.contype::text, pg_get_constraintdef(k.oid), n.nspname::text, c.relname::text
FROM pg_constraint k LEFT JOIN pg_class c ON c.oid = k.confrelid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.conrelid = ANY($1) AND k.contype IN ('c', 'u', 'x', 'p', 'f') AND k.conparentid = 0 AND k.coninhcount = 0
ORDER BY k.conrelid, k.contype = 'c', k.conname";

async fn constraints(client: &Client, oids: &[u32], sides: &HashMap<u32, &Side<'_>>, gathered: &mut Gathered) -> Result<()> {
    for row in client.query(CONSTRAINTS, &[&oids]).await.map_err(error::from_server)? {
        let Some(side) = sides.get(&row.get(0)).filter(|side| side.whole) else { continue };
        // dropped while it was read
        let Some(definition) = row.get::<_, Option<&str>>(3) else { continue };
        let (name, kind): (&str, &str) = (row.get(1), row.get(2));
        let leans_on = row.get::<_, Option<String>>(4).zip(row.get(5)).map(|(schema, table): (_, String)| TableName::new(schema, table));
        let (table, quoted) = (quote::table(side.target()), quote::identifier(name));
        let feature = Feature {
            make: vec![format!("ALTER TABLE {table} ADD CONSTRAINT {quoted} {definition}")],
            remove: vec![format!("ALTER TABLE {table} DROP CONSTRAINT {quoted}")],
            // rows are found by the key
            bearing: if matches!(kind, "f" | "p") || is_own_key(side, name) { Bearing::None } else { Bearing::Refuses },
            leans_on,
            ..side.feature(format!("{CONSTRAINT}{name}"), definition)
        };
        if kind == "f" { gathered.foreign_keys.push(feature) } else { gathered.constraints.push(feature) }
    }
    Ok(())
}

fn is_own_key(side: &Side<'_>, index: &str) -> bool {
    side.catalog.key_index.as_ref().is_some_and(|key| key.name == index)
}

const INDEXES: &str = "
SELECT i.indrelid, ic.relname::text, n.nspname::text, i.indisunique, pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_namespace n ON n.oid = ic.relnamespace
WHERE i.indrelid = ANY($1) AND i.indisvalid AND NOT ic.relispartition
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY i.indrelid, ic.relname";

async fn indexes(client: &Client, oids: &[u32], sides: &HashMap<u32, &Side<'_>>, gathered: &mut Gathered) -> Result<()> {
    for row in client.query(INDEXES, &[&oids]).await.map_err(error::from_server)? {
        let Some(side) = sides.get(&row.get(0)).filter(|side| side.whole) else { continue };
        let Some(definition) = behind_the_table(&row, 4) else { continue };
        let (name, unique): (&str, bool) = (row.get(1), row.get(3));
        let (word, quoted) = (if unique { "UNIQUE " } else { "" }, quote::identifier(name));
        let place = TableName::new(side.target().schema.clone(), name);
        gathered.indexes.push(Feature {
            make: vec![format!("CREATE {word}INDEX {quoted} ON {} {definition}", quote::table(side.target()))],
            remove: vec![format!("DROP INDEX {}", quote::table(&place))],
            bearing: if unique && !is_own_key(side, name) { Bearing::Refuses } else { Bearing::None },
            ..side.feature(format!("{INDEX}{name}"), format!("{word}{definition}"))
        });
    }
    Ok(())
}

/// An index's definition from its method on. Names before it may hold the word in quotes only.
fn behind_the_table(row: &Row, at: usize) -> Option<String> {
    method_on(row.get::<_, Option<&str>>(at)?).map(str::to_owned)
}

fn method_on(definition: &str) -> Option<&str> {
    const USING: &str = " USING ";
    let mut quoted = false;
    for (place, character) in definition.char_indices() {
        quoted ^= character == '"';
        if !quoted && definition[place..].starts_with(USING) {
            return Some(&definition[place + 1..]);
        }
    }
    None
}

/// Where both sides have a feature and spell it differently: on an empty copy of the table the source's is made and read
/// again. What then reads like the target's is the same.
async fn in_one_spelling(client: &Client, found: &mut [Feature], asked: &Asked<'_>) -> Result<()> {
    for own in found {
        let other = asked.get(&(&own.table, own.what.as_str())).copied();
        let Some(other) = other.filter(|other| other.definition != own.definition) else { continue };
        if is_expression(&own.what) && respelled(client, other).await?.as_ref() == Some(&own.definition) {
            other.definition.clone_into(&mut own.definition);
        }
    }
    Ok(())
}

fn is_expression(what: &str) -> bool {
    [DEFAULT, CONSTRAINT, INDEX].iter().any(|kind| what.starts_with(kind))
}

/// None: the target cannot make it.
async fn respelled(client: &Client, feature: &Feature) -> Result<Option<String>> {
    let table = quote::table(&feature.table);
    let begin = format!("BEGIN; CREATE TEMP TABLE godwit_like (LIKE {table})");
    client.batch_execute(&begin).await.map_err(error::from_server)?;
    let spelled = spelled_on_copy(client, feature, &table).await;
    client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
    Ok(spelled)
}

async fn spelled_on_copy(client: &Client, feature: &Feature, table: &str) -> Option<String> {
    for statement in &feature.make {
        client.batch_execute(&statement.replacen(table, "pg_temp.godwit_like", 1)).await.ok()?;
    }
    let of_copy = "'pg_temp.godwit_like'::regclass";
    let sql = if feature.what.starts_with(DEFAULT) {
        format!("SELECT pg_get_expr(adbin, adrelid), false FROM pg_attrdef WHERE adrelid = {of_copy}")
    } else if feature.what.starts_with(CONSTRAINT) {
        format!("SELECT pg_get_constraintdef(oid), false FROM pg_constraint WHERE conrelid = {of_copy} AND contype <> 'n'")
    } else {
        format!("SELECT pg_get_indexdef(indexrelid), indisunique FROM pg_index WHERE indrelid = {of_copy}")
    };
    let row = client.query_one(&sql, &[]).await.ok()?;
    if !feature.what.starts_with(INDEX) {
        return row.get(0);
    }
    let word = if row.get(1) { "UNIQUE " } else { "" };
    Some(format!("{word}{}", behind_the_table(&row, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_told_from_its_method_on() {
        assert_eq!(method_on("CREATE INDEX i ON s.t USING btree (a)"), Some("USING btree (a)"));
        assert_eq!(method_on("CREATE INDEX \" USING \" ON ONLY s.\"a \"\" USING b\" USING gin (x)"), Some("USING gin (x)"));
        assert_eq!(method_on("odd"), None);
    }
}
