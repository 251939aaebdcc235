//! Private real servers for tests: free port, temporary data, gone when the test process is gone.
//!
//! A server runs from the cache that `scripts/supply` fills. It belongs to the value that started it; a watcher
//! process stops it and removes its data should this process die without dropping that value, by `kill -9` or by
//! leaving a `static` behind. As root the server runs as `nobody`, because servers refuse root.
//!
//! Every call here blocks; starting takes some tenths of a second.

mod cache;
mod mysql;
mod mysql_installation;
mod mysql_options;
mod mysql_query;
#[cfg(test)]
mod mysql_tests;
mod pooler;
mod ports;
mod postgres;
mod postgres_options;
mod processes;
mod shared;
mod simple_query;
mod template;
#[cfg(test)]
mod tests;
mod user;
mod watcher;

pub use cache::{foreign, tool};
pub use mysql::MySqlServer;
pub use mysql_installation::MySqlVersion;
pub use mysql_options::MySqlOptions;
pub use mysql_query::MySqlSession;
pub use pooler::Pooler;
pub use postgres::Postgres;
pub use postgres_options::PostgresOptions;
pub use shared::{shared, shared_mysql};
