//! PostgreSQL keeps every promise of both contracts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use godwit_model::{Source, TableName, Target, Task, Value, Writes};
use godwit_testkit::contract::{Bench, Harness, Reshape};
use godwit_testkit::dialect::Dialect;
use godwit_testkit::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction};
use godwit_testkit::servers::{self, Postgres};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::pair;

/// Databases of one shared server.
struct PostgresHarness {
    server: &'static Postgres,
    writes: Writes,
}

impl PostgresHarness {
    /// None where the version is not there and may be skipped.
    fn new(major: u16) -> Option<Self> {
        servers::shared(major).map(|server| PostgresHarness { server, writes: Writes::Marker })
    }

    /// As `new`; nothing may be written to a source.
    fn unwritten(major: u16) -> Option<Self> {
        Self::new(major).map(|harness| PostgresHarness { writes: Writes::Never, ..harness })
    }
}

/// A database, and a task of its own name: slots belong to the whole server.
struct PostgresBench {
    server: &'static Postgres,
    name: String,
    url: String,
    tables: Vec<NeutralTable>,
    dialect: Dialect,
    writes: Writes,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

#[async_trait]
impl Harness for PostgresHarness {
    async fn fresh(&self, tables: &[NeutralTable]) -> Box<dyn Bench> {
        let name = format!("bench_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = self.server.create_database(&name);
        let bench = PostgresBench {
            server: self.server,
            name,
            url,
            tables: tables.to_vec(),
            dialect: Dialect::postgres("public"),
            writes: self.writes,
        };
        let user = user(&bench.url).await;
        for statement in tables.iter().flat_map(|table| bench.dialect.create(table)) {
            user.batch_execute(&statement).await.unwrap();
        }
        if self.writes == Writes::Never && !tables.is_empty() {
            user.batch_execute(&given(self.server, &bench.name, tables)).await.unwrap();
        }
        Box::new(bench)
    }
}

/// What an administrator makes for a task that may make nothing itself.
fn given(server: &Postgres, name: &str, tables: &[NeutralTable]) -> String {
    let keyless = tables.iter().filter(|table| table.key.is_empty());
    let identities: String = keyless.map(|table| format!("ALTER TABLE public.{} REPLICA IDENTITY FULL; ", table.name)).collect();
    let list: Vec<String> = tables.iter().map(|table| format!("public.{}", table.name)).collect();
    let options = if server.major() >= 18 { " WITH (publish_generated_columns = stored)" } else { "" };
    format!("{identities}CREATE PUBLICATION godwit_{name} FOR TABLE {}{options}", list.join(", "))
}

async fn user(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // Ends when the client is dropped.
    tokio::spawn(connection);
    client
}

#[async_trait]
impl Bench for PostgresBench {
    fn task(&self) -> Task {
        let mut task = godwit_testkit::task::task(&self.name);
        (task.source, task.target) = (pair::endpoint(self.server, &self.name), pair::endpoint(self.server, &self.name));
        task.schema.create = godwit_model::Create::Tables;
        task.writes = self.writes;
        task
    }

    fn source(&self) -> Arc<dyn Source> {
        godwit_postgres::source(&self.task()).unwrap()
    }

    fn target(&self) -> Arc<dyn Target> {
        godwit_postgres::target(&self.task()).unwrap()
    }

    fn table(&self, name: &str) -> TableName {
        TableName::new("public", name)
    }

    async fn run(&self, transaction: &NeutralTransaction) {
        let user = user(&self.url).await;
        for statement in self.dialect.transaction(&self.tables, transaction) {
            let touched = user.execute(&statement, &[]).await.unwrap_or_else(|problem| panic!("{statement}: {problem:?}"));
            let changes_one_row = statement.starts_with("UPDATE") || statement.starts_with("DELETE");
            assert!(!changes_one_row || touched == 1, "{statement} finds its row");
        }
    }

    async fn rows(&self, table: &NeutralTable) -> Vec<NeutralRow> {
        let user = user(&self.url).await;
        let mut rows = Vec::new();
        for message in user.simple_query(&self.dialect.select(table)).await.unwrap() {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let columns = table.columns.iter().enumerate();
            rows.push(columns.map(|(index, column)| row.get(index).map_or(Neutral::Null, |text| neutral(column.kind, text))).collect());
        }
        rows.sort();
        rows
    }

