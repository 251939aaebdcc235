//! One database as its users see it, in words that fit every engine.

use godwit_testkit::dialect::Dialect;
use godwit_testkit::servers::Postgres;

/// Who a task connects as, and who owns the users' tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A superuser, who owns all.
    Full,
    /// A role that may log in, and has besides what `check --grants` prints as required; tables belong to another.
    Managed,
    /// The same for a source that may not be written to.
    ReadOnly,
}

/// A row as text; NULL is None.
pub type Row = Vec<Option<String>>;

pub trait Store: Send + Sync {
    /// As the task file takes it.
    fn url(&self) -> String;

    /// What stands in the task file beside the URL of a source.
    fn source_options(&self) -> &'static str {
        "writes: marker"
    }

    /// Runs what `check --grants` printed for this side.
    fn grant(&self, _statements: &[String]) {}

    /// Whether the role of the task has no right yet.
    fn must_be_granted(&self) -> bool {
        false
    }

    fn dialect(&self) -> Dialect;

    /// The schema that a user's tables lie in.
    fn schema(&self) -> &'static str;

    fn connect(&self) -> Result<Box<dyn Session>, String>;

    /// Everything that Godwit made here for this task, by the catalog.
    fn traces(&self, task: &str) -> Vec<String>;

    /// Loses what the source keeps for a task: a slot, capture triggers. Nobody is at work.
    fn forget_changes(&self);

    /// Where the engine is PostgreSQL.
    fn server(&self) -> Option<&Postgres>;

    /// Where the engine is a server.
    fn killable(&self) -> Option<&dyn Killable>;
}

/// A server of the test's own.
pub trait Killable {
    fn kill9(&self);

    /// Clients are cut off, open transactions rolled back.
    fn shut_down(&self);

    fn start_again(&self);
}

/// One user's connection. After an error the transaction is rolled back, or the connection is gone.
pub trait Session: Send {
    /// Runs the statements in order; gives how many rows each touched.
    fn execute(&mut self, statements: &[String]) -> Result<Vec<u64>, String>;

    fn rows(&mut self, sql: &str) -> Result<Vec<Row>, String>;
}

impl dyn Store {
    #[track_caller]
    pub fn run(&self, sql: &[&str]) {
        let statements: Vec<String> = sql.iter().map(|sql| (*sql).to_owned()).collect();
        if let Err(problem) = self.connect().and_then(|mut session| session.execute(&statements)) {
            panic!("{statements:?}: {problem}");
        }
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        match self.connect().and_then(|mut session| session.rows(sql)) {
            Ok(rows) => rows,
            Err(problem) => panic!("{sql}: {problem}"),
        }
    }

    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql);
        rows[0][0].as_deref().unwrap().parse().unwrap()
    }

    /// All rows of what a SELECT gives, in an order of their own.
    #[track_caller]
    pub fn sorted(&self, sql: &str) -> Vec<Row> {
        let mut rows = self.rows(sql);
        rows.sort();
        rows
    }
}
