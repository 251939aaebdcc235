//! MariaDB keeps every promise of both contracts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use godwit_model::{EndpointConfig, Source, TableName, Target, Task, Tls};
use godwit_testkit::contract::{Bench, Harness};
use godwit_testkit::dialect::Dialect;
use godwit_testkit::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction};
use godwit_testkit::servers::{self, MySqlServer, MySqlVersion};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};

/// Databases of one shared server.
struct MySqlHarness {
    server: &'static MySqlServer,
}

impl MySqlHarness {
    /// None where the version is not there and may be skipped.
    fn new(version: MySqlVersion) -> Option<Self> {
        servers::shared_mysql(version).map(|server| MySqlHarness { server })
    }
}

/// A database, and a task of its own name: Godwit's own tables are the whole server's.
struct MySqlBench {
    server: &'static MySqlServer,
    name: String,
    tables: Vec<NeutralTable>,
    dialect: Dialect,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

#[async_trait]
impl Harness for MySqlHarness {
    async fn fresh(&self, tables: &[NeutralTable]) -> Box<dyn Bench> {
        let name = format!("bench_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.server.create_database(&name);
        let collation = if self.server.version().is_mariadb() { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" };
        let bench = MySqlBench { server: self.server, dialect: Dialect::mysql(&name, collation), name, tables: tables.to_vec() };
        let mut user = bench.user().await;
        for statement in tables.iter().flat_map(|table| bench.dialect.create(table)) {
            user.query_drop(&statement).await.unwrap_or_else(|problem| panic!("{statement}: {problem}"));
        }
        Box::new(bench)
    }
}

impl MySqlBench {
    async fn user(&self) -> Conn {
        let opts = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(self.server.port()).user(Some("root"));
        let mut conn = Conn::new(opts.client_found_rows(true).prefer_socket(false)).await.unwrap();
        conn.query_drop("SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES'").await.unwrap();
        conn
    }

    fn endpoint(&self) -> EndpointConfig {
        EndpointConfig {
            engine: "mysql".into(),
            host: "127.0.0.1".into(),
            port: Some(self.server.port()),
            user: Some("root".into()),
            password: None,
            database: self.name.clone(),
            tls: Tls::default(),
            options: Vec::new(),
        }
    }
}

#[async_trait]
impl Bench for MySqlBench {
    fn task(&self) -> Task {
        let mut task = godwit_testkit::task::task(&self.name);
        (task.source, task.target) = (self.endpoint(), self.endpoint());
        task
    }

    fn source(&self) -> Arc<dyn Source> {
        godwit_mysql::source(&self.task()).unwrap()
    }

    fn target(&self) -> Arc<dyn Target> {
        godwit_mysql::target(&self.task()).unwrap()
    }

    fn table(&self, name: &str) -> TableName {
        TableName::new(&self.name, name)
    }

    async fn run(&self, transaction: &NeutralTransaction) {
        let mut user = self.user().await;
        for statement in self.dialect.transaction(&self.tables, transaction) {
            user.query_drop(&statement).await.unwrap_or_else(|problem| panic!("{statement}: {problem}"));
            let changes_one_row = statement.starts_with("UPDATE") || statement.starts_with("DELETE");
            assert!(!changes_one_row || user.affected_rows() == 1, "{statement} finds its row");
        }
    }

    async fn rows(&self, table: &NeutralTable) -> Vec<NeutralRow> {
        let mut user = self.user().await;
        let found: Vec<Row> = user.query(self.dialect.select(table)).await.unwrap();
        let neutral = |row: Row| -> NeutralRow {
            let texts = row.unwrap();
            let value = |(text, kind): (mysql_async::Value, Kind)| match (text, kind) {
                (mysql_async::Value::NULL, _) => Neutral::Null,
                (mysql_async::Value::Bytes(bytes), Kind::Int) => Neutral::Int(String::from_utf8(bytes).unwrap().parse().unwrap()),
                (mysql_async::Value::Bytes(bytes), _) => Neutral::text(String::from_utf8(bytes).unwrap()),
                (other, _) => panic!("{other:?} is no text"),
            };
            texts.into_iter().zip(table.columns.iter().map(|column| column.kind)).map(value).collect()
        };
        let mut rows: Vec<NeutralRow> = found.into_iter().map(neutral).collect();
        rows.sort();
        rows
    }
}

macro_rules! contracts {
    ($name:ident, $version:expr) => {
        mod $name {
            mod source {
                godwit_testkit::source_contract!(match super::super::MySqlHarness::new($version) {
                    Some(harness) => harness,
                    None => return,
                });
            }

            mod target {
                godwit_testkit::target_contract!(match super::super::MySqlHarness::new($version) {
                    Some(harness) => harness,
                    None => return,
                });
            }
        }
    };
}

contracts!(mariadb_10_11, godwit_testkit::servers::MySqlVersion::MariaDb10_11);
contracts!(mariadb_11_8, godwit_testkit::servers::MySqlVersion::MariaDb11_8);
