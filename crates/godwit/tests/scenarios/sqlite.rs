//! A SQLite file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_testkit::dialect::Dialect;
use godwit_testkit::servers::Postgres;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::store::{Killable, Row, Session, Store};

pub struct SqliteFile(PathBuf);

impl SqliteFile {
    /// A new file whose users have write-ahead logging on.
    pub fn create(path: &Path) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        SqliteFile(path.to_owned())
    }

    /// A file that Godwit makes.
    pub fn absent(path: &Path) -> Self {
        SqliteFile(path.to_owned())
    }
}

impl Store for SqliteFile {
    fn url(&self) -> String {
        format!("sqlite://{}", self.0.display())
    }

    fn dialect(&self) -> Dialect {
        Dialect::sqlite()
    }

    fn schema(&self) -> &'static str {
        "main"
    }

    fn connect(&self) -> Result<Box<dyn Session>, String> {
        let connection = Connection::open(&self.0).map_err(|error| error.to_string())?;
        connection.busy_timeout(Duration::from_secs(20)).map_err(|error| error.to_string())?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(|error| error.to_string())?;
        Ok(Box::new(SqliteSession(connection)))
    }

    fn traces(&self, _task: &str) -> Vec<String> {
        let rows = (self as &dyn Store).rows("SELECT name FROM sqlite_schema WHERE name LIKE 'godwit%'");
        rows.into_iter().flatten().flatten().collect()
    }

    fn forget_changes(&self) {
        let store = self as &dyn Store;
        for row in store.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'godwit%'") {
            store.run(&[&format!("DROP TRIGGER \"{}\"", row[0].as_deref().unwrap().replace('"', "\"\""))]);
        }
    }

    fn server(&self) -> Option<&Postgres> {
        None
    }

    fn killable(&self) -> Option<&dyn Killable> {
        None
    }
}

struct SqliteSession(Connection);

impl Session for SqliteSession {
    fn execute(&mut self, statements: &[String]) -> Result<Vec<u64>, String> {
        let run = |sql: &String| self.0.execute(sql, []).map(|rows| rows as u64).map_err(|error| format!("{error} in {sql}"));
        let done = statements.iter().map(run).collect();
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
        done
    }

    fn rows(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.0.prepare(sql)?;
            let width = statement.column_count();
            let rows = statement.query_map([], |row| (0..width).map(|index| row.get_ref(index).map(text)).collect())?;
            rows.collect()
        };
        read().map_err(|error| error.to_string())
    }
}

fn text(value: ValueRef<'_>) -> Option<String> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => format!("x'{bytes:02x?}'"),
    })
}
