//! The SQL of set-based writes, built from names and types alone.
//!
//! Every statement takes one parameter of type text per column: an array literal that the server turns into an array of
//! the column's own type without a type modifier, so that a length or scale is checked by assignment and never by a
//! cast, which would cut in silence. Columns that are arrays or composites themselves (`unnest` would flatten them or take
//! them apart), or whose type has no array, travel as arrays of text and are turned element by element.

use godwit_model::{TableName, WriteKind};

use crate::quote;

/// What a statement must know of a target column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TargetColumn {
    pub(crate) name: String,
    /// Without a type modifier, usable in a cast.
    pub(crate) base_type: String,
    /// Whether arrays of this type exist and `unnest` gives its values back.
    pub(crate) in_arrays: bool,
    /// The equality of the key's index, `pg_catalog.=`; None outside of the key.
    pub(crate) equality: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TargetTable {
    pub(crate) name: TableName,
    /// Whether inheritance children hang below that must not be touched (never for partitioned tables).
    pub(crate) only: bool,
    /// Whether foreign keys of other tables point here: TRUNCATE then refuses.
    pub(crate) referenced: bool,
    /// In the mapping's order.
    pub(crate) columns: Vec<TargetColumn>,
    pub(crate) key: Vec<usize>,
    /// Whether equal keys have equal bytes (false: citext, numeric).
    pub(crate) key_is_exact: bool,
    /// Whether COPY may write here: not into views, nor where policies choose rows.
    pub(crate) takes_copy: bool,
    /// Whether it has deferrable unique constraints, which the server checks by triggers of its own.
    pub(crate) checks_late: bool,
}

impl TargetTable {
    fn sql_name(&self) -> String {
        let only = if self.only { "ONLY " } else { "" };
        format!("{only}{}", quote::table(&self.name))
    }

    fn column(&self, index: usize) -> &TargetColumn {
        &self.columns[index]
    }

    fn list(&self, indices: &[usize]) -> String {
        indices.iter().map(|index| quote::identifier(&self.column(*index).name)).collect::<Vec<_>>().join(", ")
    }
}

/// Leaves the replica role until the end of the transaction, so that the server's triggers check the table's deferrable
/// constraints; stays in it where a trigger or a rule of somebody else would then fire, or one of a replica no longer.
/// They come and go while a task runs: they are looked for behind a lock that none passes before the transaction ends.
pub(crate) fn out_of_role(table: &TargetTable) -> String {
    let name = quote::literal(&quote::table(&table.name));
    format!(
        "LOCK TABLE {} IN ROW EXCLUSIVE MODE; \
         SELECT pg_catalog.set_config('session_replication_role', 'origin', true) \
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = {name}::pg_catalog.regclass AND tgenabled IN ('O', 'R') \
         AND tgfoid <> 'pg_catalog.unique_key_recheck'::pg_catalog.regproc) \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = {name}::pg_catalog.regclass)",
        table.sql_name()
    )
}

/// The columns of the write's rows, in order.
pub(crate) fn row_columns(kind: WriteKind, key: &[usize], columns: &[usize]) -> Vec<usize> {
    match kind {
        WriteKind::Insert | WriteKind::Upsert | WriteKind::DeleteWhole | WriteKind::Truncate => columns.to_vec(),
        WriteKind::Update | WriteKind::Delete => key.iter().chain(columns).copied().collect(),
        WriteKind::UpdateWhole => columns.iter().chain(columns).copied().collect(),
    }
}

/// The statement for writes of this kind over these columns.
pub(crate) fn build(table: &TargetTable, kind: WriteKind, columns: &[usize]) -> String {
    match kind {
        WriteKind::Insert => insert(table, columns),
        WriteKind::Upsert => upsert(table, columns),
        WriteKind::Update => update(table, columns),
        WriteKind::Delete => delete(table),
        WriteKind::DeleteWhole => delete_whole(table, columns),
        WriteKind::UpdateWhole => update_whole(table, columns),
        WriteKind::Truncate if table.referenced => format!("DELETE FROM {}", table.sql_name()),
        WriteKind::Truncate => format!("TRUNCATE {}", table.sql_name()),
    }
}

