//! A database on a private MariaDB server.

use godwit_testkit::dialect::Dialect;
use godwit_testkit::servers::{self, MySqlServer, MySqlSession, MySqlVersion, Postgres};

use crate::store::{Row, Session, Store};

pub struct MySqlDatabase {
    server: &'static MySqlServer,
    /// The same on both sides: it is the tables' schema.
    name: &'static str,
}

impl MySqlDatabase {
    /// On a server that others use too. None: it is not there and may be skipped.
    pub fn on_shared(version: MySqlVersion, name: &str) -> Option<Self> {
        let server = servers::shared_mysql(version)?;
        server.create_database(name);
        Some(MySqlDatabase { server, name: String::leak(name.to_owned()) })
    }
}

impl Store for MySqlDatabase {
    fn url(&self) -> String {
        self.server.url(self.name)
    }

    fn dialect(&self) -> Dialect {
        Dialect::mysql(self.name, "utf8mb4_nopad_bin")
    }

    fn schema(&self) -> &'static str {
        self.name
    }

    fn connect(&self) -> Result<Box<dyn Session>, String> {
        let mut session = self.server.session(self.name)?;
        session.run(
            "SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES', innodb_lock_wait_timeout = 20, max_recursive_iterations = 1000000",
        )?;
        Ok(Box::new(MySqlUser(session)))
    }

    fn traces(&self, task: &str) -> Vec<String> {
        let mut found = Vec::new();
        for table in ["lease", "ledger", "marker"] {
            let there = format!("SELECT 1 FROM information_schema.tables WHERE table_schema = 'godwit' AND table_name = '{table}'");
            if self.server.query("", &there).is_empty() {
                continue;
            }
            // it may go between the two questions, with the last task
            let rows = self.server.attempt("", &format!("SELECT task FROM godwit.{table} WHERE task = '{task}'")).unwrap_or_default();
            found.extend(rows.iter().map(|_| format!("a row in godwit.{table}")));
        }
        found
    }

    fn forget_changes(&self) {
        self.server.run("", "DELETE FROM godwit.marker WHERE task <> ''");
    }

    fn server(&self) -> Option<&Postgres> {
        None
    }
}

struct MySqlUser(MySqlSession);

impl Session for MySqlUser {
    fn execute(&mut self, statements: &[String]) -> Result<Vec<u64>, String> {
        let run = |sql: &String| self.0.run(sql).map(|answer| answer.touched).map_err(|error| format!("{error} in {sql}"));
        let done: Result<Vec<u64>, String> = statements.iter().map(run).collect();
        if done.is_err() {
            let _ = self.0.run("ROLLBACK");
        }
        done
    }

    fn rows(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        self.0.run(sql).map(|answer| answer.rows)
    }
}
