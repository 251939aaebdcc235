//! What a suite asks of an engine's tests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use godwit_model::{Source, TableName, Target, Task, Value};

use crate::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction};

/// Makes stores of one engine.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A fresh store that holds these tables, empty, and nothing else. Dropping it ends what it needed.
    ///
    /// Tables without a key log full old images (what an engine needs for that is done here).
    async fn fresh(&self, tables: &[NeutralTable]) -> Box<dyn Bench>;
}

/// What users do to a table's columns.
#[derive(Clone, Debug, PartialEq)]
pub enum Reshape {
    /// Every row that is there gets this value.
    Add(&'static str, Kind, Neutral),
    Drop(&'static str),
    /// Old and new name.
    Rename(&'static str, &'static str),
    /// Its values are turned.
    Retype(&'static str, Kind),
}

/// One store, seen by its users and as both ends of a task.
#[async_trait]
pub trait Bench: Send + Sync {
    /// A task whose endpoints may both name this store.
    fn task(&self) -> Task;

    fn source(&self) -> Arc<dyn Source>;

    fn target(&self) -> Arc<dyn Target>;

    /// The name under which a neutral table lies in this store.
    fn table(&self, name: &str) -> TableName;

    /// Runs a users' transaction as its own client. NULL finds NULL; without a key exactly one of several equal rows is
    /// meant. Panics if the store refuses or a row is not found.
    async fn run(&self, transaction: &NeutralTransaction);

    /// All committed rows, read by a client of its own, sorted.
    async fn rows(&self, table: &NeutralTable) -> Vec<NeutralRow>;

    /// These are the tables that the task selects now: whatever its administrator prepares for that is prepared. All of
    /// them before the first call.
    async fn select(&self, _tables: &[TableName]) {}

    /// Users alter a table. False: this engine's capture and apply follow no alteration, and say so (`DDL_STOPPED`).
    async fn reshape(&self, _table: &str, _change: &Reshape) -> bool {
        false
    }

    /// Whether the store's log tells each transaction on its own (see `Source::changes`).
    fn tells_transactions_apart(&self) -> bool {
        true
    }

    /// The engine's value for a neutral one, as its own change stream would give it.
    fn value(&self, _kind: Kind, value: &Neutral) -> Value {
        value.value()
    }

    /// The neutral value of one that the engine gave.
    fn read(&self, kind: Kind, value: &Value) -> Neutral {
        kind.read(value).expect("the engine gives values of the column's kind")
    }

    /// A fresh sequence of this store, where the engine has sequences.
    async fn sequence(&self) -> Option<TableName> {
        None
    }

    /// Where that sequence stands: the last value given out.
    async fn sequence_value(&self, _name: &TableName) -> i64 {
        unreachable!("only asked where `sequence` gave a name")
    }
}

/// A promise that does not come true in this time is broken: nothing in a suite takes more than a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a test that hangs.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("the suite hangs: a promise did not come true in time")
}
