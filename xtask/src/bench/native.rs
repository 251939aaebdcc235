//! The server's own logical replication as a contestant.

use std::time::Instant;

use super::arena::Arena;
use super::programs;
use super::sql::Sql;
use crate::Outcome;

pub struct Native {
    target: Sql,
    source: Sql,
    name: String,
}

impl Native {
    /// Copies `database` into an equally named one at the target and subscribes to it; disabled when it returns.
    pub fn subscribe(arena: &Arena, database: &str, target: &str) -> Outcome<Self> {
        let name = format!("native_{database}");
        let sql = Arena::empty_database(&arena.target, target)?;
        let schema =
            programs::output(arena.tool("pg_dump").args(["-s", "--no-publications", "-n", "public", &arena.source.url(database)]))?;
        // psql's own words, which a server does not know
        let schema: Vec<&str> = schema.lines().filter(|line| !line.starts_with('\\') && !line.contains(" SCHEMA public")).collect();
        sql.run(&schema.join("\n"))?;
        sql.run("RESET ALL; SELECT pg_catalog.set_config('search_path', 'public', false)")?;
        let source = Sql::connect(&arena.source.url(database))?;
        source.run(&format!("CREATE PUBLICATION {name} FOR TABLES IN SCHEMA public"))?;
        let connection = format!("host=127.0.0.1 port={} user=postgres dbname={database}", arena.source.port());
        let options = "binary = true, streaming = parallel, synchronous_commit = off";
        sql.run(&format!("CREATE SUBSCRIPTION {name} CONNECTION '{connection}' PUBLICATION {name} WITH ({options})"))?;
        sql.until("SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel")?;
        let native = Native { target: sql, source, name };
        native.disable()?;
        Ok(native)
    }

    pub fn enable(&self) -> Outcome<Instant> {
        let began = Instant::now();
        self.target.run(&format!("ALTER SUBSCRIPTION {} ENABLE", self.name))?;
        Ok(began)
    }

    pub fn disable(&self) -> Outcome<()> {
        self.target.run(&format!("ALTER SUBSCRIPTION {} DISABLE", self.name))?;
        self.source.until(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'", self.name)).map(drop)
    }

    pub fn remove(self) -> Outcome<()> {
        self.target.run(&format!("DROP SUBSCRIPTION {}", self.name))
    }
}
