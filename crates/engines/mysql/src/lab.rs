//! The server of the tests: one private MariaDB for all of them.

use godwit_model::{Column, EndpointConfig, Key, Table, TableMapping, TableName, Tls};
use godwit_testkit::servers::{self, MySqlServer, MySqlVersion};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::connect::{Endpoint, Purpose};

/// None where it is not there and may be skipped.
pub(crate) fn config(database: &str) -> Option<EndpointConfig> {
    Some(config_of(servers::shared_mysql(MySqlVersion::MariaDb10_11)?, database))
}

pub(crate) fn config_of(server: &MySqlServer, database: &str) -> EndpointConfig {
    EndpointConfig {
        engine: "mysql".into(),
        host: "127.0.0.1".into(),
        port: Some(server.port()),
        user: Some("root".into()),
        password: None,
        database: database.into(),
        tls: Tls::default(),
        options: Vec::new(),
    }
}

pub(crate) fn lab() -> Option<Endpoint> {
    Some(Endpoint::new(&config("")?).unwrap())
}

/// A database of a test's own, empty.
pub(crate) async fn database(endpoint: &Endpoint, name: &str) -> Conn {
    let mut conn = endpoint.connect(Purpose::Read).await.unwrap();
    run(&mut conn, &format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}; USE {name}")).await;
    conn
}

pub(crate) async fn run(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql).await.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
}

pub(crate) async fn texts(conn: &mut Conn, sql: &str) -> Vec<String> {
    let rows: Vec<Row> = conn.query(sql).await.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
    rows.into_iter().map(|row| format!("{:?}", row.unwrap())).collect()
}

/// A table as the catalog has it; the key is the primary one.
pub(crate) async fn table(conn: &mut Conn, database: &str, name: &str) -> Table {
    let sql = format!(
        "SELECT COLUMN_NAME, CONCAT(COLUMN_TYPE, IFNULL(CONCAT(' CHARACTER SET ', CHARACTER_SET_NAME, ' COLLATE ', COLLATION_NAME), '')), \
         IFNULL((SELECT SEQ_IN_INDEX FROM information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = c.TABLE_SCHEMA \
           AND s.TABLE_NAME = c.TABLE_NAME AND s.INDEX_NAME = 'PRIMARY' AND s.COLUMN_NAME = c.COLUMN_NAME), 0) \
         FROM information_schema.COLUMNS c WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{name}' ORDER BY ORDINAL_POSITION"
    );
    let columns: Vec<(String, String, usize)> = conn.query(sql).await.unwrap();
    let mut key: Vec<(usize, usize)> = columns.iter().enumerate().filter(|(_, c)| c.2 > 0).map(|(at, c)| (c.2, at)).collect();
    key.sort_unstable();
    let column = |(name, type_name, _): (String, String, usize)| Column { name, type_name, nullable: true, generated: false };
    Table {
        name: TableName::new(database, name),
        columns: columns.into_iter().map(column).collect(),
        key: (!key.is_empty()).then(|| Key { columns: key.into_iter().map(|(_, at)| at).collect() }),
        uniques: Vec::new(),
        estimated_rows: 0,
        estimated_bytes: 0,
        key_is_exact: true,
    }
}

pub(crate) fn mapping(table: &Table) -> TableMapping {
    TableMapping::resolve(&[], table).unwrap()
}
