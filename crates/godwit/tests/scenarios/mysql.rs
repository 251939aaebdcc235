//! A database on a private MariaDB server.

use std::sync::Arc;

use godwit_testkit::dialect::Dialect;
use godwit_testkit::servers::{self, MySqlOptions, MySqlServer, MySqlSession, MySqlVersion, Postgres};

use crate::store::{Killable, Row, Session, Store, Tier};

enum Server {
    Shared(&'static MySqlServer),
    Own(Arc<MySqlServer>),
}

impl Server {
    fn get(&self) -> &MySqlServer {
        match self {
            Server::Shared(server) => server,
            Server::Own(server) => server,
        }
    }
}

pub struct MySqlDatabase {
    server: Server,
    /// The same on both sides, as it is the tables' schema, and the task's name.
    name: &'static str,
    tier: Tier,
}

impl MySqlDatabase {
    /// On a server that others use too. None: it is not there and may be skipped.
    pub fn on_shared(version: MySqlVersion, name: &str, tier: Tier) -> Option<Self> {
        Some(MySqlDatabase::on(Server::Shared(servers::shared_mysql(version)?), name, tier))
    }

    /// On one that may be stopped and killed.
    pub fn on_own(version: MySqlVersion, name: &str, tier: Tier) -> Option<Self> {
        let server = MySqlServer::start(version, &MySqlOptions::default().with_fsync())?;
        Some(MySqlDatabase::on(Server::Own(Arc::new(server)), name, tier))
    }

    fn on(server: Server, name: &str, tier: Tier) -> Self {
        server.get().create_database(name);
        let database = MySqlDatabase { server, name: String::leak(name.to_owned()), tier };
        if tier != Tier::Full {
            database.asked("", &format!("CREATE USER '{}'@'127.0.0.1'", database.mover()));
        }
        database
    }

    /// The account of the task, where that is not the administrator's.
    fn mover(&self) -> String {
        format!("{}_mover", self.name)
    }

    fn asked(&self, database: &str, sql: &str) -> Vec<Row> {
        self.server.get().query(database, sql)
    }
}

impl Store for MySqlDatabase {
    fn url(&self) -> String {
        let url = self.server.get().url(self.name);
        match self.tier {
            Tier::Full => url,
            Tier::Managed | Tier::ReadOnly => url.replace("//root@", &format!("//{}@", self.mover())),
        }
    }

    fn grant(&self, statements: &[String]) {
        statements.iter().for_each(|statement| drop(self.asked("", statement)));
    }

    fn must_be_granted(&self) -> bool {
        self.tier != Tier::Full
    }

    fn dialect(&self) -> Dialect {
        Dialect::mysql(self.name, "utf8mb4_nopad_bin")
    }

    fn schema(&self) -> &'static str {
        self.name
    }

    fn connect(&self) -> Result<Box<dyn Session>, String> {
        let mut session = self.server.get().session(self.name)?;
        session.run(
            "SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES', innodb_lock_wait_timeout = 20, max_recursive_iterations = 1000000",
        )?;
        Ok(Box::new(MySqlUser(session)))
    }

    fn traces(&self, task: &str) -> Vec<String> {
        let mut found = Vec::new();
        for table in ["lease", "ledger", "marker"] {
            let there = format!("SELECT 1 FROM information_schema.tables WHERE table_schema = 'godwit' AND table_name = '{table}'");
            if self.asked("", &there).is_empty() {
                continue;
            }
            // it may go between the two questions, with the last task
            let rows = self.server.get().attempt("", &format!("SELECT task FROM godwit.{table} WHERE task = '{task}'")).unwrap_or_default();
            found.extend(rows.iter().map(|_| format!("a row in godwit.{table}")));
        }
        found
    }

    fn forget_changes(&self) {
        // other tasks are at work on the same server
        self.asked("", &format!("DELETE FROM godwit.marker WHERE task = '{}'", self.name));
    }

    fn server(&self) -> Option<&Postgres> {
        None
    }

    fn killable(&self) -> Option<&dyn Killable> {
        match &self.server {
            Server::Shared(_) => None,
            Server::Own(server) => Some(&**server),
        }
    }
}

impl Killable for MySqlServer {
    fn kill9(&self) {
        self.kill();
    }

    fn shut_down(&self) {
        self.stop();
    }

    fn start_again(&self) {
        self.restart();
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