    async fn reshape(&self, table: &str, change: &Reshape) -> bool {
        let word = |kind: Kind| if kind == Kind::Int { "bigint" } else { "text" };
        let change = match change {
            Reshape::Add(column, kind, fill) => {
                let fill = match fill {
                    Neutral::Null => "NULL".to_owned(),
                    Neutral::Int(number) => number.to_string(),
                    Neutral::Text(text) => format!("'{text}'"),
                };
                format!("ADD COLUMN {column} {} DEFAULT {fill}", word(*kind))
            }
            Reshape::Drop(column) => format!("DROP COLUMN {column}"),
            Reshape::Rename(old, new) => format!("RENAME COLUMN {old} TO {new}"),
            Reshape::Retype(column, kind) => {
                format!("ALTER COLUMN {column} TYPE {} USING length({column}::text)::{}", word(*kind), word(*kind))
            }
        };
        user(&self.url).await.batch_execute(&format!("ALTER TABLE public.{table} {change}")).await.unwrap();
        true
    }

    async fn select(&self, tables: &[TableName]) {
        if self.writes == Writes::Never {
            let list: Vec<String> = tables.iter().map(|table| format!("public.{}", table.name)).collect();
            let sql = format!("ALTER PUBLICATION godwit_{} SET TABLE {}", self.name, list.join(", "));
            user(&self.url).await.batch_execute(&sql).await.unwrap();
        }
    }

    fn value(&self, _kind: Kind, value: &Neutral) -> Value {
        match value {
            Neutral::Null => Value::Null,
            Neutral::Int(number) => Value::Native(number.to_string().into()),
            Neutral::Text(text) => Value::Native(text.clone().into()),
        }
    }

    async fn sequence(&self) -> Option<TableName> {
        user(&self.url).await.batch_execute("CREATE SEQUENCE public.numbers").await.unwrap();
        Some(TableName::new("public", "numbers"))
    }

    async fn sequence_value(&self, _name: &TableName) -> i64 {
        user(&self.url).await.query_one("SELECT last_value FROM public.numbers", &[]).await.unwrap().get(0)
    }
}

fn neutral(kind: Kind, text: &str) -> Neutral {
    if kind == Kind::Int { Neutral::Int(text.parse().unwrap()) } else { Neutral::text(text) }
}

/// A server has room for few slots, and one that is left behind keeps its log for ever.
impl Drop for PostgresBench {
    fn drop(&mut self) {
        let (url, name) = (self.server.url("postgres"), self.name.clone());
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clean(&url, &name));
        });
        let cleaned = cleaner.join();
        assert!(std::thread::panicking() || cleaned.is_ok(), "a bench leaves nothing behind");
    }
}

const END_READERS: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = $1";
const DROP_SLOTS: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND database = $1";
const COUNT_SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE database = $1";

async fn clean(url: &str, database: &str) {
    let user = user(url).await;
    while user.query_one(COUNT_SLOTS, &[&database]).await.unwrap().get::<_, i64>(0) > 0 {
        user.query(END_READERS, &[&database]).await.unwrap();
        // A reader that was told to end is still there for a moment, and nothing tells when it is gone.
        let _ = user.query(DROP_SLOTS, &[&database]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    user.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
}

macro_rules! contracts {
    ($version:ident, $major:literal) => {
        mod $version {
            mod source {
                godwit_testkit::source_contract!(match super::super::PostgresHarness::new($major) {
                    Some(harness) => harness,
                    None => return,
                });
            }

            mod target {
                godwit_testkit::target_contract!(match super::super::PostgresHarness::new($major) {
                    Some(harness) => harness,
                    None => return,
                });
            }
        }
    };
}

macro_rules! unwritten_contracts {
    ($version:ident, $major:literal) => {
        mod $version {
            godwit_testkit::source_contract!(match super::PostgresHarness::unwritten($major) {
                Some(harness) => harness,
                None => return,
            });
        }
    };
}

unwritten_contracts!(unwritten_15, 15);
unwritten_contracts!(unwritten_18, 18);
contracts!(postgres_15, 15);
contracts!(postgres_18, 18);
