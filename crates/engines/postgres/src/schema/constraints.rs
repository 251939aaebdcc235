//! Constraints besides the key: unique, exclusion and check after the load, foreign keys at finish.

use std::collections::{HashMap, HashSet};

use godwit_model::{Result, SchemaItem, Stage};
use tokio_postgres::{Client, Row};

use super::ddl::{Mapped, Outline};
use crate::{error, quote};

const CONSTRAINTS: &str = "
SELECT k.conrelid, k.conindid, k.conname::text, k.contype::text, pg_get_constraintdef(k.oid), coalesce(k.conkey, '{}'), k.confrelid, coalesce(k.confkey, '{}'),
       CASE k.confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END
           || CASE k.confupdtype WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'n' THEN ' ON UPDATE SET NULL' WHEN 'd' THEN ' ON UPDATE SET DEFAULT' WHEN 'r' THEN ' ON UPDATE RESTRICT' ELSE '' END
           || CASE k.confdeltype WHEN 'c' THEN ' ON DELETE CASCADE' WHEN 'n' THEN ' ON DELETE SET NULL' WHEN 'd' THEN ' ON DELETE SET DEFAULT' WHEN 'r' THEN ' ON DELETE RESTRICT' ELSE '' END,
       CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
           || CASE WHEN to_jsonb(k)->>'conenforced' = 'false' THEN ' NOT ENFORCED' WHEN k.convalidated THEN '' ELSE ' NOT VALID' END,
       ARRAY(SELECT r.refobjid::regprocedure::text FROM pg_depend r
             WHERE r.classid = 'pg_constraint'::regclass AND r.objid = k.oid AND r.refclassid = 'pg_proc'::regclass
               AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = r.refobjid AND e.deptype = 'e')),
       k.confrelid::regclass::text,
       coalesce(to_jsonb(k)->>'conperiod' = 'true' OR to_jsonb(k)->>'confdelsetcols' IS NOT NULL, false),
       (SELECT array_to_string(i.reloptions, ', ') FROM pg_class i WHERE i.oid = k.conindid AND k.contype IN ('u', 'p', 'x'))
FROM pg_constraint k
WHERE k.conrelid = ANY($1) AND k.contype IN ('u', 'x', 'c', 'f', 'p') AND k.conparentid = 0 AND (k.coninhcount = 0 OR k.contype = 'c')
ORDER BY k.conrelid, k.contype, k.conname";

/// Those of `own`, and foreign keys of `all` that refer to them.
pub(crate) async fn write(client: &Client, all: &[Mapped<'_>], own: &[Mapped<'_>], outline: &mut Outline) -> Result<()> {
    let oids: Vec<u32> = all.iter().map(|table| table.source.oid).collect();
    let ours: HashSet<u32> = own.iter().map(|table| table.source.oid).collect();
    let by_oid: HashMap<u32, &Mapped<'_>> = all.iter().map(|table| (table.source.oid, table)).collect();
    for row in client.query(CONSTRAINTS, &[&oids]).await.map_err(error::from_server)? {
        let Some(table) = by_oid.get(&row.get(0)) else { continue };
        let refers_to_ours = row.get::<_, &str>(3) == "f" && ours.contains(&row.get(6));
        if !ours.contains(&table.source.oid) && !refers_to_ours {
            continue;
        }
        let index: u32 = row.get(1);
        if table.source.key_index.as_ref().is_some_and(|key| key.oid == index) && row.get::<_, &str>(3) != "f" {
            continue;
        }
        let object = format!("CONSTRAINT {} of {}", row.get::<_, &str>(2), table.mapping.source);
        match definition(table, &row, &by_oid, outline) {
            Ok((stage, definition)) if row.get::<_, Option<&str>>(13).is_some() => {
                let definition = with_options(&definition, row.get(13));
                outline.items.push(item(table, &row, stage, &definition));
            }
            Ok((stage, definition)) => outline.items.push(item(table, &row, stage, &definition)),
            Err(reason) => outline.leave(object, &reason),
        }
    }
    Ok(())
}

/// Storage parameters stand before what a constraint says of the time of its check, and before a predicate.
fn with_options(definition: &str, options: &str) -> String {
    let end = [" WHERE (", " DEFERRABLE"].into_iter().filter_map(|word| definition.find(word)).min().unwrap_or(definition.len());
    format!("{} WITH ({options}){}", &definition[..end], &definition[end..])
}

fn item(table: &Mapped<'_>, row: &Row, stage: Stage, definition: &str) -> SchemaItem {
    let name: &str = row.get(2);
    let target = &table.mapping.target;
    let sql = format!("ALTER TABLE {} ADD CONSTRAINT {} {definition}", quote::table(target), quote::identifier(name));
    SchemaItem { id: format!("CONSTRAINT {target} {name}"), stage, table: Some(target.clone()), sql: vec![sql] }
}

fn definition(table: &Mapped<'_>, row: &Row, all: &HashMap<u32, &Mapped<'_>>, outline: &Outline) -> Result<(Stage, String), String> {
    let missing = || "it speaks of columns that are renamed or left out".to_owned();
    let calls: Vec<String> = row.get(10);
    match row.get::<_, &str>(3) {
        "f" => foreign_key(table, row, all).map(|definition| (Stage::AtFinish, definition)),
        _ if outline.missing_function(&calls).is_some() => Err(outline.missing_function(&calls).unwrap_or_default()),
        _ if table.keeps_columns() => Ok((Stage::AfterLoad, row.get(4))),
        kind @ ("u" | "p") => {
            let columns = columns(table, row.get(5)).ok_or_else(missing)?;
            let word = if kind == "u" { "UNIQUE" } else { "PRIMARY KEY" };
            Ok((Stage::AfterLoad, format!("{word} ({columns}){}", row.get::<_, &str>(9))))
        }
        _ => Err(missing()),
    }
}

fn foreign_key(table: &Mapped<'_>, row: &Row, all: &HashMap<u32, &Mapped<'_>>) -> Result<String, String> {
    let other = all.get(&row.get(6)).ok_or_else(|| format!("it refers to {}, which is not selected", row.get::<_, &str>(11)))?;
    let missing = || "it speaks of columns that are left out".to_owned();
    if row.get(12) {
        return Err("a foreign key over periods, or one that sets single columns, is not made for a table that is mapped".to_owned());
    }
    let own = columns(table, row.get(5)).ok_or_else(missing)?;
    let theirs = columns(other, row.get(7)).ok_or_else(missing)?;
    let (actions, times): (&str, &str) = (row.get(8), row.get(9));
    Ok(format!("FOREIGN KEY ({own}) REFERENCES {} ({theirs}){actions}{times}", quote::table(&other.mapping.target)))
}

fn columns(table: &Mapped<'_>, numbers: Vec<i16>) -> Option<String> {
    let place = |number: &i16| table.source.columns.iter().position(|column| column.number == *number);
    let places: Vec<usize> = numbers.iter().map(place).collect::<Option<_>>()?;
    table.column_list(&places)
}