fn insert(table: &TargetTable, columns: &[usize]) -> String {
    let from = unnest(table, columns);
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {from}",
        quote::table(&table.name),
        table.list(columns),
        values(table, columns, 0),
    )
}

fn upsert(table: &TargetTable, columns: &[usize]) -> String {
    format!("{} ON CONFLICT ({}) DO UPDATE SET {}", insert(table, columns), table.list(&table.key), overwrite(table, columns))
}

/// The assignments of an upsert. Key columns are set too where equal keys may differ in their bytes, and in a table of
/// nothing but its key, so that every row counts as touched.
pub(crate) fn overwrite(table: &TargetTable, columns: &[usize]) -> String {
    let rest: Vec<usize> = columns.iter().copied().filter(|index| !table.key.contains(index)).collect();
    let set = if rest.is_empty() || !table.key_is_exact { columns } else { &rest };
    let assignments = set.iter().map(|index| {
        let name = quote::identifier(&table.column(*index).name);
        format!("{name} = EXCLUDED.{name}")
    });
    assignments.collect::<Vec<_>>().join(", ")
}

fn update(table: &TargetTable, columns: &[usize]) -> String {
    let row = row_columns(WriteKind::Update, &table.key, columns);
    let assignments = columns.iter().enumerate().map(|(place, index)| {
        format!("{} = {}", quote::identifier(&table.column(*index).name), value(table, *index, table.key.len() + place))
    });
    format!(
        "UPDATE {} AS t SET {} FROM {} WHERE {}",
        table.sql_name(),
        assignments.collect::<Vec<_>>().join(", "),
        unnest(table, &row),
        same_key(table),
    )
}

fn delete(table: &TargetTable) -> String {
    format!("DELETE FROM {} AS t USING {} WHERE {}", table.sql_name(), unnest(table, &table.key), same_key(table))
}

fn delete_whole(table: &TargetTable, columns: &[usize]) -> String {
    format!("DELETE FROM {} AS t WHERE {}", table.sql_name(), one_equal_row(table, columns))
}

fn update_whole(table: &TargetTable, columns: &[usize]) -> String {
    let assignments = columns.iter().enumerate().map(|(place, index)| {
        let column = table.column(*index);
        format!("{} = {}", quote::identifier(&column.name), parameter(column, columns.len() + place))
    });
    format!("UPDATE {} AS t SET {} WHERE {}", table.sql_name(), assignments.collect::<Vec<_>>().join(", "), one_equal_row(table, columns))
}

/// Rows of a table without a key are told apart by their text, which is finer than any type's equality. The partition
/// is part of the place, because every leaf counts its places from the start.
fn one_equal_row(table: &TargetTable, columns: &[usize]) -> String {
    let equal = columns.iter().enumerate().map(|(place, index)| {
        let column = table.column(*index);
        format!("w.{}::text IS NOT DISTINCT FROM {}::text", quote::identifier(&column.name), parameter(column, place))
    });
    let equal = equal.collect::<Vec<_>>().join(" AND ");
    let from = table.sql_name();
    if table.only {
        format!("t.ctid = (SELECT w.ctid FROM {from} AS w WHERE {equal} LIMIT 1)")
    } else {
        format!("(t.tableoid, t.ctid) = (SELECT w.tableoid, w.ctid FROM {from} AS w WHERE {equal} LIMIT 1)")
    }
}

/// A single value as a parameter: an array of one, because only an array's cast from text surely is the type's input
/// (the cast of text to `regclass` knows no `-`, and users may make casts of their own).
fn parameter(column: &TargetColumn, place: usize) -> String {
    let place = place + 1;
    if column.in_arrays {
        format!("((${place}::text)::{}[])[1]", column.base_type)
    } else {
        format!("((${place}::text)::text[])[1]::{}", column.base_type)
    }
}

