//! What tables and columns are besides their definition, for tables of our own DDL: storage, statistics, comments.

use std::collections::HashMap;

use godwit_model::{Result, SchemaItem, Stage};
use tokio_postgres::Client;

use super::ddl::{Mapped, Outline};
use crate::{error, quote};

const TABLES: &str = "
SELECT c.oid, nullif(concat_ws(', ', array_to_string(c.reloptions, ', '),
           (SELECT string_agg('toast.' || o, ', ') FROM pg_class t CROSS JOIN unnest(t.reloptions) o WHERE t.oid = c.reltoastrelid)), ''), c.relreplident::text, obj_description(c.oid, 'pg_class'),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisclustered), am.amname::text,
       CASE WHEN c.reloftype <> 0 THEN c.reloftype::regtype::text END
FROM pg_class c LEFT JOIN pg_am am ON am.oid = c.relam AND am.amname <> 'heap' WHERE c.oid = ANY($1) ORDER BY c.oid";

const COLUMNS: &str = "
SELECT a.attrelid, a.attnum, CASE WHEN a.attstorage <> t.typstorage THEN
           CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END,
       CASE a.attcompression::text WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
       CASE WHEN a.attstattarget >= 0 THEN a.attstattarget::int4 END, array_to_string(a.attoptions, ', '), col_description(a.attrelid, a.attnum),
       (SELECT k.conname::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.coninhcount = 0 AND k.conkey = ARRAY[a.attnum] AND k.conname <> c.relname || '_' || a.attname || '_not_null' LIMIT 1)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

pub(crate) async fn write(client: &Client, tables: &[Mapped<'_>], outline: &mut Outline) -> Result<()> {
    let oids: Vec<u32> = tables.iter().map(|table| table.source.oid).collect();
    let by_oid: HashMap<u32, &Mapped<'_>> = tables.iter().map(|table| (table.source.oid, table)).collect();
    let mut steps: HashMap<u32, Vec<String>> = HashMap::new();
    for row in client.query(TABLES, &[&oids]).await.map_err(error::from_server)? {
        let oid: u32 = row.get(0);
        let Some(table) = by_oid.get(&oid) else { continue };
        let sql = steps.entry(oid).or_default();
        let name = quote::table(&table.mapping.target);
        if let Some(options) = row.get::<_, Option<&str>>(1).filter(|_| table.source.partition_key.is_none()) {
            sql.push(format!("ALTER TABLE {name} SET ({options})"));
        }
        match row.get::<_, &str>(2) {
            "f" => sql.push(format!("ALTER TABLE {name} REPLICA IDENTITY FULL")),
            "n" => sql.push(format!("ALTER TABLE {name} REPLICA IDENTITY NOTHING")),
            "i" => outline.leave(format!("REPLICA IDENTITY of {}", table.mapping.source), "the target's own key stands for it"),
            _ => {}
        }
        if let Some(comment) = row.get::<_, Option<&str>>(3) {
            sql.push(format!("COMMENT ON TABLE {name} IS {}", quote::literal(comment)));
        }
        if row.get(4) {
            outline.leave(format!("CLUSTER mark of {}", table.mapping.source), "its index is made anew; set it by hand");
        }
        if let Some(kind) = row.get::<_, Option<&str>>(6) {
            outline.leave(
                format!("OF {kind} of {}", table.mapping.source),
                "without pg_dump, or under new names, a table has columns of its own",
            );
        }
        if let Some(method) = row.get::<_, Option<&str>>(5) {
            outline.leave(format!("ACCESS METHOD {method} of {}", table.mapping.source), "a table that is mapped is an ordinary one");
        }
    }
    for row in client.query(COLUMNS, &[&oids]).await.map_err(error::from_server)? {
        let Some(table) = by_oid.get(&row.get(0)) else { continue };
        let place = table.source.columns.iter().position(|column| column.number == row.get::<_, i16>(1));
        let Some(column) = place.and_then(|place| table.target_column(place)).map(quote::identifier) else { continue };
        if let Some(constraint) = row.get::<_, Option<&str>>(7) {
            outline.leave(
                format!("NAME {constraint} of a NOT NULL of {}", table.mapping.source),
                "the server gives such a constraint a name of its own",
            );
        }
        let name = quote::table(&table.mapping.target);
        let alter =
            |what: &str, value: Option<String>| value.map(|value| format!("ALTER TABLE {name} ALTER COLUMN {column} SET {what}{value}"));
        let text = |at: usize| row.get::<_, Option<String>>(at);
        let comment = text(6).map(|comment| format!("COMMENT ON COLUMN {name}.{column} IS {}", quote::literal(&comment)));
        let found = [
            alter("STORAGE ", text(2)),
            alter("COMPRESSION ", text(3)),
            alter("STATISTICS ", row.get::<_, Option<i32>>(4).map(|target| target.to_string())),
            alter("", text(5).map(|options| format!("({options})"))),
            comment,
        ];
        steps.entry(row.get(0)).or_default().extend(found.into_iter().flatten());
    }
    for table in tables {
        let sql = steps.remove(&table.source.oid).filter(|sql| !sql.is_empty());
        let target = &table.mapping.target;
        outline.items.extend(sql.map(|sql| SchemaItem {
            id: format!("ATTRIBUTES {target}"),
            stage: Stage::BeforeLoad,
            table: Some(target.clone()),
            sql,
        }));
    }
    Ok(())
}
