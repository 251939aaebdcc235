//! Indexes besides the key, as steps after the load.

use std::collections::HashMap;

use godwit_model::{Result, SchemaItem, Stage, TableName};
use tokio_postgres::{Client, Row};

use super::ddl::{Mapped, Outline};
use crate::{error, quote};

/// Indexes that no constraint owns and no partition inherited.
const INDEXES: &str = "
SELECT i.indrelid, i.indexrelid, ic.relname::text, i.indisunique, pg_get_indexdef(i.indexrelid),
       'CREATE ' || CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || quote_ident(ic.relname) || ' ON '
           || CASE WHEN c.relkind = 'p' THEN 'ONLY ' ELSE '' END || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' ',
       am.amname::text, i.indpred IS NULL AND i.indexprs IS NULL, i.indkey::text, i.indnkeyatts::int4, i.indoption::text,
       ARRAY(SELECT CASE WHEN oc.opcdefault THEN '' ELSE ' ' || quote_ident(ocn.nspname) || '.' || quote_ident(oc.opcname) END
             FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k(opclass, place)
             JOIN pg_opclass oc ON oc.oid = k.opclass JOIN pg_namespace ocn ON ocn.oid = oc.opcnamespace ORDER BY k.place),
       ARRAY(SELECT r.refobjid::regprocedure::text FROM pg_depend r
             WHERE r.classid = 'pg_class'::regclass AND r.objid = i.indexrelid AND r.refclassid = 'pg_proc'::regclass
               AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = r.refobjid AND e.deptype = 'e')),
       ARRAY(SELECT pg_describe_object(r.refclassid, r.refobjid, 0) FROM pg_depend r
             WHERE r.classid = 'pg_class'::regclass AND r.objid = i.indexrelid AND r.refobjid >= 16384
               AND r.refclassid IN ('pg_opclass'::regclass, 'pg_collation'::regclass, 'pg_operator'::regclass)
               AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = r.refclassid AND e.objid = r.refobjid AND e.deptype = 'e') ORDER BY 1),
       ARRAY(SELECT a.attnum || ' SET STATISTICS ' || a.attstattarget FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 ORDER BY a.attnum)
FROM pg_index i
JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = ANY($1) AND i.indisvalid
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY i.indrelid, ic.relname";

pub(crate) async fn write(client: &Client, tables: &[Mapped<'_>], outline: &mut Outline) -> Result<()> {
    let oids: Vec<u32> = tables.iter().map(|table| table.source.oid).collect();
    let by_oid: HashMap<u32, &Mapped<'_>> = tables.iter().map(|table| (table.source.oid, table)).collect();
    for row in client.query(INDEXES, &[&oids]).await.map_err(error::from_server)? {
        let Some(table) = by_oid.get(&row.get(0)) else { continue };
        let oid: u32 = row.get(1);
        if table.source.key_index.as_ref().is_some_and(|key| key.oid == oid) {
            continue;
        }
        let name: String = row.get(2);
        let (calls, uses): (Vec<String>, Vec<String>) = (row.get(12), row.get(13));
        if let Some(reason) = outline.missing_function(&calls).or_else(|| outline.missing_object(&uses)) {
            outline.leave(format!("INDEX {}.{name}", table.mapping.source.schema), &reason);
            continue;
        }
        match create(table, &row, outline) {
            Some(sql) => outline.items.push(SchemaItem {
                id: format!("INDEX {}.{name}", table.mapping.source.schema),
                stage: if row.get(3) { Stage::AfterLoad } else { Stage::Index },
                table: Some(table.mapping.target.clone()),
                sql: std::iter::once(sql).chain(statistics(table, &row)).collect(),
            }),
            None => outline.leave(
                format!("INDEX {}.{name}", table.mapping.source.schema),
                "it speaks of columns that are renamed or left out; create it by hand",
            ),
        }
    }
    Ok(())
}

/// What is gathered of an index's expressions, where every column keeps its name.
fn statistics(table: &Mapped<'_>, row: &Row) -> Vec<String> {
    let index = quote::table(&TableName::new(table.mapping.target.schema.as_str(), row.get::<_, &str>(2)));
    let targets: Vec<String> = if table.keeps_columns() { row.get(14) } else { Vec::new() };
    targets.iter().map(|target| format!("ALTER INDEX IF EXISTS {index} ALTER COLUMN {target}")).collect()
}

fn create(table: &Mapped<'_>, row: &Row, outline: &mut Outline) -> Option<String> {
    let target = &table.mapping.target;
    let definition = if table.keeps_columns() {
        // The server's own text from USING on.
        let (whole, before): (&str, &str) = (row.get(4), row.get(5));
        whole.strip_prefix(before).or_else(|| whole.strip_prefix(&before.replacen(" ON ONLY ", " ON ", 1)))?.to_owned()
    } else {
        plain(table, row)?
    };
    let unique = if row.get(3) { "UNIQUE " } else { "" };
    let name = outline.index_name(&target.schema, row.get(2)).unwrap_or_default();
    Some(format!("CREATE {unique}INDEX {name} ON {} {definition}", quote::table(target)))
}

/// An index of nothing but columns, under their new names.
fn plain(table: &Mapped<'_>, row: &Row) -> Option<String> {
    if !row.get::<_, bool>(7) {
        return None;
    }
    let method: &str = row.get(6);
    let width = usize::try_from(row.get::<_, i32>(9)).ok()?;
    let numbers: Vec<i16> = row.get::<_, &str>(8).split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let options: Vec<i16> = row.get::<_, &str>(10).split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let classes: Vec<String> = row.get(11);
    let names = numbers.iter().map(|number| {
        let index = table.source.columns.iter().position(|column| column.number == *number)?;
        table.target_column(index).map(quote::identifier)
    });
    let names: Vec<String> = names.collect::<Option<_>>()?;
    let keys = names.iter().take(width).enumerate().map(|(place, name)| {
        let class = classes.get(place).map_or("", String::as_str);
        let order = if method == "btree" { order(options.get(place).copied().unwrap_or(0)) } else { "" };
        format!("{name}{class}{order}")
    });
    let keys = keys.collect::<Vec<_>>().join(", ");
    let included = if names.len() > width { format!(" INCLUDE ({})", names[width..].join(", ")) } else { String::new() };
    Some(format!("USING {method} ({keys}){included}"))
}

/// Bit 0 is descending, bit 1 NULLs first.
fn order(option: i16) -> &'static str {
    match option & 3 {
        1 => " DESC NULLS LAST",
        2 => " ASC NULLS FIRST",
        3 => " DESC",
        _ => "",
    }
}
