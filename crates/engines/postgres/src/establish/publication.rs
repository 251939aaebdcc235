//! The publication: exactly the task's tables, and, in its comment, what was changed on them for its sake.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use godwit_model::{Error, Result, Table, TableName, codes};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::locks::with_short_locks;
use crate::{error, quote};

/// Every change of every table, each partition's as its own.
const OPTIONS: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = false";

/// Since version 18 the server refuses an update whose old row is told by a computed column that is not published, and
/// such a column may come to any table in mid-run. Told anyway, it is left out where the stream is read.
const WITH_COMPUTED: &str = "publish_generated_columns = stored";

/// The first line of the comment; the lines behind it name one table each.
const HEADING: &str = "Made by Godwit. Replica identities before it was made:";

/// How a table's replica identity stood before we changed it. Written before the change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record(pub(crate) Vec<(TableName, String)>);

impl Record {
    /// Makes it the publication's.
    pub(super) async fn write(&self, client: &Client, publication: &str) -> Result<()> {
        let sql = format!("COMMENT ON PUBLICATION {} IS {}", quote::identifier(publication), quote::literal(&self.comment()));
        with_short_locks(client, &sql, &format!("publication {publication}")).await
    }

    /// One line: the words of ALTER TABLE that restore, a tab, the table's name in quotes.
    fn comment(&self) -> String {
        let lines = self.0.iter().map(|(table, identity)| format!("\n{identity}\t{}\t{}", escaped(&table.schema), escaped(&table.name)));
        HEADING.to_owned() + &lines.collect::<String>()
    }

    /// None: someone else made it.
    fn parse(comment: &str) -> Option<Self> {
        if !comment.starts_with(HEADING) {
            return None;
        }
        let fields = comment.lines().skip(1).filter_map(|line| {
            let mut fields = line.split('\t');
            let (identity, schema, name) = (fields.next()?, fields.next()?, fields.next()?);
            Some((TableName::new(unescaped(schema), unescaped(name)), identity.to_owned()))
        });
        Some(Record(fields.collect()))
    }

    /// None: there is none that Godwit made.
    pub(crate) async fn read(client: &Client, publication: &str) -> Result<Option<Self>> {
        let sql = "SELECT coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication WHERE pubname = $1";
        let row = client.query_opt(sql, &[&publication]).await.map_err(error::from_server)?;
        Ok(row.and_then(|row| Self::parse(row.get(0))))
    }
}

fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescaped(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name.chars();
    while let Some(next) = rest.next() {
        text.push(match (next, next == '\\') {
            (_, true) => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                other => other.unwrap_or('\\'),
            },
            (plain, false) => plain,
        });
    }
    text
}

/// The statement that makes one, of these tables or empty: for the task, to be tried, or for an administrator.
pub(crate) async fn creation(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<String> {
    let list = if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", published(client, tables).await?) };
    Ok(format!("CREATE PUBLICATION {}{list} WITH ({})", quote::identifier(name), options(client).await?))
}

/// Makes it, empty, unless it is there.
pub(super) async fn create(client: &Client, name: &str) -> Result<()> {
    if Record::read(client, name).await?.is_some() {
        return Ok(());
    }
    let creation = creation(client, name, &[]).await?;
    let name = quote::identifier(name);
    let comment = quote::literal(&Record::default().comment());
    let sql = format!("BEGIN; {creation}; COMMENT ON PUBLICATION {name} IS {comment}; COMMIT");
    let made = client.batch_execute(&sql).await.map_err(|problem| match problem.code() {
        Some(&SqlState::DUPLICATE_OBJECT) => not_ours(&name),
        _ => error::from_server(problem),
    });
    if made.is_err() && !client.is_closed() {
        client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
    }
    made
}

fn not_ours(name: &str) -> Error {
    Error::new(&codes::SETTING_UNSUITABLE, format!("there is a publication {name} that Godwit did not make"))
        .remedy(format!("DROP PUBLICATION {name}, or let the task use it as it is: `source: {{writes: never}}`"))
        .effect("nothing was changed")
}

const KINDS: &str = "
SELECT w.place, c.relkind = 'p'
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(schema, name, place)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
ORDER BY w.place";

/// Whether the server can tell computed columns, and refuses updates if it must and does not.
pub(super) async fn tells_computed(client: &Client) -> Result<bool> {
    let sql = "SELECT current_setting('server_version_num')::int4 >= 180000";
    Ok(client.query_one(sql, &[]).await.map_err(error::from_server)?.get(0))
}

/// What a publication is made with.
pub(super) async fn options(client: &Client) -> Result<String> {
    Ok(if tells_computed(client).await? { format!("{OPTIONS}, {WITH_COMPUTED}") } else { OPTIONS.to_owned() })
}

/// Tables that enter or leave in one transaction. Each is locked until its end, and the server's table of locks has
/// room for thousands.
const AT_ONCE: usize = 200;

const MEMBERS: &str = "
SELECT n.nspname::text, c.relname::text, c.relkind = 'p'
FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1";

/// Puts exactly these tables into it.
pub(super) async fn publish(client: &Client, name: &str, tables: &[Arc<Table>]) -> Result<()> {
    if tells_computed(client).await? {
        let sql = format!("ALTER PUBLICATION {} SET ({WITH_COMPUTED})", quote::identifier(name));
        with_short_locks(client, &sql, &format!("publication {name}")).await?;
    }
    let wanted = entries(client, tables).await?;
    let members = members(client, name).await?;
    take_out(client, name, members.difference(&wanted)).await?;
    let missing: Vec<&String> = wanted.difference(&members).collect();
    alter(client, name, "ADD", &missing).await
}

/// As a publication's list of tables has them.
async fn members(client: &Client, name: &str) -> Result<BTreeSet<String>> {
    let rows = client.query(MEMBERS, &[&name]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| entry(&TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)), row.get(2))).collect())
}

