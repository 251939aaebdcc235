//! The two private servers that everything runs on.

use std::process::Command;

use godwit_testkit::servers::{Postgres, PostgresOptions};
use tempfile::TempDir;

use super::programs::{self, MAJOR, Programs};
use super::sql::Sql;
use crate::Outcome;

/// What is set on both servers besides the testkit's own lines.
pub const SETTINGS: [(&str, &str); 5] = [
    ("max_wal_size", "4GB"),
    ("shared_buffers", "512MB"),
    ("max_slot_wal_keep_size", "-1"),
    ("checkpoint_timeout", "15min"),
    // pg_dump locks all tables at once
    ("max_locks_per_transaction", "512"),
];

pub struct Arena {
    pub programs: Programs,
    pub source: Postgres,
    pub target: Postgres,
    pub folder: TempDir,
}

impl Arena {
    pub fn start(programs: Programs) -> Outcome<Self> {
        let options =
            SETTINGS.into_iter().fold(PostgresOptions::default().with_fsync(), |options, (name, value)| options.with_setting(name, value));
        let start = || Postgres::start(MAJOR, &options).ok_or("no server in the cache: run scripts/supply");
        let folder = tempfile::Builder::new().prefix("godwit-bench-").tempdir()?;
        Ok(Arena { programs, source: start()?, target: start()?, folder })
    }

    /// An empty database on one of the servers, in the place of any of that name.
    pub fn empty_database(server: &Postgres, name: &str) -> Outcome<Sql> {
        Self::drop_database(server, name)?;
        let url = server.create_database(name);
        // what others wrote before is not to be flushed on this one's time
        Sql::connect(&server.url("postgres"))?.run("CHECKPOINT")?;
        Sql::connect(&url)
    }

    pub fn drop_database(server: &Postgres, name: &str) -> Outcome<()> {
        Sql::connect(&server.url("postgres"))?.run(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    }

    /// One of the servers' own clients.
    pub fn tool(&self, program: &str) -> Command {
        Command::new(self.programs.tools.join(program))
    }

    /// pgbench's tables, with a replica identity for the one that has no key.
    pub fn pgbench_tables(&self, database: &str, scale: u32) -> Outcome<()> {
        let url = self.source.url(database);
        programs::run(Command::new(&self.programs.pgbench).args(["-i", "-q", "-I", "dtgvp", "-s", &scale.to_string(), &url]))?;
        Sql::connect(&url)?.run("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
    }
}

/// Refuses databases whose public tables do not hold the same rows.
pub fn assert_equal(source: &Sql, target: &Sql) -> Outcome<()> {
    let names =
        source.rows("SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace")?;
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        let digest = format!("SELECT count(*)::text || ' rows ' || coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {name} t");
        let (here, there): (String, String) = (source.row(&digest, &[])?.get(0), target.row(&digest, &[])?.get(0));
        if here != there {
            return Err(format!("{name} is not equal: {here} at the source, {there} at the target").into());
        }
    }
    Ok(())
}
