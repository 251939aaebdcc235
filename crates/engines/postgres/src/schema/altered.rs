//! What a schema change made of a table: from the columns that the stream states, and from the catalog where it agrees.

use godwit_model::{Altered, Appearance, Column, Error, Key, Result, Table, UniqueKey, Value, codes};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::catalog;
use super::look::{self, Shift, Stamp};
use crate::{error, quote};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Somebody may alter the table once more, for long; the attempt is made again.
const LOCK_PATIENCE: &str = "SET LOCAL lock_timeout = '10s'";

/// All from one snapshot of the catalog, which is not older than the change: a commit is in the stream before others see
/// it, but whoever altered a table lets go of its lock behind that.
pub(crate) async fn altered(client: &Client, before: &Table, seen: &Appearance, columns: &[(String, String)]) -> Result<Altered> {
    let behind = format!("{BEGIN}; {LOCK_PATIENCE}; LOCK TABLE ONLY {} IN ACCESS SHARE MODE", quote::table(&before.name));
    match client.batch_execute(&behind).await {
        // then it is seen what became of it
        Err(problem) if problem.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            client.batch_execute(&format!("ROLLBACK; {BEGIN}")).await.map_err(error::from_server)?;
        }
        locked => locked.map_err(error::from_server)?,
    }
    let altered = judge(client, before, seen, columns).await?;
    client.batch_execute("COMMIT").await.map_err(error::from_server)?;
    Ok(altered)
}

async fn judge(client: &Client, before: &Table, seen: &Appearance, columns: &[(String, String)]) -> Result<Altered> {
    let names = std::slice::from_ref(&before.name);
    let now = look::of_names(client, names).await?.pop().map(|found| found.look).ok_or_else(|| gone(before))?;
    let known = catalog::read_named(client, names).await?.pop().ok_or_else(|| gone(before))?.table;
    let agrees = now.fits(columns);
    let (was, is) = (Stamp::parse(&seen.stamp), Stamp::parse(&now.stamp));
    let moved = was.as_ref().zip(is.as_ref()).and_then(|(was, is)| is.renamed(was));
    let renamed = moved.and_then(|moved| told(moved, seen, columns));
    let distinct = renamed.is_some();
    let renamed = renamed.unwrap_or_default();
    let table = restated(client, before, seen, &known, &now, columns, &renamed).await?;
    // the columns of parts may come in another order: then names alone do not say which column had which in between
    let sure = agrees && distinct && (renamed.is_empty() || !now.in_parts);
    let shift = was.zip(is).filter(|_| sure).and_then(|(was, is)| is.since(&was));
    let fills = match &shift {
        Some(shift) if is_of(shift, seen, columns, &renamed) => fills(client, before, shift).await?,
        _ => None,
    };
    Ok(Altered { table, proved: fills.is_some(), fills: fills.unwrap_or_default(), renamed, distinct, look: now })
}

/// Of the names that changed since the stamp those that changed between the look and what the stream states. None: the
/// stream may mean another column by one of them.
fn told(moved: Vec<(String, String)>, seen: &Appearance, columns: &[(String, String)]) -> Option<Vec<(String, String)>> {
    let has = |columns: &[(String, String)], name: &String| columns.iter().any(|(there, _)| there == name);
    let mut renamed = Vec::new();
    for (old, new) in moved {
        let before = (has(&seen.columns, &old), has(&seen.columns, &new));
        let after = (has(columns, &old), has(columns, &new));
        match (before, after) {
            ((true, false), (false, true)) => renamed.push((old, new)),
            // before the look, behind what the stream states
            ((false, true), (false, true)) | ((true, false), (true, false)) => {}
            _ => return None,
        }
    }
    Some(renamed)
}

fn gone(before: &Table) -> Error {
    Error::new(&codes::OUT_OF_SIGHT, "the table is no longer there")
        .at(format!("table {}", before.name))
        .remedy("it was renamed or dropped: select what took its place in a new task, or `run --resync` when it is back")
}

/// Whether what the catalog says happened is what the stream says happened.
fn is_of(shift: &Shift, seen: &Appearance, columns: &[(String, String)], renamed: &[(String, String)]) -> bool {
    let came = |name: &String| !seen.columns.iter().any(|(there, _)| there == name) && !renamed.iter().any(|(_, new)| new == name);
    let went = |name: &String| !columns.iter().any(|(there, _)| there == name) && !renamed.iter().any(|(old, _)| old == name);
    let added = columns.iter().filter(|(name, _)| came(name)).count();
    let gone = seen.columns.iter().filter(|(name, _)| went(name)).count();
    // a column that was dropped and made anew alike shows in the numbers alone: the target's still holds the old values
    added == shift.added.len() && gone == shift.gone
}

/// What rows that were there hold in each new column. None: not the same in all, or it cannot be told.
async fn fills(client: &Client, table: &Table, shift: &Shift) -> Result<Option<Vec<(String, Value)>>> {
    let sql = "SELECT l.oid = to_regclass($1) AND l.relkind <> 'p', a.atthasmissing, (a.attmissingval::text::text[])[1]
               FROM pg_class l JOIN pg_attribute a ON a.attrelid = l.oid AND a.attname = $2 AND NOT a.attisdropped
               WHERE l.oid IN (SELECT to_regclass($1)::oid UNION SELECT relid FROM pg_partition_tree(to_regclass($1)))";
    let mut fills = Vec::new();
    for (_, name) in &shift.added {
        let rows = client.query(sql, &[&quote::table(&table.name), name]).await.map_err(error::from_server)?;
        let value = match rows.as_slice() {
            [row] if row.get(0) && row.get(1) => Value::Native(row.get::<_, Option<String>>(2).unwrap_or_default().into()),
            rows if rows.iter().any(|row| row.get(1)) => return Ok(None),
            _ => Value::Null,
        };
        fills.push((name.clone(), value));
    }
    Ok(Some(fills))
}

