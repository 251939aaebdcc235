//! How a test wants its PostgreSQL server.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Settings of one server. The default suits most tests: logical decoding on, small memory, no fsync.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    fsync: bool,
    settings: Vec<(String, String)>,
    access_rules: Option<String>,
    data: Option<PathBuf>,
}

impl PostgresOptions {
    /// Makes commits durable, as tests that kill the server need.
    #[must_use]
    pub fn with_fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// A line of `postgresql.conf`; later ones win, also over the defaults of the testkit.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The whole `pg_hba.conf` in place of "everyone from this machine is trusted". Keep a `trust` line for the role
    /// `postgres` from 127.0.0.1 if `create_database` is to work.
    #[must_use]
    pub fn with_access_rules(mut self, rules: &str) -> Self {
        self.access_rules = Some(rules.to_owned());
        self
    }

    /// Starts on a copy of this data folder (a backup, a standby made by `pg_basebackup -R`) instead of an empty one.
    #[must_use]
    pub fn with_data_of(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    pub(super) fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    pub(super) fn access_rules(&self) -> Option<&str> {
        self.access_rules.as_deref()
    }

    /// What is appended to `postgresql.conf`; `name` shows in the titles of the server's processes.
    pub(super) fn configuration(&self, name: &str, socket_folder: &str) -> String {
        let fsync = if self.fsync { "on" } else { "off" };
        let defaults = [
            ("cluster_name", name),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", socket_folder),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            ("max_prepared_transactions", "10"),
            ("max_connections", "200"),
            ("shared_buffers", "16MB"),
            ("fsync", fsync),
            ("full_page_writes", fsync),
            ("update_process_title", "off"),
            ("logging_collector", "off"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        let chosen = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut text = String::from("\n# godwit testkit\n");
        for (name, value) in defaults.into_iter().chain(chosen) {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).expect("a string takes everything");
        }
        text
    }
}
