//! One server per version and test process, for the many tests that need only a database of their own.

use std::sync::OnceLock;

use super::mysql::MySqlServer;
use super::mysql_installation::MySqlVersion;
use super::mysql_options::MySqlOptions;
use super::postgres::Postgres;
use super::postgres_options::PostgresOptions;

const OLDEST: u16 = 14;
const NEWEST: u16 = 18;
static SERVERS: [OnceLock<Option<Postgres>>; (NEWEST - OLDEST + 1) as usize] = [const { OnceLock::new() }; (NEWEST - OLDEST + 1) as usize];
static MYSQL_SERVERS: [OnceLock<Option<MySqlServer>>; MySqlVersion::ALL.len()] = [const { OnceLock::new() }; MySqlVersion::ALL.len()];

/// The server of this version that the tests of this process share, started by the first that asks; it ends with the
/// process. Make a database with `create_database`, and neither stop nor configure it. `None` as in `Postgres::start`.
///
/// # Panics
/// As `Postgres::start`.
#[must_use]
pub fn shared(major: u16) -> Option<&'static Postgres> {
    let slot = major.checked_sub(OLDEST).and_then(|index| SERVERS.get(usize::from(index)));
    let slot = slot.unwrap_or_else(|| panic!("PostgreSQL {major} is none of {OLDEST} to {NEWEST}"));
    slot.get_or_init(|| Postgres::start(major, &PostgresOptions::default())).as_ref()
}

/// As `shared`, for MariaDB and MySQL.
///
/// # Panics
/// As `MySqlServer::start`.
#[must_use]
pub fn shared_mysql(version: MySqlVersion) -> Option<&'static MySqlServer> {
    MYSQL_SERVERS[version as usize].get_or_init(|| MySqlServer::start(version, &MySqlOptions::default())).as_ref()
}
