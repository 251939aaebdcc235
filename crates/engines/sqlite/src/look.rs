//! How a captured table looked when capture began, as it is stored in the user's file.
//!
//! It is only ever compared: what is stored with the same table's look today, made in the version that was stored. The
//! form is this module's own, so that a rebuilt Godwit does not take its own new words for a changed table.

use godwit_model::{Error, Result, codes};

use crate::capture::Names;
use crate::schema::{OWN, RowName, Shape, ShapeColumn, TriggerText, UniqueIndex};

/// Stands before the columns' text.
const VERSION: &str = "1";

/// What must not change while changes are captured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) columns: String,
    pub(crate) uniques: String,
    pub(crate) own_triggers: String,
    pub(crate) user_triggers: String,
}

impl Look {
    pub(crate) fn of(shape: &Shape, names: &Names) -> Self {
        let texts = |wanted: &dyn Fn(&TriggerText) -> bool| {
            shape.triggers.iter().filter(|trigger| wanted(trigger)).map(|trigger| format!("{}: {}\n", trigger.name, trigger.sql)).collect()
        };
        let columns: String = shape.columns.iter().map(column).collect();
        Look {
            columns: format!("{VERSION}\n{columns}{}", row_name(&shape.row)),
            uniques: shape.uniques.iter().map(|index| unique(index, shape.text_of(index))).collect(),
            own_triggers: texts(&|trigger| names.is_capture(&trigger.name)),
            user_triggers: texts(&|trigger| !trigger.name.starts_with(OWN)),
        }
    }

    /// Whether this version can make the form that was stored.
    pub(crate) fn must_be_known(&self, table: &str) -> Result<()> {
        if self.columns.split_once('\n').is_some_and(|(version, _)| version == VERSION) {
            return Ok(());
        }
        Err(Error::new(&codes::STATE_VERSION, "what the source's file keeps of a captured table was written by another version of godwit")
            .at(format!("table main.{table}"))
            .remedy("go on with that version, or start anew with `run --resync`")
            .effect("nothing was changed"))
    }
}

/// Quoted, so that no two lists of texts read alike.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn column(column: &ShapeColumn) -> String {
    let ShapeColumn { name, type_name, not_null, default, primary, generated, collation } = column;
    let default = default.as_deref().map_or("none".to_owned(), text);
    let (not_null, generated) = (u8::from(*not_null), u8::from(*generated));
    format!("{} {} {not_null} {default} {primary} {generated} {}\n", text(name), text(type_name), text(collation))
}

fn row_name(row: &RowName) -> String {
    match row {
        RowName::Rowid(name) => format!("rowid {}", text(name)),
        RowName::Key(parts) => {
            let parts = parts.iter().map(|part| format!(" {} {}", part.column, text(&part.collation)));
            format!("key{}", parts.collect::<String>())
        }
        RowName::Hidden => "hidden".to_owned(),
    }
}

fn unique(index: &UniqueIndex, sql: Option<&str>) -> String {
    let parts = index.parts.iter().map(|part| {
        let column = part.column.map_or("expression".to_owned(), |column| column.to_string());
        format!(" {column} {}", text(&part.collation))
    });
    let sql = sql.map_or("none".to_owned(), text);
    let partial = u8::from(index.partial);
    format!("{} {} {partial}{} {sql}\n", text(&index.name), text(&index.origin), parts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use godwit_model::TaskName;
    use rusqlite::Connection;

    use super::*;
    use crate::catalog::Catalog;

    fn look(sql: &str) -> Look {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        let shape = Catalog::read(&connection).unwrap().shape(&connection, "t").unwrap();
        Look::of(&shape, &Names::new(&TaskName::parse("shop").unwrap()))
    }

    /// Files of users hold this text. A change of it needs a new version, and this one still made for what was stored.
    #[test]
    fn version_1_stays_readable() {
        let stored = look(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, \"it's\" TEXT NOT NULL DEFAULT 'a b' COLLATE NOCASE, g AS (id * 2), UNIQUE (\"it's\"));
             CREATE UNIQUE INDEX part ON t (abs(id)) WHERE id > 5;
             CREATE TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; END;",
        );
        let columns = [
            "1",
            "'id' 'INTEGER' 0 none 1 0 'BINARY'",
            "'it''s' 'TEXT' 1 '''a b''' 0 0 'NOCASE'",
            "'g' '' 0 none 0 1 'BINARY'",
            "rowid '\"id\"'",
        ];
        assert_eq!(stored.columns.lines().collect::<Vec<_>>(), columns);
        let uniques = [
            "'part' 'c' 1 expression 'BINARY' 'CREATE UNIQUE INDEX part ON t (abs(id)) WHERE id > 5'",
            "'sqlite_autoindex_t_1' 'u' 0 1 'NOCASE' none",
        ];
        assert_eq!(stored.uniques.lines().collect::<Vec<_>>(), uniques);
        assert_eq!(stored.user_triggers, "u: CREATE TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; END\n");
        assert_eq!(stored.own_triggers, "");
        stored.must_be_known("t").unwrap();
        let keyed = look("CREATE TABLE t (a, b, PRIMARY KEY (b, a)) WITHOUT ROWID");
        assert!(keyed.columns.ends_with("\nkey 1 'BINARY' 0 'BINARY'"), "{}", keyed.columns);
    }

    #[test]
    fn another_version_is_said() {
        let mut stored = look("CREATE TABLE t (id INTEGER PRIMARY KEY)");
        stored.columns.replace_range(..1, "2");
        assert!(stored.must_be_known("t").unwrap_err().is(&codes::STATE_VERSION));
        stored.columns = "[ShapeColumn]".to_owned();
        assert!(stored.must_be_known("t").unwrap_err().is(&codes::STATE_VERSION));
    }
}
