//! A source that may not be written to: its administrator makes what capture needs there, and here it is only looked at.
//!
//! The publication must hold exactly the task's tables, whole and with every kind of change: a table too few, a row
//! filter or a column list loses rows in silence. Replica identities must tell rows apart before a table is published.
//! The slot is made by us all the same: it is no write to a database.

use std::collections::HashSet;
use std::sync::Arc;

use godwit_model::{Error, Result, Table, codes};
use tokio_postgres::{Client, Row};

use super::{identity, publication};
use crate::{error, quote};

/// What is not as it must be, and the statements that make it so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lack {
    pub(crate) what: String,
    pub(crate) statements: Vec<String>,
}

/// Everything that the administrator still has to do, in its order: identities before the tables are published.
pub(crate) async fn lacking(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<Vec<Lack>> {
    let mut lacks = Vec::new();
    for (table, statement) in identity::unfit(client, tables).await? {
        let what = format!("the replica identity of {table} does not tell its rows apart");
        lacks.push(Lack { what, statements: vec![statement] });
    }
    match of_publication(client, name, tables).await? {
        Some(lack) => lacks.push(lack),
        None => lacks.extend(computed_untold(client, name, tables).await?),
    }
    Ok(lacks)
}

/// Refuses a source on which something lacks.
pub(super) async fn must_be_there(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<()> {
    let lacks = lacking(client, name, tables).await?;
    if lacks.is_empty() {
        return Ok(());
    }
    let what = lacks.iter().map(|lack| lack.what.as_str()).collect::<Vec<_>>().join("; ");
    let statements = lacks.iter().flat_map(|lack| &lack.statements).cloned().collect::<Vec<_>>().join("; ");
    Err(Error::new(&codes::SETTING_UNSUITABLE, format!("`writes: never` needs what an administrator makes at the source: {what}"))
        .remedy(format!("let one run: {statements}"))
        .effect("nothing was changed"))
}

/// Since it was looked at, nobody may have narrowed what the publication tells.
pub(crate) async fn must_be_whole(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<()> {
    match of_publication(client, name, tables).await? {
        None => Ok(()),
        Some(lack) => Err(Error::new(&codes::OUT_OF_SIGHT, format!("the log did not show every change: {}", lack.what))
            .remedy(format!("let an administrator run: {}; then `run --resync` makes the target equal again", lack.statements.join("; ")))),
    }
}

const PUBLICATION: &str = "
SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot,
       ARRAY(SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid)
FROM pg_publication p WHERE pubname = $1";

/// Since version 15 tables may be published in part, and schemas as a whole.
const NARROWED: &str = "
SELECT ARRAY(SELECT r.prrelid::regclass::text FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL) ORDER BY 1),
       EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)
FROM pg_publication p WHERE pubname = $1";

const WANTED: &str = "
SELECT c.oid, w.schema || '.' || w.name
FROM unnest($1::text[], $2::text[]) w(schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name";

async fn of_publication(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<Option<Lack>> {
    let list = publication::published(client, tables).await?;
    let (quoted, options) = (quote::identifier(name), publication::options(client).await?);
    let create = publication::creation(client, name, tables).await?;
    let Some(row) = client.query_opt(PUBLICATION, &[&name]).await.map_err(error::from_server)? else {
        return Ok(Some(Lack { what: format!("there is no publication {name}"), statements: vec![create] }));
    };
    let anew = |what: String| Ok(Some(Lack { what, statements: vec![format!("DROP PUBLICATION {quoted}"), create.clone()] }));
    if row.get(0) {
        return anew(format!("publication {name} is FOR ALL TABLES"));
    }
    if !row.get::<_, bool>(1) || row.get(2) {
        let what = format!("publication {name} leaves out a kind of change, or has publish_via_partition_root set");
        return Ok(Some(Lack { what, statements: vec![format!("ALTER PUBLICATION {quoted} SET ({options})")] }));
    }
    if let Some(what) = narrowed(client, name).await? {
        return anew(what);
    }
    let difference = difference(client, &row, tables).await?;
    let set = format!("ALTER PUBLICATION {quoted} SET TABLE {list}");
    Ok(difference.map(|what| Lack { what: format!("publication {name} {what}"), statements: vec![set] }))
}

/// Whether the publication leaves out computed columns while an old row is told as a whole, so that one may come to it in
/// mid-run, or by an identity's index that holds one.
const COMPUTED_UNTOLD: &str = "
SELECT EXISTS (
    SELECT FROM unnest($1::text[], $2::text[], $3::bool[]) w(schema, name, has_key)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    CROSS JOIN LATERAL (SELECT c.oid WHERE c.relkind = 'r' UNION ALL SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE c.relkind = 'p' AND t.isleaf) r(oid)
    JOIN pg_class l ON l.oid = r.oid
    WHERE NOT w.has_key OR l.relreplident = 'f' OR EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = l.oid AND a.attnum = ANY (i.indkey::int2[]) AND a.attgenerated = 's'
        WHERE i.indrelid = l.oid AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END))
FROM pg_publication p WHERE p.pubname = $4 AND to_jsonb(p) ->> 'pubgencols' <> 's'";

/// It costs users their updates, and the log nothing.
async fn computed_untold(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<Option<Lack>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.name.as_str()).collect();
    let has_key: Vec<bool> = tables.iter().map(|table| table.key.is_some()).collect();
    let row = client.query_opt(COMPUTED_UNTOLD, &[&schemas, &names, &has_key, &name]).await.map_err(error::from_server)?;
    if !row.is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let what =
        format!("publication {name} leaves out generated columns, so that the server refuses users' updates of rows that are told by them");
    let statements = vec![format!("ALTER PUBLICATION {} SET ({})", quote::identifier(name), publication::options(client).await?)];
    Ok(Some(Lack { what, statements }))
}

async fn narrowed(client: &Client, name: &str) -> Result<Option<String>> {
    let knows = "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL";
    if !client.query_one(knows, &[]).await.map_err(error::from_server)?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_one(NARROWED, &[&name]).await.map_err(error::from_server)?;
    let (tables, has_schemas): (Vec<String>, bool) = (row.get(0), row.get(1));
    Ok(match (tables.is_empty(), has_schemas) {
        (false, _) => Some(format!("publication {name} holds {} with a row filter or a column list", tables.join(", "))),
        (true, true) => Some(format!("publication {name} holds whole schemas")),
        (true, false) => None,
    })
}

async fn difference(client: &Client, publication: &Row, tables: &[Arc<Table>]) -> Result<Option<String>> {
    let listed: HashSet<u32> = publication.get::<_, Vec<u32>>(3).into_iter().collect();
    let schemas: Vec<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.name.as_str()).collect();
    let wanted = client.query(WANTED, &[&schemas, &names]).await.map_err(error::from_server)?;
    let missing: Vec<&str> = wanted.iter().filter(|row| !listed.contains(&row.get(0))).map(|row| row.get(1)).collect();
    if !missing.is_empty() {
        return Ok(Some(format!("does not hold {}", missing.join(", "))));
    }
    Ok((listed.len() > wanted.len()).then(|| "holds tables that the task does not select".to_owned()))
}