async fn take_out(client: &Client, name: &str, tables: impl Iterator<Item = &String>) -> Result<()> {
    alter(client, name, "DROP", &tables.collect::<Vec<_>>()).await
}

async fn alter(client: &Client, name: &str, verb: &str, tables: &[&String]) -> Result<()> {
    for some in tables.chunks(AT_ONCE) {
        let list = some.iter().map(|table| table.as_str()).collect::<Vec<_>>().join(", ");
        let sql = format!("ALTER PUBLICATION {} {verb} TABLE {list}", quote::identifier(name));
        with_short_locks(client, &sql, &format!("publication {name}")).await?;
    }
    Ok(())
}

/// Children by inheritance are tables of their own; partitions belong to their root.
fn entry(table: &TableName, is_partitioned: bool) -> String {
    let only = if is_partitioned { "" } else { "ONLY " };
    format!("{only}{}", quote::table(table))
}

/// The tables as a publication lists them.
pub(super) async fn published(client: &Client, tables: &[Arc<Table>]) -> Result<String> {
    Ok(entries(client, tables).await?.into_iter().collect::<Vec<_>>().join(", "))
}

async fn entries(client: &Client, tables: &[Arc<Table>]) -> Result<BTreeSet<String>> {
    if tables.is_empty() {
        return Err(Error::new(&codes::NOTHING_SELECTED, "there is no table to publish"));
    }
    let schemas: Vec<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.name.as_str()).collect();
    let rows = client.query(KINDS, &[&schemas, &names]).await.map_err(error::from_server)?;
    let kinds: HashMap<i64, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let places = (1..).zip(tables);
    places.map(|(place, table)| Ok(entry(&table.name, *kinds.get(&place).ok_or_else(|| missing(&table.name))?))).collect()
}

pub(super) fn missing(table: &TableName) -> Error {
    Error::new(&codes::TABLE_MISSING, "the table is not there any more").at(format!("table {table}"))
}

/// Empties the publication, gives the tables their replica identities back, and drops it: the record goes last.
pub(crate) async fn drop_and_restore(client: &Client, name: &str) -> Result<()> {
    let Some(record) = Record::read(client, name).await? else { return Ok(()) };
    take_out(client, name, members(client, name).await?.iter()).await?;
    let present = identities(client, &record).await?;
    for (table, identity) in record.0.iter().filter(|entry| present.get(&entry.0).is_some_and(|present| *present != entry.1)) {
        let sql = format!("ALTER TABLE IF EXISTS {} REPLICA IDENTITY {identity}", quote::table(table));
        with_short_locks(client, &sql, &format!("table {table}")).await?;
    }
    with_short_locks(client, &format!("DROP PUBLICATION {}", quote::identifier(name)), &format!("publication {name}")).await
}

const IDENTITIES: &str = "
SELECT w.place, c.relreplident::text, (SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident)
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(schema, name, place)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name";

/// As the recorded tables that are still there have them now, in the words of the record.
async fn identities<'a>(client: &Client, record: &'a Record) -> Result<HashMap<&'a TableName, String>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = record.0.iter().map(|(table, _)| (table.schema.as_str(), table.name.as_str())).unzip();
    let rows = client.query(IDENTITIES, &[&schemas, &names]).await.map_err(error::from_server)?;
    let entry = |row: &tokio_postgres::Row| {
        let (table, _) = record.0.get(usize::try_from(row.get::<_, i64>(0) - 1).ok()?)?;
        Some((table, in_words(row.get(1), row.get(2))))
    };
    Ok(rows.iter().filter_map(entry).collect())
}

/// What stands behind REPLICA IDENTITY to make it so.
pub(super) fn in_words(identity: &str, index: Option<&str>) -> String {
    match (identity, index) {
        ("i", Some(index)) => format!("USING INDEX {}", quote::identifier(index)),
        ("n", _) => "NOTHING".to_owned(),
        ("f", _) => "FULL".to_owned(),
        _ => "DEFAULT".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_comes_back_as_it_was() {
        let record = Record(vec![
            (TableName::new("public", "a\tb\n\\c"), "DEFAULT".to_owned()),
            (TableName::new("x y", "ünï"), "USING INDEX \"i\"".to_owned()),
        ]);
        assert_eq!(Record::parse(&record.comment()), Some(record));
        assert_eq!(Record::parse(&Record::default().comment()), Some(Record::default()));
        assert_eq!(Record::parse("the administrator's"), None);
    }
}
