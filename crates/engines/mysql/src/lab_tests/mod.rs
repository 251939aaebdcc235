//! The stream and its places against a real MariaDB.

mod damage;
mod history;
mod model;
mod opening;
mod places;
mod second_reader;
mod shapes;
mod statements;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use godwit_model::{Column, EndpointConfig, Key, Marker, Position, Table, TableName, Task};
use godwit_testkit::servers::{MySqlOptions, MySqlServer, MySqlVersion};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::{Mutex, MutexGuard};

use crate::changes::Changes;
use crate::connect::{Endpoint, Purpose};
use crate::{establish, marker};

/// Settings of the server and its log are everybody's.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What is waited for comes, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    endpoint: Endpoint,
    task: Task,
    database: String,
    _alone: MutexGuard<'static, ()>,
}

/// A server of their own: settings and log are changed and removed.
static SERVER: LazyLock<Option<MySqlServer>> = LazyLock::new(|| MySqlServer::start(MySqlVersion::MariaDb10_11, &MySqlOptions::default()));

fn endpoint(port: u16) -> Endpoint {
    let config = EndpointConfig {
        engine: "mysql".into(),
        host: "127.0.0.1".into(),
        port: Some(port),
        user: Some("root".into()),
        password: None,
        database: String::new(),
        tls: godwit_model::Tls::default(),
        options: Vec::new(),
    };
    Endpoint::new(&config).unwrap()
}

impl Lab {
    /// With a database of its own, of a name that the log never had.
    async fn open(name: &str) -> Option<Lab> {
        let server = SERVER.as_ref()?;
        Some(Lab::on(server, name).await)
    }

    async fn on(server: &MySqlServer, name: &str) -> Lab {
        Lab::at(endpoint(server.port()), name).await
    }

    async fn at(endpoint: Endpoint, name: &str) -> Lab {
        let alone = ALONE.lock().await;
        let database = format!("b_{name}_{:08x}", fastrand::u32(..));
        let lab = Lab { endpoint, task: godwit_testkit::task::task(name), database, _alone: alone };
        lab.run(&[
            "SET GLOBAL log_bin_compress = 0, GLOBAL binlog_row_metadata = NO_LOG, GLOBAL binlog_row_image = FULL",
            &format!("CREATE DATABASE {} CHARACTER SET utf8mb4", lab.database),
        ])
        .await;
        lab
    }

    /// A session in the lab's database.
    async fn conn(&self) -> Conn {
        let mut conn = self.endpoint.connect(Purpose::Read).await.unwrap();
        let known: Option<u8> =
            conn.query_first(format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{}'", self.database)).await.unwrap();
        if known.is_some() {
            conn.query_drop(format!("USE {}", self.database)).await.unwrap();
        }
        conn
    }

    async fn run(&self, statements: &[&str]) {
        let mut conn = self.conn().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|problem| panic!("{statement}: {problem}"));
        }
    }

    /// P0 of now.
    async fn here(&self) -> Position {
        establish::establish(&self.endpoint, &self.task, 1, None).await.unwrap().position
    }

    async fn mark(&self, name: &str) -> Marker {
        let marker = Marker(name.to_owned());
        marker::mark(&mut self.conn().await, &self.task.name, &marker).await.unwrap();
        marker
    }

    async fn stream(&self, from: &Position, tables: &[Arc<Table>]) -> Changes {
        Changes::open(&self.endpoint, &self.task.name, from, tables).await.unwrap()
    }

    /// As the catalog describes it.
    async fn table(&self, name: &str) -> Arc<Table> {
        let mut conn = self.conn().await;
        let place = format!("TABLE_SCHEMA = '{}' AND TABLE_NAME = '{name}'", self.database);
        let sql = format!(
            "SELECT COLUMN_NAME, CONCAT(COLUMN_TYPE, COALESCE(CONCAT(' CHARACTER SET ', CHARACTER_SET_NAME, ' COLLATE ', COLLATION_NAME), '')), \
             COALESCE(GENERATION_EXPRESSION, '') <> '' FROM information_schema.COLUMNS WHERE {place} ORDER BY ORDINAL_POSITION"
        );
        let columns: Vec<(String, String, bool)> = conn.query(sql).await.unwrap();
        assert!(!columns.is_empty(), "{name}");
        let sql =
            format!("SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE {place} AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX");
        let key: Vec<String> = conn.query(sql).await.unwrap();
        let place_of = |key: &String| columns.iter().position(|(name, _, _)| name == key).unwrap();
        let key = (!key.is_empty()).then(|| Key { columns: key.iter().map(place_of).collect() });
        let column = |(name, type_name, generated): (String, String, bool)| Column { name, type_name, nullable: true, generated };
        Arc::new(Table {
            name: TableName::new(&self.database, name),
            columns: columns.into_iter().map(column).collect(),
            key,
            uniques: vec![],
            estimated_rows: 0,
            estimated_bytes: 0,
            key_is_exact: true,
        })
    }

    /// For who has seen its log to the end.
    async fn close(&self) {
        self.run(&[&format!("DROP DATABASE IF EXISTS {}", self.database)]).await;
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes soon")
}