async fn restated(
    client: &Client,
    before: &Table,
    seen: &Appearance,
    known: &Table,
    now: &Appearance,
    columns: &[(String, String)],
    renamed: &[(String, String)],
) -> Result<Table> {
    let mut stated = Vec::new();
    for column in columns {
        let of = |table: &Table, look: &Appearance| {
            let index = table.column(&column.0).filter(|_| look.columns.contains(column))?;
            Some(table.columns[index].clone())
        };
        stated.push(match of(known, now).or_else(|| of(before, seen)) {
            Some(known) => known,
            None => Column { name: column.0.clone(), type_name: spelled(client, before, column).await?, nullable: true, generated: false },
        });
    }
    let generated = before.columns.iter().filter(|column| column.generated && !columns.iter().any(|(name, _)| *name == column.name));
    stated.extend(generated.cloned());
    let name_of = |index: usize| {
        let old = &before.columns[index].name;
        renamed.iter().find(|(there, _)| there == old).map_or(old, |(_, new)| new)
    };
    let moved = |indices: &[usize]| -> Option<Vec<usize>> {
        indices.iter().map(|index| stated.iter().position(|column| column.name == *name_of(*index))).collect()
    };
    let key = before.key.as_ref().and_then(|key| moved(&key.columns)).map(|columns| Key { columns });
    let unique = |unique: &UniqueKey| Some(UniqueKey { name: unique.name.clone(), columns: moved(&unique.columns)? });
    let uniques = before.uniques.iter().filter_map(unique).collect();
    Ok(Table { key, uniques, columns: stated, ..before.clone() })
}

/// A type of the stream as DDL writes it.
async fn spelled(client: &Client, table: &Table, (column, stated): &(String, String)) -> Result<String> {
    let (name, modifier) = modified(stated);
    let row = match (name.parse::<i64>(), name.split_once('.')) {
        (Ok(oid), _) => client.query_one("SELECT format_type($1::int8::oid, $2)", &[&oid, &modifier]).await,
        (_, split) => {
            let (schema, name) = split.unwrap_or(("", name));
            let schema = if schema.is_empty() { "pg_catalog" } else { schema };
            let quoted = format!("{}.{}", quote::identifier(schema), quote::identifier(name));
            client.query_one("SELECT format_type(to_regtype($1), $2)", &[&quoted, &modifier]).await
        }
    };
    row.map_err(error::from_server)?.get::<_, Option<String>>(0).filter(|text| text != "???").ok_or_else(|| {
        Error::new(&codes::DDL_STOPPED, format!("column `{column}` has type {stated}, which is no longer there to be told"))
            .at(format!("table {}", table.name))
            .remedy("run with --resync after the target was altered like the source is now")
    })
}

/// Name and modifier.
fn modified(stated: &str) -> (&str, Option<i32>) {
    let split = stated.strip_suffix(')').and_then(|text| text.rsplit_once('('));
    match split.and_then(|(name, number)| Some((name, number.parse().ok()?))) {
        Some((name, modifier)) => (name, Some(modifier)),
        None => (stated, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "text".to_owned())).collect()
    }

    #[test]
    fn the_catalog_and_the_stream_must_tell_the_same_story() {
        let seen = Appearance { columns: columns(&["id", "a"]), ..Appearance::default() };
        let shift = |added: &[&str], gone| Shift { added: added.iter().map(|name| (3, (*name).to_owned())).collect(), gone };
        let is_of = |shift: &Shift, after: &[&str]| is_of(shift, &seen, &columns(after), &[]);
        assert!(is_of(&shift(&["b"], 0), &["id", "a", "b"]));
        assert!(is_of(&shift(&["b"], 1), &["id", "b"]));
        assert!(is_of(&shift(&[], 1), &["id"]));
        // the stamp is of a moment at which the change was there already
        assert!(!is_of(&shift(&[], 0), &["id", "a", "b"]));
        assert!(!is_of(&shift(&["b"], 0), &["id", "b"]));
        assert!(!is_of(&shift(&["a", "b"], 1), &["id", "a", "b"]));
    }

    #[test]
    fn a_rename_is_told_where_no_other_column_had_either_name() {
        let seen = Appearance { columns: columns(&["id", "a", "b"]), ..Appearance::default() };
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        let told = |old: &str, new: &str, after: &[&str]| told(vec![pair(old, new)], &seen, &columns(after));
        assert_eq!(told("a", "z", &["id", "z", "b"]), Some(vec![pair("a", "z")]));
        assert_eq!(told("a", "z", &["id", "a", "b", "c"]), Some(vec![]), "later");
        assert_eq!(told("y", "a", &["id", "a", "b", "c"]), Some(vec![]), "before");
        assert_eq!(told("a", "z", &["id", "z", "a"]), None, "another column took the old name");
        assert_eq!(told("a", "b", &["id", "b"]), None, "it took another's");
        assert_eq!(told("a", "z", &["id", "q", "b"]), None, "it had a third one in between");
        let shift = Shift { added: vec![], gone: 0 };
        assert!(is_of(&shift, &seen, &columns(&["id", "z", "b"]), &[pair("a", "z")]));
    }

    #[test]
    fn a_modifier_is_a_number_in_brackets() {
        assert_eq!(modified("numeric(655366)"), ("numeric", Some(655366)));
        assert_eq!(modified("shop.odd(name)"), ("shop.odd(name)", None));
    }
}
