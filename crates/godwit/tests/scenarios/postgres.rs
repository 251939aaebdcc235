//! A database on a private PostgreSQL server.

use std::sync::Arc;
use std::time::Duration;

use godwit_testkit::dialect::Dialect;
use godwit_testkit::servers::{Postgres, shared};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::store::{Killable, Row, Session, Store, Tier};

/// A user waits no longer; a server that is being killed answers never.
const USER_PATIENCE: Duration = Duration::from_secs(30);

pub enum Server {
    Shared(&'static Postgres),
    Own(Arc<Postgres>),
}

impl Server {
    fn get(&self) -> &Postgres {
        match self {
            Server::Shared(server) => server,
            Server::Own(server) => server,
        }
    }
}

pub struct PostgresDatabase {
    server: Server,
    name: String,
    tier: Tier,
}

impl PostgresDatabase {
    /// A new database on a server that other tests use too.
    pub fn on_shared(major: u16, name: &str, tier: Tier) -> Option<Self> {
        Some(PostgresDatabase::on(Server::Shared(shared(major)?), name, tier))
    }

    pub fn on(server: Server, name: &str, tier: Tier) -> Self {
        let url = server.get().create_database(name);
        if tier != Tier::Full {
            // nothing that everyone is given by default hides a right that a statement must give
            let roles = format!(
                "CREATE ROLE {name}_app LOGIN BYPASSRLS; CREATE ROLE {name}_mover LOGIN; ALTER DATABASE {name} OWNER TO {name}_app;
                 REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {name}_mover;
                 REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO {name}_app;
                 GRANT pg_read_all_data, pg_write_all_data TO {name}_app"
            );
            execute(&url, &roles).unwrap();
        }
        PostgresDatabase { server, name: name.to_owned(), tier }
    }

    fn url_of(&self, role: &str) -> String {
        let url = self.server.get().url(&self.name);
        match self.tier {
            Tier::Full => url,
            Tier::Managed | Tier::ReadOnly => url.replace("//postgres@", &format!("//{}_{role}@", self.name)),
        }
    }

    fn session(&self, url: &str) -> Result<Box<dyn Session>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(|error| error.to_string())?;
            // ends with the runtime, which the session owns
            tokio::spawn(connection);
            Ok::<_, String>(client)
        })?;
        Ok(Box::new(PostgresSession { runtime, client }))
    }

    fn asked_as_superuser(&self, sql: &str) -> Vec<Row> {
        let session = self.session(&self.server.get().url(&self.name));
        session.and_then(|mut session| session.rows(sql)).unwrap_or_else(|problem| panic!("{sql}: {problem}"))
    }
}

impl Store for PostgresDatabase {
    fn url(&self) -> String {
        self.url_of("mover")
    }

    fn source_options(&self) -> &'static str {
        if self.tier == Tier::ReadOnly { "writes: never" } else { "writes: marker" }
    }

    fn grant(&self, statements: &[String]) {
        for statement in statements {
            execute(&self.server.get().url(&self.name), statement).unwrap_or_else(|problem| panic!("{statement}: {problem}"));
        }
    }

    fn must_be_granted(&self) -> bool {
        self.tier != Tier::Full
    }

    fn dialect(&self) -> Dialect {
        Dialect::postgres("public")
    }

    fn schema(&self) -> &'static str {
        "public"
    }

    fn connect(&self) -> Result<Box<dyn Session>, String> {
        self.session(&self.url_of("app"))
    }

    fn traces(&self, task: &str) -> Vec<String> {
        // one that an administrator made stays
        let ours = self.tier != Tier::ReadOnly;
        let sql = format!(
            "SELECT 'relation ' || relname FROM pg_class WHERE relname LIKE 'godwit%'
             UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'godwit%'
             UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE 'godwit%'
             UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE 'godwit%' AND {ours}
             UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger WHERE evtname LIKE 'godwit%'
             UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'godwit%'
             UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
             UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin WHERE roname LIKE 'godwit_{task}%'"
        );
        self.asked_as_superuser(&sql).into_iter().flatten().flatten().collect()
    }

    fn forget_changes(&self) {
        // the server may need a moment to see that its client is gone
        self.asked_as_superuser(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE database = current_database() AND active",
        );
        self.asked_as_superuser("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()");
    }

    fn server(&self) -> Option<&Postgres> {
        Some(self.server.get())
    }

    fn killable(&self) -> Option<&dyn Killable> {
        Some(self.server.get())
    }
}

impl Killable for Postgres {
    fn kill9(&self) {
        Postgres::kill9(self);
    }

    fn shut_down(&self) {
        self.stop_at_once();
    }

    fn start_again(&self) {
        self.restart();
    }
}

struct PostgresSession {
    runtime: Runtime,
    client: Client,
}

impl PostgresSession {
    fn query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, String> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(USER_PATIENCE, self.client.simple_query(sql)).await });
        answer.map_err(|_| "no answer".to_owned())?.map_err(|error| match error.as_db_error() {
            Some(refused) => format!("{} ({})", refused.message(), refused.code().code()),
            None => error.to_string(),
        })
    }
}

impl Session for PostgresSession {
    fn execute(&mut self, statements: &[String]) -> Result<Vec<u64>, String> {
        // each on its own: a server makes one transaction of statements that come together
        let alone = !statements.first().is_some_and(|first| first.starts_with("BEGIN"));
        let texts = if alone { statements.to_vec() } else { vec![statements.join(";\n")] };
        let mut touched = Vec::new();
        for text in texts {
            let messages = self.query(&text).inspect_err(|_| {
                let _ = self.query("ROLLBACK");
            });
            touched.extend(messages?.iter().filter_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                _ => None,
            }));
        }
        Ok(touched)
    }

    fn rows(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        let rows = self.query(sql)?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// One statement on a server of the test's own.
pub fn execute(url: &str, sql: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        client.batch_execute(sql).await.map_err(|error| error.to_string())
    })
}
