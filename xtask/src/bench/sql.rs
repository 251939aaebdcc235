//! A session, blocking.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use crate::Outcome;

/// Between two looks at a store that tells nobody when something has arrived; equal for all contestants.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A work that is not done by then will never be.
const PATIENCE: Duration = Duration::from_secs(1800);

pub struct Sql {
    runtime: Runtime,
    client: Client,
    connection: JoinHandle<()>,
}

impl Sql {
    pub fn connect(url: &str) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).map_err(|error| format!("{url}: {error}"))?;
        let connection = runtime.spawn(async move {
            // the client's next call says what happened
            let _ = connection.await;
        });
        Ok(Sql { runtime, client, connection })
    }

    /// Statements without answers.
    pub fn run(&self, statements: &str) -> Outcome<()> {
        let done = self.runtime.block_on(self.client.batch_execute(statements));
        done.map_err(|error| format!("{}: {}", statements.chars().take(300).collect::<String>(), message(&error)).into())
    }

    pub fn row(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Outcome<Row> {
        self.runtime.block_on(self.client.query_one(query, parameters)).map_err(|error| format!("{query}: {}", message(&error)).into())
    }

    pub fn rows(&self, query: &str) -> Outcome<Vec<Row>> {
        self.runtime.block_on(self.client.query(query, &[])).map_err(|error| format!("{query}: {}", message(&error)).into())
    }

    /// Looks until the query answers true; gives the moment it did.
    pub fn until(&self, query: &str) -> Outcome<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let statement = self.runtime.block_on(self.client.prepare(query)).map_err(|error| message(&error))?;
        while Instant::now() < deadline {
            let row = self.runtime.block_on(self.client.query_one(&statement, &[])).map_err(|error| message(&error))?;
            if row.get(0) {
                return Ok(Instant::now());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Err(format!("not within {PATIENCE:?}: {query}").into())
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}
