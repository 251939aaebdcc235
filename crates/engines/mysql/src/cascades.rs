//! Foreign keys by which a server changes rows of their own table by itself (`ON DELETE CASCADE`, `SET NULL` and the like).
//!
//! A MariaDB server logs nothing of what they do, in any format: the log has the referred row, and no row of the table. So a
//! task that follows changes cannot have such a table.

use godwit_model::{Error, Finding, Result, TableName, codes};
use mysql_async::Conn;

use crate::catalog::{by_database, of_tables, rows, text};
use crate::created::{self, ForeignKey};
use crate::{quote, tokens};

const REMEDY: &str = "leave the table out, or make the key one without actions and let applications change its rows, \
    or only copy it (phases: [schema, load])";

/// Every such key of those of these tables that are there.
async fn of(conn: &mut Conn, names: &[TableName]) -> Result<Vec<(TableName, ForeignKey)>> {
    let mut there = Vec::new();
    for (database, wanted) in by_database(names) {
        let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'";
        for row in rows(conn, format!("{sql} AND {}", of_tables(database, &wanted))).await? {
            there.push(TableName::new(database, text(&row, 0)?));
        }
    }
    there.retain(|name| names.contains(name));
    let definitions = created::read(conn, &there.iter().collect::<Vec<_>>()).await?;
    let of_table = |(name, created): (TableName, created::Created)| {
        let acting = created.foreign_keys.into_iter().filter(acts);
        acting.map(|key| (name.clone(), key)).collect::<Vec<_>>()
    };
    let mut found: Vec<(TableName, ForeignKey)> = definitions.into_iter().flat_map(of_table).collect();
    found.sort_by(|(table, key), (other, other_key)| (table, &key.name).cmp(&(other, &other_key.name)));
    Ok(found)
}

/// NO ACTION and RESTRICT change nothing.
fn acts(key: &ForeignKey) -> bool {
    key.actions.iter().any(|piece| piece.is_word("CASCADE") || piece.is_word("SET"))
}

fn words(table: &TableName, key: &ForeignKey) -> String {
    format!("`{}` of table {table} ({})", key.name, tokens::written(&key.actions))
}

/// For a check: all at once.
pub(crate) async fn finding(conn: &mut Conn, names: &[TableName]) -> Result<Option<Finding>> {
    let found = of(conn, names).await?;
    let keys = quote::list(found.iter().map(|(table, key)| words(table, key)));
    let what = format!("the server changes rows by foreign keys and does not log it: {keys}");
    Ok((!found.is_empty()).then(|| Finding::blocker("cascades", &codes::TASK_UNSUPPORTED, what, REMEDY)))
}

/// For a stream that is about to begin.
pub(crate) async fn must_be_none(conn: &mut Conn, names: &[TableName]) -> Result<()> {
    let Some((table, key)) = of(conn, names).await?.into_iter().next() else { return Ok(()) };
    let what = format!("the server changes rows by the foreign key {}, and does not log it", words(&table, &key));
    Err(Error::new(&codes::TASK_UNSUPPORTED, what).at(format!("table {table}")).remedy(REMEDY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{database, lab, run};

    /// What the server does by each of them is in no event of its log.
    #[tokio::test]
    async fn tables_that_a_foreign_key_changes_are_named() {
        let Some(endpoint) = lab() else { return };
        let mut conn = database(&endpoint, "lab_cascades").await;
        run(&mut conn, "CREATE TABLE parent (id int PRIMARY KEY, code int, UNIQUE (code))").await;
        for (table, actions) in [
            ("deleted", "ON DELETE CASCADE"),
            ("emptied", "ON DELETE SET NULL"),
            ("moved", "ON UPDATE CASCADE ON DELETE RESTRICT"),
            ("kept", "ON DELETE RESTRICT ON UPDATE NO ACTION"),
            ("plain", ""),
        ] {
            let sql = format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, p int, CONSTRAINT of_{table} FOREIGN KEY (p) REFERENCES parent (code) {actions})"
            );
            run(&mut conn, &sql).await;
        }
        let name = |name: &str| TableName::new("lab_cascades", name);
        let all: Vec<TableName> = ["parent", "deleted", "emptied", "moved", "kept", "plain", "not_there"].map(name).into();
        let found = finding(&mut conn, &all).await.unwrap().unwrap();
        for table in ["deleted", "emptied", "moved"] {
            assert!(found.what.contains(&format!("`of_{table}` of table lab_cascades.{table}")), "{}", found.what);
        }
        assert_eq!(found.what.matches("of table").count(), 3, "{}", found.what);
        let refused = must_be_none(&mut conn, &all).await.unwrap_err();
        assert!(refused.is(&codes::TASK_UNSUPPORTED) && refused.place() == Some("table lab_cascades.deleted"), "{refused}");
        must_be_none(&mut conn, &[name("parent"), name("kept"), name("plain")]).await.unwrap();
    }
}
