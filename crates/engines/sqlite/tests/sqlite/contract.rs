//! SQLite keeps every promise of both contracts.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{Source, TableName, Target, Task};
use godwit_testkit::contract::{Bench, Harness};
use godwit_testkit::dialect::Dialect;
use godwit_testkit::neutral::{Neutral, NeutralRow, NeutralTable, NeutralTransaction};
use rusqlite::types::ValueRef;

use crate::world;

struct SqliteHarness;

struct SqliteBench {
    folder: tempfile::TempDir,
    tables: Vec<NeutralTable>,
    dialect: Dialect,
}

impl SqliteBench {
    fn path(&self) -> PathBuf {
        self.folder.path().join("bench.db")
    }
}

#[async_trait]
impl Harness for SqliteHarness {
    async fn fresh(&self, tables: &[NeutralTable]) -> Box<dyn Bench> {
        let bench = SqliteBench { folder: tempfile::tempdir().unwrap(), tables: tables.to_vec(), dialect: Dialect::sqlite() };
        let user = world::open(&bench.path());
        user.pragma_update(None, "journal_mode", "WAL").unwrap();
        for statement in tables.iter().flat_map(|table| bench.dialect.create(table)) {
            user.execute_batch(&statement).unwrap();
        }
        Box::new(bench)
    }
}

#[async_trait]
impl Bench for SqliteBench {
    fn task(&self) -> Task {
        world::task(&self.path(), &self.path())
    }

    fn source(&self) -> Arc<dyn Source> {
        godwit_sqlite::source(&self.task()).unwrap()
    }

    fn target(&self) -> Arc<dyn Target> {
        godwit_sqlite::target(&self.task()).unwrap()
    }

    fn table(&self, name: &str) -> TableName {
        TableName::new("main", name)
    }

    async fn run(&self, transaction: &NeutralTransaction) {
        let user = world::open(&self.path());
        user.pragma_update(None, "synchronous", "OFF").unwrap();
        for statement in self.dialect.transaction(&self.tables, transaction) {
            let changes_one_row = statement.starts_with("UPDATE") || statement.starts_with("DELETE");
            user.execute_batch(&statement).unwrap_or_else(|problem| panic!("{statement}: {problem}"));
            assert!(!changes_one_row || user.changes() == 1, "{statement} finds its row");
        }
    }

    /// What was committed between two looks is one transaction.
    fn tells_transactions_apart(&self) -> bool {
        false
    }

    async fn rows(&self, table: &NeutralTable) -> Vec<NeutralRow> {
        let user = world::open(&self.path());
        let mut statement = user.prepare(&self.dialect.select(table)).unwrap();
        let mut found = statement.query([]).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = found.next().unwrap() {
            rows.push((0..table.columns.len()).map(|column| neutral(row.get_ref(column).unwrap())).collect());
        }
        rows.sort();
        rows
    }
}

fn neutral(value: ValueRef<'_>) -> Neutral {
    match value {
        ValueRef::Null => Neutral::Null,
        ValueRef::Integer(number) => Neutral::Int(number),
        ValueRef::Text(text) => Neutral::text(std::str::from_utf8(text).unwrap()),
        other => panic!("{other:?} is in no neutral table"),
    }
}

mod source {
    godwit_testkit::source_contract!(super::SqliteHarness);
}

mod target {
    godwit_testkit::target_contract!(super::SqliteHarness);
}