/// `(SELECT unnest(...) AS v0, unnest(...) AS v1 ...) AS d`: the rows of a write as a table. Set-returning functions in a
/// list of columns step side by side and hand row by row on; in FROM each would first be written out as a whole.
pub(crate) fn unnest(table: &TargetTable, row: &[usize]) -> String {
    let arrays = row.iter().enumerate().map(|(place, index)| {
        let column = table.column(*index);
        let element = if column.in_arrays { &column.base_type } else { "text" };
        format!("unnest((${}::text)::{element}[]) AS v{place}", place + 1)
    });
    format!("(SELECT {}) AS d", arrays.collect::<Vec<_>>().join(", "))
}

/// COPY takes the rows of an insert as lines of text: the server's own way for many rows. It means the same as the
/// insert: no rule fires, identity columns take what they are given, lengths and scales are checked.
pub(crate) fn copy(table: &TargetTable, columns: &[usize]) -> String {
    format!("COPY {} ({}) FROM STDIN", quote::table(&table.name), table.list(columns))
}

fn value(table: &TargetTable, index: usize, place: usize) -> String {
    let column = table.column(index);
    if column.in_arrays { format!("d.v{place}") } else { format!("d.v{place}::{}", column.base_type) }
}

fn values(table: &TargetTable, columns: &[usize], first: usize) -> String {
    columns.iter().enumerate().map(|(place, index)| value(table, *index, first + place)).collect::<Vec<_>>().join(", ")
}

pub(crate) fn same_key(table: &TargetTable) -> String {
    let equal = table.key.iter().enumerate().map(|(place, index)| {
        let column = table.column(*index);
        let operator = column.equality.as_deref().unwrap_or("pg_catalog.=");
        format!("t.{} OPERATOR({operator}) {}", quote::identifier(&column.name), value(table, *index, place))
    });
    equal.collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, base_type: &str, in_arrays: bool) -> TargetColumn {
        TargetColumn { name: name.into(), base_type: base_type.into(), in_arrays, equality: Some("pg_catalog.=".into()) }
    }

    fn table() -> TargetTable {
        let columns = vec![column("id", "integer", true), column("Tags", "text[]", false)];
        TargetTable {
            name: TableName::new("public", "t"),
            only: true,
            referenced: false,
            columns,
            key: vec![0],
            key_is_exact: true,
            takes_copy: true,
            checks_late: false,
        }
    }

    #[test]
    fn an_array_column_travels_as_text() {
        assert_eq!(
            build(&table(), WriteKind::Insert, &[0, 1]),
            r#"INSERT INTO "public"."t" ("id", "Tags") OVERRIDING SYSTEM VALUE SELECT d.v0, d.v1::text[] FROM (SELECT unnest(($1::text)::integer[]) AS v0, unnest(($2::text)::text[]) AS v1) AS d"#
        );
    }

    #[test]
    fn an_update_finds_by_key_and_may_move_it() {
        assert_eq!(
            build(&table(), WriteKind::Update, &[0]),
            r#"UPDATE ONLY "public"."t" AS t SET "id" = d.v1 FROM (SELECT unnest(($1::text)::integer[]) AS v0, unnest(($2::text)::integer[]) AS v1) AS d WHERE t."id" OPERATOR(pg_catalog.=) d.v0"#
        );
    }

    #[test]
    fn an_upsert_of_nothing_but_a_key_touches_its_row() {
        assert!(build(&table(), WriteKind::Upsert, &[0]).ends_with(r#"ON CONFLICT ("id") DO UPDATE SET "id" = EXCLUDED."id""#));
    }

    #[test]
    fn an_upsert_overwrites_a_key_whose_bytes_may_differ() {
        let upsert = |table: &TargetTable| build(table, WriteKind::Upsert, &[0, 1]);
        assert!(upsert(&table()).ends_with(r#"SET "Tags" = EXCLUDED."Tags""#));
        let citext = TargetTable { key_is_exact: false, ..table() };
        assert!(upsert(&citext).ends_with(r#"SET "id" = EXCLUDED."id", "Tags" = EXCLUDED."Tags""#));
    }
}
